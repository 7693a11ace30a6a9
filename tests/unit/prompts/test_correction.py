from __future__ import annotations

import numpy as np
import pytest

from mobilesam_core.prompts.correction import Click, next_click
from mobilesam_core.prompts.sampling import center_point
from mobilesam_core.prompts.types import NEGATIVE, POSITIVE


def rectangle(x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    mask = np.zeros((40, 60), bool)
    mask[y1:y2, x1:x2] = True
    return mask


def test_the_first_click_is_the_middle_of_the_object() -> None:
    target = rectangle(10, 5, 21, 16)
    assert next_click(target) == Click((15, 10), POSITIVE)
    assert next_click(target) == next_click(target, np.zeros_like(target))


def test_the_image_border_counts_as_the_edge_of_a_region() -> None:
    assert next_click(np.ones((41, 41), bool)) == Click((20, 20), POSITIVE)


def test_a_missing_part_is_added() -> None:
    assert next_click(rectangle(0, 0, 30, 9), rectangle(0, 0, 21, 9)) == Click((25, 4), POSITIVE)


def test_an_excess_part_is_taken_away() -> None:
    assert next_click(rectangle(0, 0, 21, 9), rectangle(0, 0, 30, 9)) == Click((25, 4), NEGATIVE)


def test_the_larger_mistake_comes_first_even_when_it_is_thinner() -> None:
    target = rectangle(0, 0, 20, 20)
    predicted = target & ~rectangle(5, 5, 12, 12) | rectangle(0, 30, 60, 31)
    click = next_click(target, predicted)
    assert click == Click((0, 30), NEGATIVE)


def test_of_several_parts_of_an_object_the_largest_is_clicked() -> None:
    target = rectangle(2, 2, 7, 7) | rectangle(30, 10, 41, 21) | rectangle(50, 30, 55, 35)
    assert next_click(target) == Click((35, 15), POSITIVE)


def test_parts_that_touch_at_a_corner_are_one_region() -> None:
    target = rectangle(0, 0, 5, 5) | rectangle(5, 5, 10, 10) | rectangle(30, 0, 37, 5)
    assert next_click(target) == Click((2, 2), POSITIVE)


def test_a_missing_part_wins_a_tie() -> None:
    click = next_click(rectangle(0, 0, 9, 9), rectangle(20, 0, 29, 9))
    assert click == Click((4, 4), POSITIVE)


def test_without_a_mistake_there_is_no_click() -> None:
    target = rectangle(10, 5, 21, 16)
    assert next_click(target, target) is None
    assert next_click(np.zeros_like(target)) is None


@pytest.mark.parametrize("seed", range(5))
def test_looking_at_the_region_alone_equals_looking_at_the_whole_image(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:40, :60]
    target = (rows - rng.uniform(0, 40)) ** 2 + (columns - rng.uniform(0, 60)) ** 2 < 15**2
    click = next_click(target)
    assert click is not None
    assert click.point == center_point(target)
