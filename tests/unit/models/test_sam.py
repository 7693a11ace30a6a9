"""The model as a whole: shapes, sizes, batches, and the state it must not keep."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mobilesam_core.config.model import EncoderOverrides, ModelConfig
from mobilesam_core.errors import ConfigError, PromptError
from mobilesam_core.models.registry import build_sam
from mobilesam_core.models.sam import Sam, batch_prompts, join_prompts, pixel_statistics
from mobilesam_core.models.tiny_vit_blocks import WindowAttention
from mobilesam_core.prompts.tensors import prompt_tensors
from mobilesam_core.prompts.types import Prompt


def build(seed: int = 0, **config: Any) -> Sam:
    """A nano model whose attention is strong and whose statistics are not the neutral ones it starts from."""
    torch.manual_seed(seed)
    model = build_sam(ModelConfig(**{"name": "vit_nano", "checkpoint": None, "image_size": 256, **config})).eval()
    for name, parameter in model.named_parameters():
        if "attention_biases" in name or name.endswith("conv3.bn.weight"):
            nn.init.normal_(parameter)
        elif ".attn." in name and parameter.ndim == 2:
            nn.init.normal_(parameter, std=2 * parameter.shape[1] ** -0.5)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1)
    return model


def images(model: Sam, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    channels, size = len(model.pixel_mean), model.image_size
    return torch.randint(0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8)


PROMPTS = [
    Prompt.from_points([[30, 40]]),
    Prompt.from_box([10, 20, 120, 90]),
    Prompt.from_points([[5, 5], [60, 70], [100, 20]], [1, 0, 1]),
]


def test_nano_is_small() -> None:
    assert sum(parameter.numel() for parameter in build().parameters()) < 1_500_000


@pytest.mark.parametrize("size", [64, 192, 256, 320])
def test_any_multiple_of_64(size: int) -> None:
    model = build(image_size=size)
    embeddings = model.encode(model.preprocess(images(model)))
    assert embeddings.shape == (2, 128, size // 16, size // 16)
    output = model.decode(embeddings, torch.tensor([0, 1, 1]), prompt_tensors(PROMPTS))
    assert output.low_res_logits.shape == (3, 4, size // 4, size // 4)
    assert output.iou_predictions.shape == (3, 4)


@pytest.mark.parametrize("size", [64, 192])
def test_vit_at_other_sizes(size: int) -> None:
    thin = EncoderOverrides(embed_dims=[32], depths=[4], num_heads=[2], out_indices=[0, 3])
    model = build(name="vit_b", image_size=size, encoder=thin)
    assert model.image_encoder.pos_embed.shape == (1, 64, 64, 32)
    embedding, features = model.image_encoder.forward_intermediates(model.preprocess(images(model)))
    assert embedding.shape == (2, 256, size // 16, size // 16)
    assert [tuple(f.shape) for f in features] == [(2, 32, size // 16, size // 16)] * 2


def test_encoder_takes_oblong_images() -> None:
    model = build()
    assert model.image_encoder(torch.randn(1, 3, 128, 320)).shape == (1, 128, 8, 20)


def test_intermediate_features() -> None:
    model = build(encoder=EncoderOverrides(out_indices=[3, 0]))
    x = model.preprocess(images(model))
    embedding, features = model.image_encoder.forward_intermediates(x)
    assert [tuple(f.shape) for f in features] == [(2, 128, 16, 16), (2, 32, 64, 64)]
    torch.testing.assert_close(embedding, model.image_encoder(x))


def test_config_is_filled_in() -> None:
    config = build(iou_head_depth=4, image_size=None).config
    assert (config.image_size, config.iou_head_depth, config.iou_head_hidden_dim) == (512, 4, 128)
    assert config.encoder.embed_dims == [32, 48, 96, 128]
    again = ModelConfig.model_validate_json(config.model_dump_json())
    assert build_sam(again).state_dict().keys() == build_sam(config).state_dict().keys()


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"num_heads": [1, 5, 4, 4]}, "heads"),
        ({"embed_dims": [31, 48, 96, 128]}, "even"),
        ({"out_indices": [4]}, "out_indices"),
    ],
)
def test_impossible_overrides(overrides: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        build(encoder=EncoderOverrides(**overrides))


def test_other_channels() -> None:
    model = build(encoder=EncoderOverrides(input_channels=1))
    assert model.encode(model.preprocess(images(model))).shape == (2, 128, 16, 16)
    mean, std = pixel_statistics(1)
    assert 103.53 < mean[0] < 123.675
    assert 57.12 < std[0] < 58.395


def test_preprocess_pads_with_zeros_after_normalising() -> None:
    model = build()
    photo = torch.randint(0, 256, (3, 256, 100), dtype=torch.uint8)
    expected = (photo - model.pixel_mean) / model.pixel_std
    padded = model.preprocess(photo)
    assert padded.shape == (3, 256, 256)
    torch.testing.assert_close(padded[..., :100], expected)
    assert (padded[..., 100:] == 0).all()
    canvas = torch.full((1, 3, 256, 256), 77, dtype=torch.uint8)
    canvas[0, :, :, :100] = photo
    torch.testing.assert_close(model.preprocess(canvas, torch.tensor([[256, 100]]))[0], padded)


@torch.no_grad()
def test_prompt_gives_the_same_masks_alone_and_in_a_ragged_batch() -> None:
    model = build()
    embeddings = model.encode(model.preprocess(images(model)))
    mask = torch.randn(64, 64).numpy()
    prompts = [*PROMPTS, Prompt(PROMPTS[0].points, PROMPTS[0].labels, PROMPTS[1].box, mask)]
    index = torch.tensor([0, 1, 1, 0])
    together = model.decode(embeddings, index, prompt_tensors(prompts))
    for i, prompt in enumerate(prompts):
        alone = model.decode(embeddings, index[i : i + 1], prompt_tensors([prompt]))
        torch.testing.assert_close(together.low_res_logits[i], alone.low_res_logits[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(together.iou_predictions[i], alone.iou_predictions[0], atol=1e-5, rtol=1e-4)


def test_no_prompts_at_all() -> None:
    model = build()
    embeddings = model.encode(model.preprocess(images(model)))
    output = model.decode(embeddings, torch.zeros(0, dtype=torch.int64), prompt_tensors([]))
    assert output.low_res_logits.shape == (0, 4, 64, 64)


def test_every_used_parameter_learns() -> None:
    model = build().train()
    embeddings = model.encode(model.preprocess(images(model)))
    mask = torch.randn(64, 64).numpy()
    prompts = [*PROMPTS, Prompt(PROMPTS[0].points, PROMPTS[2].labels[1:2], PROMPTS[1].box, mask)]
    output = model.decode(embeddings, torch.tensor([0, 1, 1, 0]), prompt_tensors(prompts))
    (output.low_res_logits.square().mean() + output.iou_predictions.square().mean()).backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A key's bias shifts all logits of a query alike: softmax does not see it.
    assert [name for name in idle if "k_proj.bias" not in name] == []


def test_layer_indices() -> None:
    model = build()
    encoder = model.image_encoder
    index = {name: encoder.layer_index(name) for name, _ in encoder.named_parameters()}
    assert index["patch_embed.conv1.conv.weight"] == 0
    assert index["stages.0.blocks.0.conv1.conv.weight"] == 1
    assert index["stages.2.downsample.conv1.conv.weight"] == index["stages.2.blocks.0.mlp.fc1.weight"] == 3
    assert index["stages.3.blocks.0.attn.attention_biases"] == 6
    assert index["neck.0.weight"] == encoder.num_layers - 1 == max(index.values()) == 7
    vit = build(name="vit_b", encoder=EncoderOverrides(embed_dims=[32], depths=[4], num_heads=[2])).image_encoder
    assert vit.layer_index("pos_embed") == 0
    assert vit.layer_index("blocks.3.attn.rel_pos_h") == 4
    assert vit.layer_index("neck.3.bias") == vit.num_layers - 1 == 5


def load(model: Sam, source: Sam) -> None:
    model.load_state_dict(source.state_dict())


def copy_in_place(model: Sam, source: Sam) -> None:
    with torch.no_grad():
        for mine, theirs in zip(model.state_dict().values(), source.state_dict().values(), strict=True):
            mine.copy_(theirs)


def step(model: Sam, source: Sam) -> None:
    """An optimizer step that ends at the other's weights, in evaluation mode throughout."""
    copy_in_place(model, source)
    for mine, theirs in zip(model.parameters(), source.parameters(), strict=True):
        mine.data = theirs.data + 1.0
        mine.grad = torch.ones_like(mine)
    torch.optim.SGD(model.parameters(), lr=1.0).step()


def train_then_load(model: Sam, source: Sam) -> None:
    model.train()
    load(model, source)
    model.eval()


def load_in_train(model: Sam, source: Sam) -> None:
    load(model, source)
    model.train().eval()


def move_then_load(model: Sam, source: Sam) -> None:
    model.to("cpu", torch.float64).to(torch.float32)
    load(model, source)


@pytest.mark.parametrize("change", [load, copy_in_place, step, train_then_load, load_in_train, move_then_load])
@torch.no_grad()
def test_no_stale_attention_bias(change: Callable[[Sam, Sam], None]) -> None:
    """The reference caches its bias table in evaluation mode and then computes with an old one."""
    model, source = build(seed=1), build(seed=2)
    x = model.preprocess(images(model))
    before = model.encode(x)
    change(model, source)
    expected = copy.deepcopy(source).train().eval().encode(x)
    assert (before - expected).abs().max() > 0.1
    torch.testing.assert_close(model.encode(x), expected, atol=1e-4, rtol=1e-4)
    for name, parameter in model.named_parameters():
        if "attention_biases" in name:
            parameter.add_(torch.randn_like(parameter))
    assert (model.encode(x) - expected).abs().max() > 0.01


@torch.no_grad()
def test_half_precision() -> None:
    model = build()
    x, index = model.preprocess(images(model)), torch.tensor([0, 1, 1])
    expected = model.decode(model.encode(x), index, prompt_tensors(PROMPTS))
    half = model.to(torch.bfloat16)
    output = half.decode(half.encode(x), index, prompt_tensors(PROMPTS))
    assert output.low_res_logits.dtype == torch.bfloat16
    scale = expected.low_res_logits.abs().max()
    assert (output.low_res_logits.float() - expected.low_res_logits).abs().max() < 0.15 * scale


def test_mixed_precision_trains() -> None:
    model = build().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embeddings = model.encode(model.preprocess(images(model)))
        output = model.decode(embeddings, torch.tensor([0, 1, 1]), prompt_tensors(PROMPTS))
        loss = output.low_res_logits.float().square().mean()
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_training_attends_as_inference_does() -> None:
    """On a CPU the one takes plain products, the other torch's fused kernel."""
    model = build()
    x = model.preprocess(images(model))
    with torch.no_grad():
        expected = model.encode(x)
    trained = model.encode(x)
    torch.testing.assert_close(trained, expected, atol=2e-5, rtol=1e-4)
    trained.square().mean().backward()
    tables = [p.grad for name, p in model.named_parameters() if "attention_biases" in name]
    assert tables and all(grad is not None and grad.abs().max() > 0 for grad in tables)


def test_windows_attend_in_mixed_precision() -> None:
    attention = next(m for m in build().modules() if isinstance(m, WindowAttention))
    assert attention.biases().dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert attention.biases().dtype == torch.bfloat16


@torch.no_grad()
def test_mixed_precision_keeps_positions_exact() -> None:
    model = build()
    expected = model.prompt_encoder.get_dense_pe()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(model.prompt_encoder.get_dense_pe(), expected)


def test_forward_joins_images_of_one_call() -> None:
    model = build()
    x = images(model)[0].float()
    record = {
        "image": x[:, :200],
        "original_size": (100, 128),
        "boxes": torch.tensor([[5.0, 5, 50, 60], [1, 2, 3, 4]]),
    }
    other = {"image": x, "original_size": (64, 64)}
    first, second = model([record, other], multimask_output=True)
    assert first["masks"].shape == (2, 3, 100, 128)
    assert first["masks"].dtype == torch.bool
    assert second["masks"].shape == (1, 3, 64, 64)
    assert second["low_res_logits"].shape == (1, 3, 64, 64)
    assert model([record], multimask_output=False)[0]["iou_predictions"].shape == (2, 1)


def test_prompts_that_do_not_fit_each_other() -> None:
    cpu = torch.device("cpu")
    with pytest.raises(PromptError, match="labels"):
        batch_prompts(torch.zeros(1, 2, 2), None, None, None, cpu)
    with pytest.raises(PromptError, match="number of prompts"):
        batch_prompts(torch.zeros(2, 1, 2), torch.ones(2, 1), torch.zeros(3, 4), None, cpu)
    with pytest.raises(PromptError, match="shapes"):
        batch_prompts(torch.zeros(1, 3, 2), torch.ones(1, 2), None, None, cpu)


def test_join_prompts_marks_who_has_a_mask() -> None:
    cpu = torch.device("cpu")
    boxes = batch_prompts(None, None, torch.zeros(2, 4), None, cpu)
    masks = batch_prompts(None, None, None, torch.ones(1, 1, 64, 64), cpu)
    joined = join_prompts([boxes, masks])
    assert joined.labels.tolist() == [[2, 3], [2, 3], [-2, -2]]
    assert joined.has_mask is not None
    assert joined.has_mask.tolist() == [False, False, True]
