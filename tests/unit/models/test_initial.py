"""What random weights begin with."""

from __future__ import annotations

import pytest
import torch

from mobilesam_core.config.model import ModelConfig, ModelName
from mobilesam_core.models.attention import Attention
from mobilesam_core.models.initial import FOREGROUND_PRIOR
from mobilesam_core.models.registry import build_sam
from mobilesam_core.models.sam import Sam
from mobilesam_core.prompts.tensors import prompt_tensors
from mobilesam_core.prompts.types import Prompt


@pytest.fixture(params=["vit_nano", "vit_t"])
def model(request: pytest.FixtureRequest) -> Sam:
    torch.manual_seed(0)
    name: ModelName = request.param
    return build_sam(ModelConfig(name=name, checkpoint=None, image_size=128)).eval()


@torch.inference_mode()
def test_masks_start_at_the_prior(model: Sam) -> None:
    embeddings = model.encode(torch.randn(1, 3, 128, 128))
    prompts = prompt_tensors([Prompt.from_points([[20, 90]]), Prompt.from_box([30, 30, 100, 60])])
    logits = model.decode(embeddings, torch.zeros(2, dtype=torch.int64), prompts).low_res_logits
    assert logits.sigmoid().mean().item() == pytest.approx(FOREGROUND_PRIOR, abs=0.03)


@torch.inference_mode()
def test_a_token_looks_where_its_point_is(model: Sam) -> None:
    layer = model.mask_decoder.transformer.layers[0]
    attention = layer.cross_attn_token_to_image
    assert isinstance(attention, Attention)
    keys = attention.k_proj(model.prompt_encoder.get_dense_pe().flatten(2).transpose(1, 2))[0]
    cells = torch.cartesian_prod(torch.arange(8), torch.arange(8))[:, [1, 0]]  # (x, y), row by row
    points = cells * 16 + 8.0
    tokens = model.prompt_encoder.pe_layer((points + 0.5) / 128)
    here = (attention.q_proj(tokens) @ keys.T).argmax(dim=1) == torch.arange(64)
    assert here.all()
    attention.k_proj.reset_parameters()
    keys = attention.k_proj(model.prompt_encoder.get_dense_pe().flatten(2).transpose(1, 2))[0]
    assert ((attention.q_proj(tokens) @ keys.T).argmax(dim=1) == torch.arange(64)).float().mean() < 0.5
