"""Reading ahead, working, and writing behind; one bad image among thousands costs that image alone."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, TypeVar

from mobilesam_core.data.sample import BadFile
from mobilesam_core.errors import DataError, Interrupted
from mobilesam_core.files import write_text
from mobilesam_core.interrupt import StopRequest
from mobilesam_core.jobs.inputs import ImageFile
from mobilesam_core.progress import Reporter

Loaded = TypeVar("Loaded")
Found = TypeVar("Found")

_AHEAD, _BEHIND = 2, 4


@dataclass(frozen=True)
class Job(Generic[Loaded, Found]):
    """What is done to each image.

    load: read it (in another thread). work: the computation. write: its results, whole or not at all (in another
    thread). note: short texts beside the progress bar, of what was found.
    """

    load: Callable[[ImageFile], Loaded]
    work: Callable[[ImageFile, Loaded], Found]
    write: Callable[[ImageFile, Found], None]
    note: Callable[[Found], dict[str, str]]


def run_job(
    job: Job[Loaded, Found],
    images: Sequence[ImageFile],
    failures_file: Path,
    title: str,
    reporter: Reporter,
    raise_first: bool = False,
) -> list[BadFile]:
    """Do ``job`` for every image, and return those that failed, which ``failures_file`` lists, one JSON a line.

    raise_first: raise the first error of an image instead, as fits a job of a single one.

    Raises:
        OutputError: a result cannot be written; those before it are.
        Interrupted: Ctrl-C or SIGTERM, after the image in hand was finished.
    """
    failures: list[BadFile] = []
    ahead: deque[Future[Loaded]] = deque()
    behind: deque[tuple[int, Future[None]]] = deque()

    def attempt(index: int, action: Callable[[], None]) -> None:
        try:
            action()
        except DataError as error:
            if raise_first:
                raise
            failures.append(BadFile(index, str(images[index].path), error.message))
            reporter.warning(error.message)

    def settle(most: int) -> None:
        """Wait until no more than ``most`` results are still to be written."""
        while len(behind) > most or (behind and behind[0][1].done()):
            index, written = behind.popleft()
            attempt(index, written.result)

    with (
        StopRequest() as stop,
        reporter.task(title, len(images), "images") as task,
        ThreadPoolExecutor(1) as reader,
        ThreadPoolExecutor(1) as writer,
    ):
        try:
            for index in range(len(images)):
                while len(ahead) < _AHEAD and index + len(ahead) < len(images):
                    ahead.append(reader.submit(job.load, images[index + len(ahead)]))
                loaded, notes = ahead.popleft(), dict[str, str]()

                def work(index: int = index, loaded: Future[Loaded] = loaded, notes: dict[str, str] = notes) -> None:
                    found = job.work(images[index], loaded.result())
                    notes |= job.note(found)
                    behind.append((index, writer.submit(job.write, images[index], found)))

                attempt(index, work)
                settle(_BEHIND)
                task.advance(1, **notes)
                if stop.requested:
                    raise Interrupted(
                        f"Stopped after {index + 1} of {len(images)} images.", "Run the same command again to go on."
                    )
        finally:
            for future in ahead:
                future.cancel()
            try:
                settle(0)
            finally:
                _list_failures(failures, failures_file)
    return failures


def _list_failures(failures: Sequence[BadFile], path: Path) -> None:
    if failures:
        write_text(path, "".join(json.dumps(asdict(failure)) + "\n" for failure in failures))
    else:
        path.unlink(missing_ok=True)  # of an earlier run, whose failures were tried again
