"""Adapters in files of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mobilesam_core.checkpoints.adapter import apply_adapter, save_adapter
from mobilesam_core.checkpoints.loading import load_model, open_checkpoint
from mobilesam_core.checkpoints.weights import save_weights
from mobilesam_core.config.lora import LoraConfig
from mobilesam_core.config.model import EncoderOverrides, ModelConfig
from mobilesam_core.errors import CheckpointError
from mobilesam_core.models.lora import add_adapters, merged
from mobilesam_core.models.registry import build_sam
from mobilesam_core.models.sam import Sam

VIT = EncoderOverrides(embed_dims=[32], depths=[4], num_heads=[2])  # official names differ inside its blocks


def build(seed: int = 0) -> Sam:
    torch.manual_seed(seed)
    return build_sam(ModelConfig(name="vit_b", checkpoint=None, image_size=64, encoder=VIT)).eval()


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Sam, Path]:
    """A model with adapters that have learnt, and their file; the weights they started from are beside it."""
    lora, model = LoraConfig(rank=2, full=["prompt_encoder"]), build()
    save_weights(model, tmp_path / "base.safetensors", {})
    add_adapters(model, lora)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    save_adapter(model, lora, tmp_path / "best.lora.safetensors", {"step": "7"})
    return model, tmp_path / "best.lora.safetensors"


def test_base_and_adapter_make_the_merged_model(trained: tuple[Sam, Path]) -> None:
    model, path = trained
    config = ModelConfig(name="vit_b", image_size=64, encoder=VIT, checkpoint=str(path.parent / "base.safetensors"))
    loaded = load_model(config.model_copy(update={"adapter": str(path)})).state_dict()
    expected = merged(model).state_dict()
    assert loaded.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(loaded[name], value, rtol=0, atol=1e-6)
    key = "image_encoder.blocks.0.mlp.fc1.weight"
    assert not torch.equal(loaded[key], load_model(config).state_dict()[key])


def test_the_file_is_small_and_says_what_it_is(trained: tuple[Sam, Path]) -> None:
    _, path = trained
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert LoraConfig.model_validate_json(metadata["lora"]).rank == 2 and len(metadata["base_sha256"]) == 64
    assert metadata["step"] == "7" and "vit_b" in metadata["model"]
    assert "image_encoder.blocks.0.mlp.lin1.lora_a" in load_file(path)
    assert path.stat().st_size < (path.parent / "base.safetensors").stat().st_size / 5


def test_other_weights_are_refused_and_stay_as_they_are(trained: tuple[Sam, Path]) -> None:
    other = build(seed=1)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"was trained on other weights \(sha256 [0-9a-f]{12}…\)"):
        apply_adapter(other, trained[1])
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_weights_and_adapters_are_not_mistaken_for_each_other(trained: tuple[Sam, Path]) -> None:
    with pytest.raises(CheckpointError, match=r"base\.safetensors is no adapter"):
        apply_adapter(build(), trained[1].parent / "base.safetensors")
    with pytest.raises(CheckpointError, match=r"is an adapter, which needs.*\(best\.safetensors\)"):
        open_checkpoint(trained[1])
    with pytest.raises(CheckpointError, match=r"is an adapter, which needs"):
        load_model(ModelConfig(name="vit_b", image_size=64, encoder=VIT, checkpoint=str(trained[1])))


def test_half_an_adapter_is_refused(trained: tuple[Sam, Path]) -> None:
    _, path = trained
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    state = load_file(path)
    del state["image_encoder.blocks.0.attn.qkv.lora_b"]
    save_file(state, path, metadata)
    with pytest.raises(CheckpointError, match="is damaged"):
        apply_adapter(build(), path)
