from __future__ import annotations

from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest

from mobilesam_core.config.data import DataConfig, ShapesConfig
from mobilesam_core.data.mix import MixSource
from mobilesam_core.data.sample import BadFile
from mobilesam_core.data.subset import Subset
from mobilesam_core.data.tiles import BusiestTiles
from mobilesam_core.data.verify import find_bad_files, find_tiles, without
from mobilesam_core.data.view import check_trainable
from mobilesam_core.errors import DataError
from mobilesam_core.ops.tiles import Tiling
from mobilesam_core.progress import NullReporter


class CountingReporter(NullReporter):
    def __init__(self) -> None:
        self.tasks: list[tuple[str, int | None]] = []
        self.steps = 0

    @contextmanager
    def task(self, description, total, unit="", start=0):
        self.tasks.append((description, total))
        yield self

    def advance(self, steps: int = 1, **fields: str) -> None:
        self.steps += steps


@pytest.fixture
def source(memory_source, bright_sample, two_squares: np.ndarray):
    good = bright_sample(two_squares)
    tiny = bright_sample((two_squares == 1).astype(np.uint8))
    return memory_source([good, DataError("a is empty."), tiny, good, DataError("b is torn.", "Mend it.")])


def test_every_bad_file_is_listed_in_order(source) -> None:
    reporter = CountingReporter()
    assert find_bad_files(source, reporter, "Checking") == [
        BadFile(1, "item 1", "a is empty."),
        BadFile(4, "item 4", "b is torn."),
    ]
    assert reporter.tasks == [("Checking", 5)] and reporter.steps == 5


def test_images_with_nothing_to_train_on_are_found_too(source) -> None:
    config = DataConfig(train=ShapesConfig(format="shapes"), min_object_area=40)
    check = partial(check_trainable, data=config, size=30)
    bad = find_bad_files(source, NullReporter(), "", check)
    assert [file.index for file in bad] == [1, 2, 4]
    assert "largest object covers 25.0 pixels" in bad[1].problem


def test_other_errors_are_not_swallowed(source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(source), "__getitem__", lambda self, index: {}[index])
    with pytest.raises(KeyError):
        find_bad_files(source, NullReporter(), "")


def test_subset(source) -> None:
    subset = Subset(source, [3, 1, 0])
    assert len(subset) == 3 and subset[0] is source[3] and subset.describe(2) == "item 0"
    with pytest.raises(DataError):
        subset[1]
    assert [file.index for file in find_bad_files(subset, NullReporter(), "")] == [1]


def test_tiles_are_of_the_good_images_in_their_order(memory_source, bright_sample, two_squares: np.ndarray) -> None:
    small, wide = bright_sample(two_squares), bright_sample(np.tile(two_squares, (1, 2)))
    source = memory_source([DataError("a is empty."), wide, bright_sample(two_squares[:15]), small])
    data = DataConfig(train=ShapesConfig(format="shapes"), tile=64, overlap=0, min_object_area=120)
    reporter = CountingReporter()
    tiles, bad = find_tiles(source, data, 64, reporter, "Checking")
    assert reporter.tasks == [("Checking", 4)] and reporter.steps == 4
    assert [file.index for file in bad] == [0, 2]
    assert tiles == [(0, (0, 0, 64, 40)), (0, (56, 0, 120, 40)), (1, (0, 0, 60, 40))]
    assert without(source, bad)[1] is small
    mix = MixSource([source, memory_source([small])], [1, 1])
    tiles, bad = find_tiles(mix, data, 64, NullReporter(), "")
    left = without(mix, bad)
    assert len(bad) == 2 and {place for place, _ in tiles} == set(range(len(left)))
    assert all(left[place].image.shape[1] in (60, 120) for place, _ in tiles)


def test_the_busiest_tile_holds_most_objects_whole(memory_source, bright_sample, two_squares: np.ndarray) -> None:
    wide = np.pad(two_squares, ((0, 0), (100, 0)))
    wide[10:20, :10] = 3
    tiles = BusiestTiles(memory_source([bright_sample(wide), bright_sample(two_squares)]), Tiling(64, 20))
    assert len(tiles) == 2 and tiles.describe(1) == "item 1"
    assert tiles[0].masks.labels.tolist() == [1, 2] and np.array_equal(tiles[0].masks.areas, [100, 225])
    assert tiles[0].image.shape == (40, 64, 3) and tiles[1].image.shape == (40, 60, 3)
