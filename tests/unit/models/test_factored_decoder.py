from __future__ import annotations

import pytest
import torch

from mobilesam_core.config.lora import LoraConfig
from mobilesam_core.config.model import ModelConfig
from mobilesam_core.models.factored_decoder import FactoredDecoder
from mobilesam_core.models.lora import add_adapters
from mobilesam_core.models.mask_decoder import DecoderOutput
from mobilesam_core.models.registry import build_sam
from mobilesam_core.models.sam import Sam
from mobilesam_core.prompts.tensors import PromptTensors
from mobilesam_core.prompts.types import ABSENT, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, PAD, POSITIVE

POINT, BOX = [POSITIVE, PAD], [BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]
RAGGED = [[1, 0, PAD], [1, PAD, ABSENT], [*BOX, ABSENT], [1, 1, PAD], [0, PAD, ABSENT]]


@pytest.fixture
def model() -> Sam:
    """Of which nothing is zero, and no gain one: they would hide mistakes."""
    torch.manual_seed(0)
    model = build_sam(ModelConfig(name="vit_nano", image_size=256)).eval()
    for name, parameter in model.mask_decoder.named_parameters():
        parameter.data.add_(torch.randn_like(parameter) * (0.5 if "norm" in name else 0.05))
    return model


def _embedding() -> torch.Tensor:
    embedding = torch.randn(1, 128, 16, 16) * 2 + 1
    embedding[..., 3, 5] *= 8  # attention is peaked there, and variances differ
    return embedding


def _prompts(labels: list[list[int]]) -> PromptTensors:
    points = (torch.rand(len(labels), len(labels[0]), 2) * 256).sort(dim=1).values
    return PromptTensors(points, torch.tensor(labels))


@torch.no_grad()
def _expected(model: Sam, embedding: torch.Tensor, prompts: PromptTensors) -> DecoderOutput:
    return model.decode(embedding, torch.zeros(len(prompts.labels), dtype=torch.int64), prompts)


@pytest.mark.parametrize("labels", [[POINT] * 5, [BOX] * 5, RAGGED], ids=["points", "boxes", "ragged"])
@pytest.mark.parametrize("group", [1, 2, None], ids=["one by one", "two by two", "together"])
@torch.no_grad()
def test_it_answers_as_the_decoder_does(labels: list[list[int]], group: int | None, model: Sam) -> None:
    embedding, prompts = _embedding(), _prompts(labels)
    expected = _expected(model, embedding, prompts)
    decoder = FactoredDecoder(model, embedding)
    decoder._group = group
    answers = decoder(prompts)
    torch.testing.assert_close(answers.tokens, expected.tokens, atol=5e-5, rtol=1e-4)
    torch.testing.assert_close(answers.iou_predictions, expected.iou_predictions, atol=1e-5, rtol=1e-5)
    rows, outputs = torch.tensor([4, 0, 4, 2]), torch.tensor([1, 3, 2, 0])
    masks = decoder.draw_masks(answers, rows, outputs)
    torch.testing.assert_close(masks, expected.low_res_logits[rows, outputs], atol=1e-4, rtol=1e-4)
    assert decoder.draw_masks(answers, rows[:0], outputs[:0]).shape == (0, 64, 64)


@torch.no_grad()
def test_an_adapter_counts(model: Sam) -> None:
    add_adapters(model, LoraConfig(rank=4))
    for name, parameter in model.named_parameters():
        if "lora_b" in name:
            parameter.normal_(std=0.1)
    embedding, prompts = _embedding(), _prompts([POINT] * 2)
    answers = FactoredDecoder(model, embedding)(prompts)
    expected = _expected(model, embedding, prompts)
    torch.testing.assert_close(answers.tokens, expected.tokens, atol=5e-5, rtol=1e-4)


@torch.no_grad()
def test_bfloat16_is_near(model: Sam) -> None:
    """As near as the plain decoder in bfloat16 is, but for chance."""
    embedding, prompts = _embedding(), _prompts([POINT] * 8)
    exact = _expected(model, embedding, prompts).tokens
    model.in_precision(torch.bfloat16)
    plain = _expected(model, embedding.bfloat16(), prompts).tokens
    factored = FactoredDecoder(model, embedding.bfloat16())(prompts).tokens
    assert (factored - exact).square().mean() < 2 * (plain - exact).square().mean()
