from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from mobilesam_core.config.model import ModelConfig
from mobilesam_core.errors import UsageError
from mobilesam_core.losses.distillation import (
    FeatureDistillationLoss,
    FeatureLossKind,
    feature_distance,
    mask_focal_dice,
    mask_kl,
    token_kl,
)
from mobilesam_core.models.features import FeatureHookManager, level_shapes
from mobilesam_core.models.registry import build_sam
from mobilesam_core.models.sam import Sam, batch_prompts

Loss = Callable[[Tensor, Tensor], Tensor]
KINDS: tuple[FeatureLossKind, ...] = ("mse", "l1", "smooth_l1", "cosine")


def _random(*shape: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _numpy_feature(a: np.ndarray, b: np.ndarray, kind: FeatureLossKind) -> float:
    d = np.abs(a - b)
    if kind == "mse":
        return float((d**2).mean())
    if kind == "l1":
        return float(d.mean())
    if kind == "smooth_l1":
        return float(np.where(d < 1, d**2 / 2, d - 0.5).mean())
    return float(1 - ((a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))).mean())


def _numpy_mask_kl(s: np.ndarray, t: np.ndarray, temperature: float) -> np.ndarray:
    p, q = _sigmoid(t / temperature), _sigmoid(s / temperature)
    return temperature**2 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean((-2, -1))


def _numpy_focal_dice(s: np.ndarray, t: np.ndarray) -> np.ndarray:
    p, q = _sigmoid(t), _sigmoid(s)
    focal = 0.5 * np.abs(p - q) ** 2 * -(p * np.log(q) + (1 - p) * np.log(1 - q))
    dice = 1 - (2 * (p * q).sum((-2, -1)) + 1) / ((p**2 + q**2).sum((-2, -1)) + 1)
    return 20 * focal.mean((-2, -1)) + dice


def _numpy_token_kl(s: np.ndarray, t: np.ndarray, temperature: float) -> float:
    p, q = (np.exp(x / temperature) / np.exp(x / temperature).sum(-1, keepdims=True) for x in (t, s))
    return float(temperature**2 * (p * np.log(p / q)).sum(-1).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_features_against_numpy(kind: FeatureLossKind) -> None:
    ours, theirs = _random(2, 5, 3, 4), _random(2, 5, 3, 4, seed=1)
    expected = _numpy_feature(ours.double().numpy(), theirs.double().numpy(), kind)
    assert FeatureDistillationLoss((5, 3, 4), (5, 3, 4), kind)(ours, theirs).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_masks_and_tokens_against_numpy(temperature: float) -> None:
    ours, theirs = _random(3, 2, 6, 7), _random(3, 2, 6, 7, seed=1)
    a, b = ours.double().numpy(), theirs.double().numpy()
    assert np.allclose(mask_kl(ours, theirs, temperature).numpy(), _numpy_mask_kl(a, b, temperature), rtol=1e-4)
    assert np.allclose(mask_focal_dice(ours, theirs).numpy(), _numpy_focal_dice(a, b), rtol=1e-4)
    tokens = token_kl(ours[:, 0], theirs[:, 0], temperature).item()
    assert tokens == pytest.approx(_numpy_token_kl(a[:, 0], b[:, 0], temperature), rel=1e-4)


@pytest.mark.parametrize(
    "loss",
    [*(FeatureDistillationLoss((2, 6, 7), (2, 6, 7), kind) for kind in KINDS), mask_kl, mask_focal_dice, token_kl],
)
def test_zero_where_student_and_teacher_agree(loss: Loss) -> None:
    both = _random(3, 2, 6, 7)
    assert loss(both, both.clone()).abs().max() <= 1e-6
    assert (loss(both, _random(3, 2, 6, 7, seed=1)) > 1e-3).all()


def test_layouts_channels_and_grids() -> None:
    ours, theirs = _random(2, 6, 8, 8), _random(2, 4, 4, 5, seed=1)  # CHW of 6 channels, HWC of 5
    with pytest.raises(UsageError, match=r"6 x 8 x 8 .*, the teacher's 5 x 4 x 4"):
        FeatureDistillationLoss((6, 8, 8), (5, 4, 4))
    loss = FeatureDistillationLoss((6, 8, 8), (5, 4, 4), resize=True, teacher_layout="HWC")
    projected = torch.nn.functional.interpolate(loss.projection(ours), (4, 4), mode="bilinear", align_corners=False)
    assert loss(ours, theirs) == feature_distance(projected, theirs.permute(0, 3, 1, 2), "mse", dim=1)
    loss(ours, theirs).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in loss.parameters())
    assert not list(FeatureDistillationLoss((5, 4, 4), (5, 4, 4)).parameters())


def _model(seed: int) -> Sam:
    torch.manual_seed(seed)
    return build_sam(ModelConfig(name="vit_nano", checkpoint=None, image_size=64))


@pytest.mark.parametrize("name", [*KINDS, "inner", "mask_kl", "mask_focal_dice", "token_kl"])
def test_the_gradient_reaches_the_students_encoder_and_no_teacher(name: str) -> None:
    student, teacher = _model(0), _model(1)
    images = _random(2, 3, 64, 64, scale=1.0)
    prompts = batch_prompts(torch.tensor([[[20.0, 30.0]]] * 2), torch.ones(2, 1), None, None, torch.device("cpu"))
    tokens: dict[Sam, Tensor] = {}
    decoded = {}
    features = {}
    for model in (student, teacher):
        model.mask_decoder.transformer.register_forward_hook(
            lambda _, __, output, model=model: tokens.__setitem__(model, output[0])
        )
        with FeatureHookManager(model.image_encoder, ["stages.2", "neck"]) as found:
            embeddings = model.encode(images)
            features[model] = found["stages.2"], found["neck"]
        decoded[model] = model.decode(embeddings, torch.arange(2), prompts).low_res_logits
    if name in KINDS:
        shape = level_shapes(student.image_encoder, ["neck"], 64)["neck"]
        loss = FeatureDistillationLoss(shape, shape, name)(features[student][1], features[teacher][1])  # type: ignore[arg-type]
    elif name == "inner":
        shape = level_shapes(student.image_encoder, ["stages.2"], 64)["stages.2"]
        loss = FeatureDistillationLoss(shape, shape)(features[student][0], features[teacher][0])
    elif name == "token_kl":
        loss = token_kl(tokens[student], tokens[teacher])
    else:
        kind = {"mask_kl": mask_kl, "mask_focal_dice": mask_focal_dice}[name]
        loss = kind(decoded[student], decoded[teacher]).mean()
    loss.backward()
    gradient = next(student.image_encoder.patch_embed.parameters()).grad
    assert gradient is not None and gradient.isfinite().all() and gradient.abs().sum() > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())
