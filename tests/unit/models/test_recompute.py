"""Gradient checkpointing changes memory alone."""

from __future__ import annotations

import copy

import pytest
import torch

from mobilesam_core.config.model import EncoderOverrides, ModelConfig, ModelName
from mobilesam_core.models.encoder import ImageEncoder
from mobilesam_core.models.features import FeatureHookManager
from mobilesam_core.models.registry import build_sam


def pair(name: ModelName) -> tuple[ImageEncoder, ImageEncoder]:
    """The same encoder twice in training mode, once with its blocks recomputed."""
    small = EncoderOverrides(embed_dims=[32], depths=[4], num_heads=[2]) if name == "vit_b" else EncoderOverrides()
    torch.manual_seed(0)
    plain = build_sam(ModelConfig(name=name, checkpoint=None, image_size=64, encoder=small)).image_encoder.train()
    saving = copy.deepcopy(plain)
    saving.recompute_blocks()
    return plain, saving


@pytest.mark.parametrize("name", ["vit_nano", "vit_t", "vit_b"])
def test_gradients_and_statistics_are_the_same(name: ModelName) -> None:
    encoders = pair(name)
    image = torch.randn(2, 3, 64, 64)
    outputs = [encoder(image) for encoder in encoders]
    for output in outputs:
        (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    assert torch.equal(*outputs)
    plain, saving = (dict(encoder.named_parameters()) for encoder in encoders)
    assert plain.keys() == saving.keys()
    for key, parameter in plain.items():
        if parameter.requires_grad:
            assert parameter.grad is not None and torch.equal(parameter.grad, saving[key].grad), key
    states = [encoder.state_dict() for encoder in encoders]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    counters = [value.item() for key, value in states[1].items() if key.endswith("num_batches_tracked")]
    assert all(count == 1 for count in counters) and bool(counters) == (name != "vit_b")


@pytest.mark.parametrize("name", ["vit_nano", "vit_b"])
def test_less_is_kept_for_the_way_back(name: ModelName) -> None:
    kept = []
    for encoder in pair(name):
        sizes: list[int] = []
        weights = {p.untyped_storage().data_ptr() for p in encoder.parameters()}

        def count(tensor: torch.Tensor, sizes: list[int] = sizes, weights: set[int] = weights) -> torch.Tensor:
            if tensor.untyped_storage().data_ptr() not in weights:
                sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            encoder(torch.randn(1, 3, 64, 64))
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 2


def test_inner_levels_keep_their_gradients() -> None:
    gradients = []
    for encoder in pair("vit_nano"):
        with FeatureHookManager(encoder, ["stages.1"]) as features:
            encoder(torch.ones(1, 3, 64, 64))
            inner = features["stages.1"]
        inner.square().sum().backward()
        gradients.append(dict(encoder.named_parameters())["stages.1.blocks.0.attn.qkv.weight"].grad)
    assert torch.equal(*gradients)
