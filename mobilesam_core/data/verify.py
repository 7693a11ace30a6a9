"""Reading every file once, so that a bad one is found now and not after an hour of training."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from mobilesam_core.data.mix import MixSource
from mobilesam_core.data.sample import BadFile, Sample, SampleSource
from mobilesam_core.errors import DataError
from mobilesam_core.progress import Reporter


def find_bad_files(
    source: SampleSource,
    reporter: Reporter,
    description: str,
    check: Callable[[Sample], None] | None = None,
) -> list[BadFile]:
    """Read each sample of ``source`` once and list all that cannot be used, in order; of a mix, each time they occur.

    Args:
        description: what the progress display says.
        check: raises a DataError for a sample that can be read but not used
            (:func:`~mobilesam_core.data.view.check_trainable`).
    """

    def problem(index: int) -> BadFile | None:
        try:
            sample = source[index]
            if check is not None:
                check(sample)
        except DataError as error:
            return BadFile(index, source.describe(index), error.message)
        return None

    first = source.first_indices().tolist() if isinstance(source, MixSource) else list(range(len(source)))
    once = sorted(set(first))
    bad: dict[int, BadFile] = {}
    # Threads, since decoders release the GIL; a sample is dropped where it was read, so few are held at a
    # time.
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        with reporter.task(description, len(once), "images") as task:
            for found in pool.map(problem, once):
                if found is not None:
                    bad[found.index] = found
                task.advance()
    finally:
        pool.shutdown(cancel_futures=True)  # on Ctrl-C or a bug, do not read the rest first
    return [replace(bad[index], index=place) for place, index in enumerate(first) if index in bad]


class Subset:
    """The samples of ``source`` at ``indices``, as a source of its own."""

    def __init__(self, source: SampleSource, indices: Sequence[int]) -> None:
        self._source = source
        self._indices = list(indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        return self._source[self._indices[index]]

    def describe(self, index: int) -> str:
        return self._source.describe(self._indices[index])
