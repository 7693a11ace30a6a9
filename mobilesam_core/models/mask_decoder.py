"""From embeddings to masks and their predicted IoU (Kirillov et al., "Segment Anything", 2023)."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from mobilesam_core.models.transformer import TwoWayTransformer

NUM_MASKS = 4
"""Mask 0 is for prompts that mean one object; 1 to 3 are the multimask output."""


class DecoderOutput(NamedTuple):
    """What the decoder says of N prompts.

    low_res_logits: ``(N, 4, S/4, S/4)``, mask where positive. iou_predictions: ``(N, 4)``, nominally 0 to 1.
    """

    low_res_logits: Tensor
    iou_predictions: Tensor


class MLP(nn.Module):
    """``depth`` linear layers with a ReLU between each two."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, depth: int) -> None:
        super().__init__()
        widths = [in_dim, *[hidden_dim] * (depth - 1), out_dim]
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        *hidden, last = self.layers
        for layer in hidden:
            x = F.relu(layer(x))
        return last(x)


class MaskDecoder(nn.Module):
    """Four mask tokens and an IoU token ask the image; each mask token becomes the filter of its mask."""

    def __init__(self, dim: int, mlp_dim: int, iou_head_depth: int, iou_head_hidden_dim: int) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(dim, mlp_dim)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(NUM_MASKS, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, 2, stride=2),
            LayerNorm2d(dim // 4, eps=1e-6),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, 2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(dim, dim, dim // 8, 3) for _ in range(NUM_MASKS))
        self.iou_prediction_head = MLP(dim, iou_head_hidden_dim, NUM_MASKS, iou_head_depth)

    def forward(
        self, image_embeddings: Tensor, image_pe: Tensor, prompt_tokens: Tensor, absent: Tensor | None = None
    ) -> DecoderOutput:
        """Decode N prompts, each on its own image embedding.

        image_embeddings: ``(N, D, g, g)``, the prompts' dense embeddings added. image_pe: ``(1, D, g, g)``.
        prompt_tokens: ``(N, T, D)``. absent: ``(N, T)`` bool, tokens that only fill a ragged batch.
        """
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(len(prompt_tokens), -1, -1), prompt_tokens], dim=1)
        mask = None if absent is None else F.pad(~absent, (len(own), 0), value=True)[:, None, None]
        tokens, image = self.transformer(
            image_embeddings.flatten(2).transpose(1, 2), image_pe.flatten(2).transpose(1, 2), tokens, mask
        )
        upscaled = self.output_upscaling(image.transpose(1, 2).unflatten(2, image_embeddings.shape[2:]))
        filters = torch.stack([mlp(tokens[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        logits = (filters @ upscaled.flatten(2)).unflatten(2, upscaled.shape[2:])
        return DecoderOutput(logits, self.iou_prediction_head(tokens[:, 0]))
