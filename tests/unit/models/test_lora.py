"""Low-rank adapters: where they go, what they start as, and that merging changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mobilesam_core.config.lora import LoraConfig
from mobilesam_core.config.model import EncoderOverrides, ModelConfig, ModelName
from mobilesam_core.errors import ConfigError
from mobilesam_core.models.lora import add_adapters, merged, split_state
from mobilesam_core.models.lora_linear import LoraLinear
from mobilesam_core.models.registry import build_sam
from mobilesam_core.models.sam import Sam
from mobilesam_core.models.shared_decoder import decode_shared
from mobilesam_core.prompts.tensors import prompt_tensors
from mobilesam_core.prompts.types import Prompt

SMALL = {
    "vit_nano": EncoderOverrides(),
    "vit_b": EncoderOverrides(embed_dims=[32], depths=[4], num_heads=[2]),
}


def build(name: ModelName = "vit_nano") -> Sam:
    torch.manual_seed(0)
    return build_sam(ModelConfig(name=name, checkpoint=None, image_size=64, encoder=SMALL[name])).eval()


def adapted(model: Sam) -> set[str]:
    return {name for name, module in model.named_modules() if isinstance(module, LoraLinear)}


def learning(model: Sam) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@torch.no_grad()
def answer(model: Sam) -> torch.Tensor:
    image = torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64)
    prompts = prompt_tensors([Prompt.from_points([[20, 40]]), Prompt.from_box([10, 10, 50, 30])])
    decoded = model.decode(model.encode(image), torch.zeros(2, dtype=torch.int64), prompts)
    return torch.cat([decoded.low_res_logits.flatten(), decoded.iou_predictions.flatten()])


@torch.no_grad()
def train_a_little(model: Sam) -> None:
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter += 0.1 * torch.randn_like(parameter)


@pytest.mark.parametrize("name", ["vit_nano", "vit_b"])
def test_adapters_start_as_nothing_and_merge_exactly(name: ModelName) -> None:
    model = build(name)
    before, plain_keys = answer(model), list(model.state_dict())
    add_adapters(model, LoraConfig(rank=4))
    assert torch.equal(answer(model), before), "B is zero, so nothing may change"
    train_a_little(model)
    unmerged, plain = answer(model), merged(model)
    assert (unmerged - before).abs().max() > 0.01
    torch.testing.assert_close(answer(plain), unmerged, rtol=1e-5, atol=1e-5)
    assert list(plain.state_dict()) == plain_keys and not adapted(plain)
    assert len(adapted(model)) > 20, "the model itself keeps its adapters"


def test_by_default_attention_and_mlps_of_encoder_and_decoder_learn_and_nothing_else() -> None:
    model = build()
    add_adapters(model, LoraConfig())
    names = adapted(model)
    assert {"image_encoder.stages.2.blocks.1.attn.qkv", "image_encoder.stages.1.blocks.0.mlp.fc2"} <= names
    assert {"mask_decoder.transformer.layers.0.mlp.lin1", "mask_decoder.transformer.layers.1.self_attn.q_proj"} <= names
    assert not [name for name in names if "hypernetworks" in name or "iou_prediction" in name]
    assert learning(model) == {f"{name}.{matrix}" for name in names for matrix in ("lora_a", "lora_b")}


def test_full_parts_learn_everything_and_frozen_ones_nothing() -> None:
    model = build()
    model.prompt_encoder.requires_grad_(False)
    add_adapters(model, LoraConfig(full=["mask_decoder"]))
    decoder = {f"mask_decoder.{name}" for name, _ in model.mask_decoder.named_parameters()}
    assert decoder <= learning(model) and not [name for name in adapted(model) if not name.startswith("image_encoder")]
    base, learnt = split_state(model, ["mask_decoder"])
    assert decoder <= learnt.keys() and base.keys() | learnt.keys() == model.state_dict().keys()
    assert {name for name in learnt if name not in decoder} == {n for n in learning(model) if n.endswith(("_a", "_b"))}
    frozen = build()
    frozen.image_encoder.requires_grad_(False)
    add_adapters(frozen, LoraConfig())
    assert adapted(frozen) and not [name for name in adapted(frozen) if name.startswith("image_encoder")]


def test_a_target_that_names_nothing_lists_what_there_is() -> None:
    model = build()
    with pytest.raises(ConfigError, match=r"'\*\.queries' names no linear layer of vit_nano") as caught:
        add_adapters(model, LoraConfig(targets=["*.qkv", "*.queries"]))
    assert "image_encoder.stages.*.blocks.*.attn.qkv, " in caught.value.remedy
    assert not adapted(model) and "mask_decoder.iou_token.weight" in learning(model)
    with pytest.raises(ConfigError, match="names no linear layer"):
        add_adapters(model, LoraConfig(targets=["image_encoder.patch_embed.*"]))  # convolutions


def test_no_layer_left_to_adapt_is_an_error() -> None:
    model = build()
    with pytest.raises(ConfigError, match="No layer is left"):
        add_adapters(model, LoraConfig(targets=["mask_decoder.*"], full=["mask_decoder"]))


def test_what_has_no_adapter_is_shared_by_the_merged_model() -> None:
    model = build()
    assert merged(model) is model
    add_adapters(model, LoraConfig(targets=["*.qkv"]))
    plain = merged(model)
    same = {p.data_ptr() for p in model.parameters()}
    copied = {name for name, p in plain.named_parameters() if p.data_ptr() not in same}
    assert copied == {f"{name}.weight" for name in adapted(model)}


def test_a_layer_without_bias_and_its_rate() -> None:
    layer = LoraLinear(nn.Linear(6, 5, bias=False), rank=2, alpha=8.0)
    nn.init.normal_(layer.lora_b)
    x = torch.randn(3, 6)
    expected = x @ layer.weight.T + 4 * (x @ layer.lora_a.T @ layer.lora_b.T)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer.merged()(x), expected)


def test_the_decoder_that_absorbs_projections_sees_its_adapters() -> None:
    """In training mode it reads matrices instead of calling layers."""
    torch.manual_seed(0)
    model = build_sam(ModelConfig(name="vit_nano", checkpoint=None, image_size=64))
    add_adapters(model, LoraConfig())
    for name, parameter in model.named_parameters():
        if name.endswith("lora_b"):
            parameter.data.normal_(std=0.1)
    prompts = prompt_tensors([Prompt.from_box([4.0, 4.0, 40.0, 40.0]), Prompt.from_box([1.0, 9.0, 30.0, 60.0])])
    embeddings, index = torch.randn(1, 128, 4, 4), torch.zeros(2, dtype=torch.int64)
    with torch.no_grad():
        expected = merged(model).eval().decode(embeddings, index, prompts)
    found = decode_shared(model.train(), embeddings, index, [2], prompts)
    torch.testing.assert_close(found.low_res_logits, expected.low_res_logits, atol=2e-5, rtol=1e-4)
    found.low_res_logits.sum().backward()
    without = [n for n, p in model.mask_decoder.named_parameters() if p.requires_grad and p.grad is None]
    assert not [name for name in without if "k_proj.lora" not in name]
    later = "transformer.layers.1.cross_attn_token_to_image.v_proj.lora_a"
    assert model.mask_decoder.get_parameter(later).grad is not None
