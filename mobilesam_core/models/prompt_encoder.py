"""Points, boxes and masks to embeddings (Kirillov et al., "Segment Anything", 2023)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobilesam_core.models.norm import LayerNorm2d
from mobilesam_core.prompts.tensors import PromptTensors
from mobilesam_core.prompts.types import PAD


class FourierEncoding(nn.Module):
    """Positions to random Fourier features (Tancik et al., 2020, arXiv 2006.10739)."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, dim // 2))

    def forward(self, xy: Tensor) -> Tensor:
        """``(..., 2)`` float32 positions in [0, 1] to ``(..., dim)`` float32."""
        # A product written out: as a matmul, mixed precision would round the phase itself.
        x_frequencies, y_frequencies = self.positional_encoding_gaussian_matrix.float()
        xy = 2 * xy - 1
        phase = 2 * math.pi * (xy[..., :1] * x_frequencies + xy[..., 1:] * y_frequencies)
        return torch.cat([phase.sin(), phase.cos()], dim=-1)


class PromptEncoder(nn.Module):
    """Prompts to tokens and to a dense embedding that is added to the image's.

    embed_dim: width D of all embeddings. grid_size: image tokens along one side; the input frame has 16, a
    mask prompt 4 pixels for each.
    """

    def __init__(self, embed_dim: int, image_size: int, grid_size: int, mask_channels: int = 16) -> None:
        super().__init__()
        self.image_size = image_size
        self.grid_size = grid_size
        self.pe_layer = FourierEncoding(embed_dim)
        # Background point, foreground point, top-left and bottom-right corner: labels 0 to 3.
        points = [nn.Embedding(1, embed_dim) for _ in range(4)]
        self.point_embeddings: Sequence[nn.Embedding] = nn.ModuleList(points)  # type: ignore[assignment]
        self.not_a_point_embed = nn.Embedding(1, embed_dim)
        self.no_mask_embed = nn.Embedding(1, embed_dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_channels // 4, 2, stride=2),
            LayerNorm2d(mask_channels // 4, eps=1e-6),
            nn.GELU(),
            nn.Conv2d(mask_channels // 4, mask_channels, 2, stride=2),
            LayerNorm2d(mask_channels, eps=1e-6),
            nn.GELU(),
            nn.Conv2d(mask_channels, embed_dim, 1),
        )

    @property
    def mask_input_size(self) -> tuple[int, int]:
        """Height and width of a mask prompt."""
        return 4 * self.grid_size, 4 * self.grid_size

    def get_dense_pe(self) -> Tensor:
        """Positions of the image tokens, ``(1, D, g, g)``."""
        weight = self.no_mask_embed.weight
        centers = (torch.arange(self.grid_size, device=weight.device, dtype=torch.float32) + 0.5) / self.grid_size
        y, x = torch.meshgrid(centers, centers, indexing="ij")
        encoded: Tensor = self.pe_layer(torch.stack([x, y], dim=-1))
        return encoded.permute(2, 0, 1)[None].to(weight.dtype)

    def embed_tokens(self, points: Tensor, labels: Tensor) -> Tensor:
        """``(N, T, 2)`` pixels of the input frame and ``(N, T)`` labels to ``(N, T, D)``."""
        kinds = torch.cat([self.not_a_point_embed.weight, *(e.weight for e in self.point_embeddings)])
        # Half a pixel leads from a pixel's corner to its centre.
        positions: Tensor = self.pe_layer((points.float() + 0.5) / self.image_size)
        positions = positions * (labels > PAD).unsqueeze(-1)
        return positions.to(kinds.dtype) + F.embedding((labels - PAD).clamp(min=0), kinds)

    def embed_masks(self, prompts: PromptTensors) -> Tensor:
        """The dense embedding, ``(N, D, g, g)``; prompts without a mask get the one that says so."""
        none = self.no_mask_embed.weight.reshape(1, -1, 1, 1)
        if prompts.masks is None:
            return none.expand(len(prompts), -1, self.grid_size, self.grid_size)
        embedded: Tensor = self.mask_downscaling(prompts.masks.to(none.dtype))
        if prompts.has_mask is None:
            return embedded
        return torch.where(prompts.has_mask.view(-1, 1, 1, 1), embedded, none.to(embedded.dtype))

    def forward(self, prompts: PromptTensors) -> tuple[Tensor, Tensor]:
        """Tokens ``(N, T, D)`` and dense embeddings ``(N, D, g, g)``."""
        return self.embed_tokens(prompts.points, prompts.labels), self.embed_masks(prompts)
