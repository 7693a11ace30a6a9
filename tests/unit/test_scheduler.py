from __future__ import annotations

import pytest
import torch

from mobilesam_core.scheduler import PolynomialLR, polynomial_factor


@pytest.mark.parametrize("power", [1.0, 0.9, 2.0])
def test_decay_follows_the_formula_and_ends_exactly(power: float) -> None:
    total, end = 101, 0.1
    for step in range(total):
        expected = (1 - end) * (1 - step / 100) ** power + end
        assert polynomial_factor(step, total, 0, power, end) == pytest.approx(expected)
    assert polynomial_factor(total - 1, total, 0, power, end) == end
    assert polynomial_factor(total + 50, total, 0, power, end) == end


def test_warm_up_rises_to_the_peak_and_the_last_step_still_reaches_the_end() -> None:
    factors = [polynomial_factor(step, 60, 10, end_factor=0.01) for step in range(60)]
    assert factors[0] > 0
    assert factors[:11] == sorted(factors[:11])
    assert factors[10] == 1.0 and max(factors) == 1.0
    assert factors[-1] == 0.01


def test_each_group_keeps_its_share() -> None:
    a, b = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [a], "lr": 1.0}, {"params": [b], "lr": 0.1}])
    scheduler = PolynomialLR(optimizer, total_steps=11, end_factor=0.5)
    seen = []
    for _ in range(11):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    assert seen[0] == [1.0, 0.1]
    assert seen[-1] == pytest.approx([0.5, 0.05])
    assert seen[5] == pytest.approx([0.75, 0.075])
