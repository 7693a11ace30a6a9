from __future__ import annotations

import numpy as np
import pytest

from mobilesam_core.config.prompts import PromptConfig
from mobilesam_core.prompts.sampling import center_point, jitter_box, sample_prompt, uniform_points


def disc(height: int, width: int, x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.hypot(columns - x, rows - y) <= radius


def test_points_lie_in_the_mask_and_spread_evenly() -> None:
    mask = disc(60, 80, 50, 30, 20)
    rng = np.random.default_rng(0)
    points = np.concatenate([uniform_points(mask, 4, rng) for _ in range(500)])
    assert mask[points[:, 1].astype(int), points[:, 0].astype(int)].all()
    # Half the radius holds a quarter of a disc's area.
    inner = np.hypot(points[:, 0] - 50, points[:, 1] - 30) <= 10
    assert inner.mean() == pytest.approx(0.25, abs=0.04)


def test_points_are_distinct_while_they_can_be() -> None:
    mask = np.zeros((5, 5), bool)
    mask[1:3, 2:4] = True
    rng = np.random.default_rng(0)
    assert len(np.unique(uniform_points(mask, 4, rng), axis=0)) == 4
    assert uniform_points(mask, 9, rng).shape == (9, 2)


def test_center_is_the_thickest_place() -> None:
    assert center_point(disc(60, 80, 50, 30, 12)) == (50, 30)
    ring = disc(60, 60, 30, 30, 20) & ~disc(60, 60, 30, 30, 10)
    x, y = center_point(ring)
    assert ring[y, x] and 13 <= np.hypot(x - 30, y - 30) <= 17


def test_the_image_border_counts_as_edge() -> None:
    assert center_point(np.ones((9, 9), bool)) == (4, 4)
    half = np.zeros((21, 21), bool)
    half[:, :11] = True
    assert center_point(half)[0] == 5


def test_jitter_follows_the_noise_and_its_limit() -> None:
    rng = np.random.default_rng(0)
    box = np.array([200, 300, 300, 500], np.float32)
    moved = np.stack([jitter_box(box, (1000, 1000), 0.1, 1e9, rng) for _ in range(3000)]) - box
    assert moved.std(axis=0) == pytest.approx([10, 20, 10, 20], rel=0.1)
    limited = np.stack([jitter_box(box, (1000, 1000), 0.1, 12, rng) for _ in range(500)]) - box
    assert np.abs(limited).max() == 12
    assert np.array_equal(jitter_box(box, (1000, 1000), 0, 20, rng), box)


@pytest.mark.parametrize("box", [[0, 0, 1, 1], [31, 19, 32, 20], [10, 5, 11, 20], [0, 0, 32, 20], [5, 5, 6, 6]])
def test_boxes_stay_inside_and_keep_a_pixel(box: list[int]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        x1, y1, x2, y2 = jitter_box(np.array(box, np.float32), (20, 32), 0.5, 100, rng)
        assert 0 <= x1 <= x2 - 1 + 1e-4 and x2 <= 32
        assert 0 <= y1 <= y2 - 1 + 1e-4 and y2 <= 20


def test_the_mix_follows_its_weights() -> None:
    mask = disc(40, 40, 20, 20, 8)
    rng = np.random.default_rng(0)
    config = PromptConfig(box=3, point=1, min_points=2, max_points=4)
    prompts = [sample_prompt(mask, config, rng) for _ in range(800)]
    boxes = [prompt for prompt in prompts if prompt.box is not None]
    points = [prompt for prompt in prompts if prompt.box is None]
    assert len(boxes) / 800 == pytest.approx(0.75, abs=0.05)
    assert all(len(prompt.points) == 0 for prompt in boxes)
    assert {len(prompt.points) for prompt in points} == {2, 3, 4}
    assert all((prompt.labels == 1).all() for prompt in points)


def test_point_modes() -> None:
    mask = disc(40, 40, 20, 20, 8)
    rng = np.random.default_rng(0)
    center = PromptConfig(box=0, point=1, point_mode="center", min_points=3, max_points=3)
    for _ in range(5):
        points = sample_prompt(mask, center, rng).points
        assert points[0].tolist() == [20, 20] and len(points) == 3
    mixed = PromptConfig(box=0, point=1, point_mode="mixed")
    at_center = [sample_prompt(mask, mixed, rng).points[0].tolist() == [20, 20] for _ in range(400)]
    assert np.mean(at_center) == pytest.approx(0.5, abs=0.08)


def test_a_generator_s_state_decides() -> None:
    mask = disc(40, 40, 20, 20, 8)

    def draw(seed: int) -> list[list[float]]:
        rng = np.random.default_rng(seed)
        prompts = [sample_prompt(mask, PromptConfig(), rng) for _ in range(10)]
        return [(p.points if p.box is None else p.box).ravel().tolist() for p in prompts]

    assert draw(1) == draw(1) != draw(2)
