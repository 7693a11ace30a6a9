"""The sessions of all users, within bounds of memory."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from mobilesam_core.app.session import Session
from mobilesam_core.errors import UsageError

_MAX_BYTES, _MAX_SESSIONS = 2**30, 1000


class Visitors:
    """Sessions by their tokens. When they take too much, those that were used least recently are forgotten."""

    def __init__(self, max_bytes: int = _MAX_BYTES, max_sessions: int = _MAX_SESSIONS) -> None:
        self._max_bytes, self._max_sessions = max_bytes, max_sessions
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._sessions)

    def add(self, session: Session) -> None:
        """Take in a session."""
        with self._lock:
            self._sessions[session.token] = session
        self.make_room()

    def get(self, token: str) -> Session:
        """The session of ``token``.

        Raises:
            UsageError: there is none, or none any more.
        """
        with self._lock:
            session = self._sessions.get(token)
            if session is None:
                raise UsageError(
                    "The server no longer has the image of this page: it keeps those that were used last.",
                    "Reload the page and open the image again.",
                )
            self._sessions.move_to_end(token)
            return session

    def make_room(self) -> None:
        """Forget what is too much; to be called when a session has grown. The newest always stays."""
        with self._lock:
            sizes = {token: session.size_in_bytes for token, session in self._sessions.items()}
            total = sum(sizes.values())
            while len(self._sessions) > 1 and (total > self._max_bytes or len(self._sessions) > self._max_sessions):
                token, _ = self._sessions.popitem(last=False)
                total -= sizes[token]
