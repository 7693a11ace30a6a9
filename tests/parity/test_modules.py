"""Each part of the model against the reference, with the same random weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import segment_anything
import torch
from torch import Tensor, nn

from mobilesam_core.checkpoints.keys import to_ours
from mobilesam_core.config.model import EncoderOverrides, ModelConfig
from mobilesam_core.models.features import FeatureHookManager
from mobilesam_core.models.registry import build_sam
from mobilesam_core.models.sam import Sam, batch_prompts

Pair = tuple[Any, Sam]
Check = Callable[[Tensor, Tensor], None]


def image(seed: int = 0) -> Tensor:
    return torch.randn(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(seed))


def prompts(*kinds: str) -> dict[str, Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(3, 4, 2, generator=generator) * 1024
    given = {
        "points": points,
        "labels": torch.tensor([[1, 0, 1, -1], [0, 0, 1, 1], [1, 1, 1, 0]]),
        "boxes": torch.rand(3, 4, generator=generator) * 1024,
        "masks": torch.randn(3, 1, 256, 256, generator=generator) * 5,
    }
    wanted = {*kinds, "labels"} if "points" in kinds else set(kinds)
    return {kind: value if kind in wanted else None for kind, value in given.items()}


def embed_like_oracle(oracle: Any, p: dict[str, Tensor | None]) -> tuple[Tensor, Tensor]:
    points = None if p["points"] is None else (p["points"], p["labels"])
    sparse, dense = oracle.prompt_encoder(points=points, boxes=p["boxes"], masks=p["masks"])
    return sparse, dense


@torch.no_grad()
def test_vit_t_encoder(vit_t: Pair, assert_same: Check) -> None:
    oracle, ours = vit_t
    assert_same(ours.image_encoder(image()), oracle.image_encoder(image()))


@torch.no_grad()
@pytest.mark.slow
def test_vit_b_encoder(vit_b: Pair, assert_same: Check) -> None:
    oracle, ours = vit_b
    assert_same(ours.image_encoder(image()), oracle.image_encoder(image()))


@torch.no_grad()
def test_thin_vit_encoder(randomise: Callable[[nn.Module, int], None], assert_same: Check) -> None:
    """The same code as vit_b, with windowed and global blocks, at a width that takes a second."""
    oracle = segment_anything.modeling.ImageEncoderViT(
        embed_dim=64, depth=8, num_heads=2, out_chans=256, norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True, window_size=14, global_attn_indexes=(1, 3, 5, 7),
    )  # fmt: skip
    randomise(oracle, 3)
    thin = EncoderOverrides(embed_dims=[64], depths=[8], num_heads=[2])
    ours = build_sam(ModelConfig(name="vit_b", checkpoint=None, encoder=thin)).eval()
    prefix = "image_encoder."
    state = to_ours({prefix + key: value for key, value in oracle.state_dict().items()})
    ours.image_encoder.load_state_dict({key.removeprefix(prefix): value for key, value in state.items()})
    assert_same(ours.image_encoder(image()), oracle(image()))


@torch.no_grad()
@pytest.mark.parametrize(
    "kinds",
    [(), ("points",), ("boxes",), ("masks",), ("points", "boxes"), ("points", "masks"), ("points", "boxes", "masks")],
    ids=lambda kinds: "+".join(kinds) or "nothing",
)
def test_prompt_encoder(vit_t: Pair, assert_same: Check, kinds: tuple[str, ...]) -> None:
    oracle, ours = vit_t
    given = prompts(*kinds)
    tokens, dense = ours.prompt_encoder(batch_prompts(**given, device=ours.device))
    expected_tokens, expected_dense = embed_like_oracle(oracle, given)
    assert_same(dense, expected_dense)
    if expected_tokens.numel():
        assert_same(tokens, expected_tokens)
    else:
        assert tokens.shape == expected_tokens.shape


@torch.no_grad()
def test_dense_positions(vit_t: Pair, assert_same: Check) -> None:
    oracle, ours = vit_t
    assert_same(ours.prompt_encoder.get_dense_pe(), oracle.prompt_encoder.get_dense_pe())


@torch.no_grad()
@pytest.mark.parametrize("kinds", [("points",), ("boxes",), ("masks",), ("points", "boxes", "masks")])
def test_mask_decoder(vit_t: Pair, assert_same: Check, kinds: tuple[str, ...]) -> None:
    oracle, ours = vit_t
    embedding = torch.randn(1, 256, 64, 64, generator=torch.Generator().manual_seed(2))
    given = prompts(*kinds)
    sparse, dense = embed_like_oracle(oracle, given)
    masks, iou = oracle.mask_decoder.predict_masks(embedding, oracle.prompt_encoder.get_dense_pe(), sparse, dense)
    output = ours.decode(embedding, torch.zeros(3, dtype=torch.int64), batch_prompts(**given, device=ours.device))
    positive = (masks > 0).float().mean(dim=(0, 2, 3))
    assert ((positive > 0.02) & (positive < 0.98)).all(), "masks of one sign would prove nothing"
    assert_same(output.low_res_logits, masks)
    assert_same(output.iou_predictions, iou)


@torch.no_grad()
@pytest.mark.slow
def test_vit_b_levels(vit_b: Pair, assert_same: Check) -> None:
    oracle, ours = vit_b
    inner: dict[int, Tensor] = {}
    for number in (2, 8):
        oracle.image_encoder.blocks[number].register_forward_hook(
            lambda _, __, output, number=number: inner.__setitem__(number, output)
        )
    expected = oracle.image_encoder(image())
    with FeatureHookManager(ours.image_encoder, ["blocks.2", "blocks.8", "neck"]) as features:
        ours.image_encoder(image())
        assert features.layouts["blocks.8"] == "HWC"
        assert_same(features["blocks.2"], inner[2])
        assert_same(features["blocks.8"], inner[8])
        assert_same(features["neck"], expected)
