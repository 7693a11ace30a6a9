from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilesam_core.errors import OutputError
from mobilesam_core.ops.drawing import (
    BLUE,
    GREEN,
    RED,
    Closeup,
    distinct_color,
    draw_box,
    draw_comparison,
    draw_points,
    fill_mask,
    new_canvas,
    outline_mask,
    write_png,
)


@pytest.fixture
def mask() -> np.ndarray:
    mask = np.zeros((40, 60), bool)
    mask[10:30, 20:50] = True
    return mask


def test_a_canvas_is_an_rgb_copy() -> None:
    grey = np.full((4, 5), 7, np.uint8)
    canvas = new_canvas(grey)
    canvas[:] = 0
    assert canvas.shape == (4, 5, 3)
    assert (grey == 7).all()


def test_filling_tints_the_mask_alone(mask: np.ndarray) -> None:
    canvas = np.full((40, 60, 3), 100, np.uint8)
    fill_mask(canvas, mask, (200, 0, 100), opacity=0.5)
    assert (canvas[mask] == [150, 50, 100]).all()
    assert (canvas[~mask] == 100).all()


def test_an_outline_is_the_edge_of_the_mask_and_of_its_hole(mask: np.ndarray) -> None:
    mask[15:25, 30:40] = False
    canvas = np.zeros((40, 60, 3), np.uint8)
    outline_mask(canvas, mask, GREEN)
    drawn = (canvas == GREEN).all(axis=2)
    assert drawn[10, 20] and drawn[29, 49] and drawn[14, 35] and drawn[20, 29]
    assert not drawn[12, 22] and not drawn[20, 35]


def test_boxes_end_inside_their_exclusive_edge() -> None:
    canvas = np.zeros((20, 20, 3), np.uint8)
    draw_box(canvas, np.array([5, 6, 15, 12]), RED)
    drawn = np.argwhere(canvas.any(axis=2))
    assert drawn.min(axis=0).tolist() == [6, 5]
    assert drawn.max(axis=0).tolist() == [11, 14]


def test_points_are_green_or_red() -> None:
    canvas = np.zeros((40, 40, 3), np.uint8)
    draw_points(canvas, np.array([[10.0, 10], [30, 30]]), np.array([1, 0]))
    assert tuple(canvas[10, 10]) == GREEN
    assert tuple(canvas[30, 30]) == RED


def test_colours_of_neighbours_differ() -> None:
    colours = [distinct_color(i) for i in range(30)]
    assert len(set(colours)) == 30
    assert all(sum(abs(a - b) for a, b in zip(*pair, strict=True)) > 100 for pair in pairwise(colours))


def test_a_comparison_shows_truth_prediction_and_prompts(mask: np.ndarray) -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    predicted = np.roll(mask, 5, axis=1)
    picture = draw_comparison(image, [mask], [predicted], np.array([[35.0, 20]]), np.array([1]))
    assert tuple(picture[10, 22]) == GREEN
    assert tuple(picture[20, 35]) == GREEN
    assert picture[12, 53, 2] == round(BLUE[2] * 0.45)
    assert not picture[35, 5].any()


def test_a_closeup_shows_the_region_with_its_surroundings(mask: np.ndarray) -> None:
    view = Closeup.around(mask, margin=0.2, side=420)
    assert view.window == (14, 4, 56, 36)
    assert view.size == (420, 320)
    assert view.image(np.zeros((40, 60), np.uint8)).shape == (320, 420, 3)
    assert view.mask(mask).sum() == mask.sum() * 100
    assert view.points(np.array([[14.0, 4.0]])).tolist() == [[5.0, 5.0]]
    assert view.box(np.array([20.0, 10, 50, 30])).tolist() == [60, 60, 360, 260]


def test_a_closeup_of_nothing_is_the_whole_image() -> None:
    assert Closeup.around(np.zeros((40, 60), bool)).window == (0, 0, 60, 40)


def test_masks_are_written_as_0_and_255(tmp_path: Path, mask: np.ndarray) -> None:
    write_png(tmp_path / "new" / "mask.png", mask)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mask.png"]
    with Image.open(tmp_path / "new" / "mask.png") as written:
        assert written.mode == "L"
        assert np.array_equal(np.asarray(written), mask * np.uint8(255))


def test_a_picture_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path, mask: np.ndarray) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        write_png(tmp_path / "file" / "mask.png", mask)
