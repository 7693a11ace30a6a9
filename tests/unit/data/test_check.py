from __future__ import annotations

import pickle

import numpy as np
import pytest

from mobilesam_core.config.data import AugmentConfig, DataConfig, ShapesConfig
from mobilesam_core.data.check.figures import ClassFigures, set_figures
from mobilesam_core.data.check.findings import KINDS
from mobilesam_core.data.check.looking import Objects, look_at
from mobilesam_core.data.faults import Faults, sum_up
from mobilesam_core.errors import DataError
from mobilesam_core.ops.tiles import Tiling


def objects(shape: tuple[int, int], *areas: int, labels: list[int] | None = None) -> Objects:
    found = np.array(labels or range(1, len(areas) + 1), np.int64)
    return Objects(shape, np.array(areas, np.int64), found)


def figures(*found: Objects, class_names=None, augment: AugmentConfig | None = None, tiling: Tiling | None = None):
    return set_figures(
        found,
        image_size=128,
        min_object_area=4,
        augment=augment or AugmentConfig(),
        class_names=class_names,
        unannotated=None,
        tiling=tiling,
    )


def test_sizes_and_what_vanishes() -> None:
    summed = figures(objects((256, 128), 9, 15, 16, 100), objects((64, 64), 10000))
    assert (summed.images, summed.objects, summed.objects_per_image) == (2, 5, 2.5)
    assert summed.sides == {"0%": 3, "5%": 3.2, "25%": 3.9, "50%": 4, "75%": 10, "95%": 82, "100%": 100}
    assert summed.sides_in_frame["0%"] == 1.5 and summed.sides_in_frame["100%"] == 200
    assert {size: count for size, count in summed.histogram.items() if count} == {
        "<4": 2, "4-8": 1, "8-16": 1, "64-128": 1
    }  # fmt: skip
    # Of the image of 256 pixels, whose objects have 1/16, 1/4 and all of their pixels at these sizes.
    assert summed.vanishing == {64: 3, 128: 2, 256: 0}
    assert figures(objects((256, 128), 9, 15, 16, 100), augment=AugmentConfig(crop=64)).vanishing[64] == 0
    in_tiles = figures(objects((256, 128), 9, 15, 16, 100), objects((64, 64), 10000), tiling=Tiling(128, 0))
    assert in_tiles.vanishing == {64: 2, 128: 0, 256: 0} and in_tiles.sides_in_frame["0%"] == 3


def test_classes() -> None:
    found = objects((9, 9), 1, 2, 3, labels=[7, 7, 1]), objects((9, 9), 4, labels=[7])
    assert figures(*found, class_names={7: "cell"}).classes == (
        ClassFigures(1, None, 1, 1),
        ClassFigures(7, "cell", 3, 2),
    )
    assert figures(*found).classes is None


def test_a_set_of_nothing() -> None:
    summed = figures(class_names={})
    assert (summed.images, summed.objects, summed.sides, summed.classes) == (0, 0, {}, ())
    assert set(summed.vanishing.values()) == {0}


def test_a_look_keeps_facts_and_tells_whether_an_image_can_be_trained_on(
    memory_source, bright_sample, two_squares: np.ndarray
) -> None:
    sample, turned = bright_sample(two_squares), bright_sample(two_squares.T)
    two_faults = sum_up([DataError("a"), DataError("b", fault="size")])
    source = memory_source([sample, sample, turned, two_faults])
    data = DataConfig(train=ShapesConfig(format="shapes"), min_object_area=300)
    looks = [look_at(source, index, 3, data, 60) for index in range(4)]
    assert looks[0].digest == looks[1].digest != looks[2].digest
    assert looks[0].objects is not None and looks[0].objects.areas.tolist() == [100, 225]
    assert [fault.fault for fault in looks[0].faults] == ["too_small"]
    assert look_at(source, 0, 3, None, 60).faults == ()
    assert looks[3].objects is looks[3].digest is None
    assert [fault.fault for fault in looks[3].faults] == ["unusable", "size"]


def test_faults_are_raised_as_one_or_handed_on() -> None:
    faults = Faults()
    faults.settle()
    for number in range(60):
        with faults.catch():
            raise DataError(f"{number} is bad.", "Mend it.", "empty")
    with pytest.raises(KeyError), faults.catch():
        raise KeyError
    with pytest.raises(DataError, match=r"60 faults:\n  0 is bad\.") as caught:
        faults.settle()
    assert caught.value.message.endswith("49 is bad.\n  … and 10 more") and caught.value.remedy == "Mend it."
    assert len(caught.value.parts) == 60 and caught.value.fault == "empty"
    back = pickle.loads(pickle.dumps(caught.value))  # as from a data worker
    assert (back.message, back.fault, len(back.parts)) == (caught.value.message, "empty", 60)
    told: list[DataError] = []
    faults.settle(told.append)
    assert told == faults.found


def test_errors_come_before_warnings() -> None:
    severities = [severity for severity, _ in KINDS.values()]
    assert severities == sorted(severities)
