"""The consoles: results go to stdout, all that is said along the way goes to stderr.

Rich is imported when something is printed, so that ``--help`` and completion stay quick.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilesam_core.progress import NullReporter, ProgressTask, Reporter

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from mobilesam_core.embedding.workflow import EmbedResult

_PLAIN_INTERVAL_S = 10.0


@cache
def stdout() -> Console:
    """Where results go."""
    from rich.console import Console

    return Console(highlight=False)


@cache
def stderr() -> Console:
    """Where progress, notes and errors go."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """Print one JSON document on stdout, for machines."""
    # Not through rich: it would wrap long lines at the width of the terminal.
    # ASCII, since a pipe may have any encoding.
    print(json.dumps(value, indent=2))


def show_stored(what: str, result: EmbedResult, out: Path) -> None:
    """Sum up what of an image, ``what``, was put into the feature store ``out``."""
    rate = f", {result.images / result.seconds:.2f} images/s" if result.images and result.seconds else ""
    skipped = f" ({result.skipped} were there already)" if result.skipped else ""
    stdout().print(
        f"{result.images} {what}{skipped}, {result.bytes / 2**20:.1f} MiB, {result.seconds:.1f} s{rate}: {out}",
        soft_wrap=True,
    )


def reporter(quiet: bool = False) -> Reporter:
    """The reporter of this process: bars on a terminal, plain lines elsewhere, nothing when ``quiet``."""
    return NullReporter() if quiet else ConsoleReporter()


class ConsoleReporter:
    """Shows messages and progress on stderr."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._open_tasks = 0

    def info(self, message: str) -> None:
        self._print(message)

    def warning(self, message: str) -> None:
        self._print(message, "[bold yellow]Warning:[/] ")

    def _print(self, message: str, label: str = "") -> None:
        from rich.markup import escape

        stderr().print(f"{label}{escape(message)}", soft_wrap=True)

    @contextmanager
    def task(self, description: str, total: int | None, unit: str = "", start: int = 0) -> Iterator[ProgressTask]:
        # Not rich's own answer: FORCE_COLOR, which notebooks and CI set, makes no terminal that bars can be redrawn on.
        if not stderr().file.isatty():
            yield _PlainTask(self, description, total, unit, start)
            return
        progress = self._start_bars()
        task_id = progress.add_task(description, total=total, completed=start, unit=unit, fields="")
        try:
            yield _BarTask(progress, task_id)
        finally:
            progress.remove_task(task_id)
            self._open_tasks -= 1
            if self._open_tasks == 0:
                progress.stop()
                self._progress = None

    def _start_bars(self) -> Progress:
        """Nested tasks share one live display."""
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        if self._progress is None:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[unit]}"),
                TimeElapsedColumn(),
                TextColumn("eta"),
                TimeRemainingColumn(),
                TextColumn("[dim]{task.fields[fields]}"),
                console=stderr(),
            )
            self._progress.start()
        self._open_tasks += 1
        return self._progress


class _BarTask:
    def __init__(self, progress: Progress, task_id: TaskID) -> None:
        self._progress, self._task_id = progress, task_id

    def advance(self, steps: int = 1, **fields: str) -> None:
        self._progress.update(self._task_id, advance=steps)
        if fields:
            self._progress.update(self._task_id, fields="  ".join(f"{name} {text}" for name, text in fields.items()))


class _PlainTask:
    """A line every few seconds, for logs."""

    def __init__(self, reporter: ConsoleReporter, description: str, total: int | None, unit: str, start: int) -> None:
        self._reporter, self._description, self._total, self._unit = reporter, description, total, unit
        self._done, self._start = start, start
        self._begun = self._last = time.monotonic()

    def advance(self, steps: int = 1, **fields: str) -> None:
        self._done += steps
        now = time.monotonic()
        if now - self._last < _PLAIN_INTERVAL_S and self._done != self._total:
            return
        self._last = now
        of = f"/{self._total}" if self._total else ""
        eta = ""
        if self._total and self._done > self._start:
            left = (now - self._begun) / (self._done - self._start) * (self._total - self._done)
            eta = f", {left:.0f} s left"
        notes = "".join(f", {name} {value}" for name, value in fields.items())
        self._reporter.info(f"{self._description}: {self._done}{of} {self._unit}{eta}{notes}")
