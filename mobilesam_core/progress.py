"""How the core tells what it is doing, without knowing who listens.

A workflow takes a :class:`Reporter`. The command line hands in one that draws with rich; tests and
library users hand in nothing and get :class:`NullReporter`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class ProgressTask(Protocol):
    """One running piece of work."""

    def advance(self, steps: int = 1, **fields: str) -> None:
        """Count ``steps`` done; ``fields`` are short texts shown beside the bar (``loss="0.12"``)."""


class Reporter(Protocol):
    """Receives messages and progress."""

    def info(self, message: str) -> None:
        """Something worth knowing."""

    def warning(self, message: str) -> None:
        """Something the user should act on or know before trusting the result."""

    def task(
        self, description: str, total: int | None, unit: str = "", start: int = 0
    ) -> AbstractContextManager[ProgressTask]:
        """A piece of work of ``total`` steps of which ``start`` are done already."""


class _NullTask:
    def advance(self, steps: int = 1, **fields: str) -> None:
        return None


class NullReporter:
    """Says nothing."""

    def info(self, message: str) -> None:
        return None

    def warning(self, message: str) -> None:
        return None

    def task(
        self, description: str, total: int | None, unit: str = "", start: int = 0
    ) -> AbstractContextManager[ProgressTask]:
        return nullcontext(_NullTask())
