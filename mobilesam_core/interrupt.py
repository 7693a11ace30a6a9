"""Ctrl-C and SIGTERM: as a request that a loop answers between two steps, or as an end that nothing hides."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from mobilesam_core.errors import Interrupted


class StopRequest:
    """While active, the first SIGINT or SIGTERM sets :attr:`requested`; a second one ends the process at once."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        # Only the main thread may set handlers; a library user in another thread keeps their own.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()


@contextmanager
def interrupts_kept() -> Iterator[None]:
    """While active, what fails after Ctrl-C ends as the ``KeyboardInterrupt`` that it was.

    Python raises it wherever the program is, also inside what native code calls, which may put an exception of
    its own in its place: of two interrupts while safetensors reads a file, torch turns one into a ``ValueError``
    that knows nothing of it, and a library that was being imported calls itself broken.

    Raises:
        KeyboardInterrupt: Ctrl-C came, and the body ended with another exception; not if that is
            :class:`~mobilesam_core.errors.Interrupted`, which is an answer to it.
    """
    previous = signal.getsignal(signal.SIGINT)
    # Of a background job it is ignored, and only the main thread may set handlers.
    if not callable(previous) or threading.current_thread() is not threading.main_thread():
        yield
        return
    came = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        previous(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    except Interrupted:
        raise
    except Exception as error:
        if came:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, previous)
