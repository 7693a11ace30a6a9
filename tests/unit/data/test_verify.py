from __future__ import annotations

from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest

from mobilesam_core.config.data import DataConfig, ShapesConfig
from mobilesam_core.data.sample import BadFile
from mobilesam_core.data.verify import Subset, find_bad_files
from mobilesam_core.data.view import check_trainable
from mobilesam_core.errors import DataError
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
