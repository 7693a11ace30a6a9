from __future__ import annotations

import pytest
import torch

from mobilesam_core.config.model import ModelConfig
from mobilesam_core.errors import UsageError
from mobilesam_core.models.encoder import ImageEncoder
from mobilesam_core.models.features import FeatureHookManager, encoder_levels, level_shapes
from mobilesam_core.models.registry import build_sam


def _encoder(name: str = "vit_nano", **encoder: object) -> ImageEncoder:
    torch.manual_seed(0)
    config = ModelConfig.model_validate({"name": name, "checkpoint": None, "image_size": 128, "encoder": encoder})
    return build_sam(config).eval().image_encoder


THIN_VIT = {"embed_dims": [32], "depths": [4], "num_heads": [2]}


@pytest.mark.parametrize(
    ("name", "overrides", "inner", "layout"),
    [("vit_nano", {}, "stages", "CHW"), ("vit_b", THIN_VIT, "blocks", "HWC")],
)
def test_features_are_those_of_the_encoder_itself(name: str, overrides: dict, inner: str, layout: str) -> None:
    encoder = _encoder(name, **overrides, out_indices=[1, 2])
    images = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    levels = [f"{inner}.1", f"{inner}.2", "neck"]
    with FeatureHookManager(encoder, levels) as features:
        neck, expected = encoder.forward_intermediates(images)
        found = [features[level] for level in levels]
        assert features.layouts == {levels[0]: layout, levels[1]: layout, "neck": "CHW"}
    assert found[2] is neck
    for ours, theirs in zip(found[:2], expected, strict=True):
        assert torch.equal(ours if layout == "CHW" else ours.permute(0, 3, 1, 2), theirs)
    shapes = level_shapes(encoder, levels, 128)
    assert shapes == {level: tuple(value.shape[1:]) for level, value in zip(levels, [*expected, neck], strict=True)}
    assert list(encoder_levels(encoder))[-1] == "neck" and len(encoder_levels(encoder)) == 5


def test_hooks_are_gone_afterwards_and_gradients_stay() -> None:
    encoder = _encoder()
    hooks = lambda: sum(len(module._forward_hooks) for module in encoder.modules())  # noqa: E731
    with FeatureHookManager(encoder, ["stages.2"]) as features:
        assert hooks() == 1
        encoder(torch.randn(1, 3, 64, 64))
        features["stages.2"].square().mean().backward()
    gradient = next(encoder.patch_embed.parameters()).grad
    assert hooks() == 0 and gradient is not None and gradient.abs().sum() > 0
    with pytest.raises(RuntimeError, match="on purpose"), FeatureHookManager(encoder, ["neck"]):
        raise RuntimeError("on purpose")
    assert hooks() == 0


def test_a_level_that_does_not_exist() -> None:
    with pytest.raises(UsageError, match=r"no level blocks\.8.*stages\.0, stages\.1, stages\.2, stages\.3, neck"):
        FeatureHookManager(_encoder(), ["neck", "blocks.8"])
