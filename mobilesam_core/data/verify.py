"""Reading every file once, so that a bad one is found now and not after an hour of training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from mobilesam_core.config.data import DataConfig
from mobilesam_core.data.mix import MixSource
from mobilesam_core.data.sample import BadFile, Sample, SampleSource
from mobilesam_core.data.subset import Subset
from mobilesam_core.data.view import Tile, trainable_tiles
from mobilesam_core.errors import DataError
from mobilesam_core.machine import available_cores
from mobilesam_core.progress import Reporter

ResultT = TypeVar("ResultT")


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
    looked = _look_at_all(source, reporter, description, check or (lambda sample: None))
    return [each for each in looked if isinstance(each, BadFile)]


def find_tiles(
    source: SampleSource, data: DataConfig, size: int, reporter: Reporter, description: str
) -> tuple[list[Tile], list[BadFile]]:
    """Read each sample of ``source`` once and list all tiles to train on in a frame of ``size`` pixels
    (:func:`~mobilesam_core.data.view.trainable_tiles`), and all samples that cannot be used, both in order; the tiles'
    places are among the good ones.

    Args:
        description: what the progress display says.
    """
    looked = _look_at_all(source, reporter, description, lambda sample: trainable_tiles(sample, data, size))
    good = [each for each in looked if not isinstance(each, BadFile)]
    tiles = [Tile(place, window) for place, windows in enumerate(good) for window in windows]
    return tiles, [each for each in looked if isinstance(each, BadFile)]


def without(source: SampleSource, bad: Sequence[BadFile]) -> SampleSource:
    """The samples of ``source`` that are not among the ``bad``."""
    if not bad:
        return source
    left_out = {file.index for file in bad}
    return Subset(source, [index for index in range(len(source)) if index not in left_out])


def _look_at_all(
    source: SampleSource, reporter: Reporter, description: str, look: Callable[[Sample], ResultT]
) -> list[ResultT | BadFile]:
    """What ``look`` gives for each sample; where it, or reading, raises a DataError, why it cannot be used."""

    def attempt(index: int) -> ResultT | BadFile:
        try:
            return look(source[index])
        except DataError as error:
            return BadFile(index, source.describe(index), error.message)

    found = visit(source, reporter, description, attempt)
    looked = [(place, found[first]) for place, first in enumerate(_first_indices(source))]
    return [replace(each, index=place) if isinstance(each, BadFile) else each for place, each in looked]


def visit(
    source: SampleSource, reporter: Reporter, description: str, look: Callable[[int], ResultT]
) -> dict[int, ResultT]:
    """What ``look`` gives for each index of ``source``, in order; of a mix, for the first at which a sample occurs.

    Args:
        description: what the progress display says.
        look: reads the sample, in one of several threads.
    """
    once = sorted(set(_first_indices(source)))
    results: dict[int, ResultT] = {}
    # Threads, since decoders release the GIL; a sample is dropped where it was read, so few are held at a
    # time.
    pool = ThreadPoolExecutor(min(8, available_cores()))
    try:
        with reporter.task(description, len(once), "images") as task:
            for index, result in zip(once, pool.map(look, once), strict=True):
                results[index] = result
                task.advance()
    finally:
        pool.shutdown(cancel_futures=True)  # on Ctrl-C or a bug, do not read the rest first
    return results


def _first_indices(source: SampleSource) -> list[int]:
    """For each index, the one at which the same sample occurs for the first time."""
    first: list[int] = source.first_indices().tolist() if isinstance(source, MixSource) else list(range(len(source)))
    return first
