from __future__ import annotations

import numpy as np
import pytest

from mobilesam_core.evaluation.calibration import BIAS_LIMIT, bias_warning, calibrate


def test_figures_are_those_of_a_calculation_by_hand() -> None:
    # Bins 0.2 to 0.3 (two objects), 0.5 to 0.6 (one, on the edge) and 0.9 to 1.0 (one).
    found = calibrate([0.21, 0.29, 0.5, 0.95], [0.2, 0.5, 0.9, 0.75])
    assert found.objects == 4
    assert found.bias == pytest.approx((0.21 + 0.29 + 0.5 + 0.95 - 0.2 - 0.5 - 0.9 - 0.75) / 4)
    assert found.ece == pytest.approx((2 * abs(0.25 - 0.35) + abs(0.5 - 0.9) + abs(0.95 - 0.75)) / 4)
    filled = {each.low: each for each in found.bins if each.objects}
    assert filled.keys() == {0.2, 0.5, 0.9}
    assert (filled[0.2].objects, filled[0.2].predicted, filled[0.2].iou) == (
        2,
        pytest.approx(0.25),
        pytest.approx(0.35),
    )
    empty = [each for each in found.bins if not each.objects]
    assert len(empty) == 7 and all(each.predicted is None and each.iou is None for each in empty)
    assert [(each.low, each.high) for each in found.bins] == [(n / 10, (n + 1) / 10) for n in range(10)]


def test_it_agrees_with_plain_numpy_on_many_objects() -> None:
    rng = np.random.default_rng(0)
    predicted, ious = rng.random(500), rng.random(500)
    found = calibrate(predicted, ious)
    ece = 0.0
    for low in np.arange(10) / 10:
        members = (predicted >= low) & (predicted < low + 0.1)
        ece += members.mean() * abs(predicted[members].mean() - ious[members].mean())
    assert found.ece == pytest.approx(ece)
    assert sum(each.objects for each in found.bins) == 500


def test_perfect_scores_have_no_error_and_scores_beyond_the_range_count_as_they_are() -> None:
    perfect = calibrate([0.1, 0.6, 1.0], [0.1, 0.6, 1.0])
    assert perfect.ece == perfect.bias == 0
    beyond = calibrate([-0.2, 1.3], [0.0, 1.0])
    assert (beyond.bins[0].predicted, beyond.bins[9].predicted) == (-0.2, 1.3)
    assert beyond.ece == pytest.approx(0.25) and beyond.bias == pytest.approx(0.05)


def test_a_bias_beyond_the_limit_is_warned_of_once() -> None:
    assert bias_warning({"box": BIAS_LIMIT, "one point": -BIAS_LIMIT}) is None
    assert bias_warning({}) is None
    said = bias_warning({"box": 0.21, "one point": -0.3, "clicks": 0.05})
    assert said is not None and "0.21 too high (box), 0.30 too low (one point)" in said and "clicks" not in said
