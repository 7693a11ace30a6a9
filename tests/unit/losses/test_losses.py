"""Each loss against a plain reference, at the edges, and where its gradient goes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mobilesam_core.config.loss import LossConfig
from mobilesam_core.losses.iou import iou_loss
from mobilesam_core.losses.mask import bce_loss, dice_loss, focal_loss
from mobilesam_core.losses.total import SegLoss


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def plain(kind: str, logits: list[float], targets: list[float], alpha: float = 0.3, gamma: float = 1.5) -> float:
    """The textbook formulas, pixel by pixel, for hard targets."""
    if kind == "dice":
        p = [sigmoid(x) for x in logits]
        return 1 - (2 * sum(a * b for a, b in zip(p, targets, strict=True)) + 1) / (sum(p) + sum(targets) + 1)
    terms = []
    for x, t in zip(logits, targets, strict=True):
        p = sigmoid(x) if t else 1 - sigmoid(x)
        weight = (alpha if t else 1 - alpha) * (1 - p) ** gamma if kind == "focal" else 1.0
        terms.append(-weight * math.log(p))
    return sum(terms) / len(terms)


LOSSES = {"bce": bce_loss, "dice": dice_loss, "focal": lambda x, t: focal_loss(x, t, 0.3, 1.5)}


@pytest.mark.parametrize("kind", LOSSES)
def test_mask_losses_match_the_formulas(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 2, 4, 5, generator=generator) * 3
    targets = (torch.rand(3, 2, 4, 5, generator=generator) > 0.5).float()
    result = LOSSES[kind](logits, targets)
    assert result.shape == (3, 2)
    for i in range(3):
        for j in range(2):
            expected = plain(kind, logits[i, j].flatten().tolist(), targets[i, j].flatten().tolist())
            assert result[i, j].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_empty_and_full_masks_are_no_trouble(kind: str, fill: float) -> None:
    targets = torch.full((1, 8, 8), fill)
    right = torch.full((1, 8, 8), 40.0 if fill else -40.0)
    assert LOSSES[kind](right, targets).item() == pytest.approx(0, abs=1e-6)
    wrong = (-right).requires_grad_()
    loss = LOSSES[kind](wrong, targets)
    loss.backward()
    assert torch.isfinite(loss).all() and torch.isfinite(wrong.grad).all() and loss.item() > 0.2


def test_soft_targets_are_best_met_by_their_own_probability() -> None:
    targets = torch.full((1, 4, 4), 0.25)
    logits = torch.linspace(-4, 4, 81)
    values = torch.stack([bce_loss(x.expand(1, 4, 4), targets) for x in logits]).flatten()
    assert sigmoid(logits[values.argmin()].item()) == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize(("kind", "expected"), [("mse", 0.04), ("smooth_l1", 0.02), ("l1", 0.2)])
def test_iou_loss_uses_the_raw_prediction(kind: str, expected: float) -> None:
    assert iou_loss(torch.tensor(1.2), torch.tensor(1.0), kind).item() == pytest.approx(expected)  # type: ignore[arg-type]


def outputs(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, 4, 16, 16, generator=generator).requires_grad_()
    scores = torch.rand(5, 4, generator=generator).requires_grad_()
    targets = (torch.rand(5, 16, 16, generator=generator) > 0.6).float()
    return logits, scores, targets


def test_only_the_single_mask_and_the_best_of_three_learn() -> None:
    logits, scores, targets = outputs()
    with torch.no_grad():
        logits[:, 2] = torch.where(targets > 0, 3.0, -3.0)
    SegLoss(LossConfig(iou=0))(logits, scores, targets).total.backward()
    moved = logits.grad.abs().amax(dim=(2, 3)) > 0
    assert moved.tolist() == [[True, False, True, False]] * 5


def test_without_multimask_only_output_0_learns() -> None:
    logits, scores, targets = outputs()
    SegLoss(LossConfig(multimask=False))(logits, scores, targets).total.backward()
    assert (logits.grad[:, 0] != 0).any() and (logits.grad[:, 1:] == 0).all()
    assert (scores.grad[:, 0] != 0).all() and (scores.grad[:, 1:] == 0).all()


def test_the_iou_head_learns_from_all_outputs_and_masks_learn_nothing_from_it() -> None:
    logits, scores, targets = outputs()
    config = LossConfig(focal=0, bce=0, dice=1e-12, iou=1)
    SegLoss(config)(logits, scores, targets).total.backward()
    assert (scores.grad != 0).all()
    assert logits.grad.abs().max() < 1e-9


def test_total_is_the_weighted_sum_of_its_parts() -> None:
    logits, scores, targets = outputs()
    config = LossConfig(focal=7, bce=3, dice=2, iou=0.5)
    values = SegLoss(config)(logits, scores, targets)
    expected = 7 * values.focal + 3 * values.bce + 2 * values.dice + 0.5 * values.iou_head
    assert values.total.item() == pytest.approx(expected.item(), rel=1e-5)


def test_targets_of_another_size_are_compared_at_their_size() -> None:
    _, scores, _ = outputs()
    fine = torch.zeros(5, 64, 64)
    fine[:, :32] = 1
    coarse_logits = torch.where(torch.arange(16)[:, None] < 8, 8.0, -8.0).expand(5, 4, 16, 16)
    values = SegLoss(LossConfig())(coarse_logits, scores, fine)
    assert values.iou.item() == pytest.approx(1.0, abs=0.02)


def test_half_precision_logits_are_summed_in_float32() -> None:
    logits, scores, targets = outputs()
    full = SegLoss(LossConfig())(logits, scores, targets)
    half = SegLoss(LossConfig())(logits.bfloat16(), scores.bfloat16(), targets)
    assert half.total.dtype == torch.float32
    assert half.total.item() == pytest.approx(full.total.item(), rel=0.02)
