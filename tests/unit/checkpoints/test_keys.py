"""The key table, in both directions."""

from __future__ import annotations

import pytest
import torch

from mobilesam_core.checkpoints.keys import official_key, our_key
from mobilesam_core.config.model import ModelConfig
from mobilesam_core.models.registry import SPECS, build_sam


@pytest.mark.parametrize(
    ("official", "ours"),
    [
        ("image_encoder.patch_embed.seq.0.c.weight", "image_encoder.patch_embed.conv1.conv.weight"),
        ("image_encoder.patch_embed.seq.2.bn.running_var", "image_encoder.patch_embed.conv2.bn.running_var"),
        ("image_encoder.layers.0.blocks.1.conv3.c.weight", "image_encoder.stages.0.blocks.1.conv3.conv.weight"),
        ("image_encoder.layers.0.downsample.conv2.c.weight", "image_encoder.stages.1.downsample.conv2.conv.weight"),
        ("image_encoder.layers.2.blocks.5.mlp.fc1.bias", "image_encoder.stages.2.blocks.5.mlp.fc1.bias"),
        ("image_encoder.layers.3.blocks.0.local_conv.bn.bias", "image_encoder.stages.3.blocks.0.local_conv.bn.bias"),
        ("image_encoder.norm_head.weight", "image_encoder.norm_head.weight"),
        ("image_encoder.blocks.11.mlp.lin1.weight", "image_encoder.blocks.11.mlp.fc1.weight"),
        ("image_encoder.blocks.0.mlp.lin2.bias", "image_encoder.blocks.0.mlp.fc2.bias"),
        ("image_encoder.patch_embed.proj.weight", "image_encoder.patch_embed.proj.weight"),
        ("mask_decoder.transformer.layers.0.mlp.lin1.weight", "mask_decoder.transformer.layers.0.mlp.lin1.weight"),
    ],
)  # fmt: skip
def test_pairs(official: str, ours: str) -> None:
    assert our_key(official) == ours
    assert official_key(ours) == official


@pytest.mark.parametrize("name", list(SPECS))
def test_bijective_on_every_model(name: str) -> None:
    with torch.device("meta"):
        ours = list(build_sam(ModelConfig.model_validate({"name": name})).state_dict())
    official = [official_key(key) for key in ours]
    assert len(set(official)) == len(ours)
    assert [our_key(key) for key in official] == ours
