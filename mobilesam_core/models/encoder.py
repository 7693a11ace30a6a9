"""What all image encoders have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from mobilesam_core.models.norm import LayerNorm2d


@dataclass(frozen=True)
class EncoderSpec:
    """Architecture of an image encoder; one value a stage (one in all for ``vit``)."""

    family: Literal["tiny_vit", "vit"]
    embed_dims: tuple[int, ...]
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window_sizes: tuple[int, ...]
    mlp_ratio: float = 4.0
    input_channels: int = 3
    classes: int = 0
    """Width of an unused classifier whose weights the official file carries along; 0: none."""


class ImageEncoder(nn.Module, ABC):
    """Normalised images ``(B, C, H, W)`` to embeddings ``(B, D, H/16, W/16)``.

    img_size: side of the frame the model is meant for; other sizes that are multiples of 64 work as well.
    out_indices: stages (blocks of a plain ViT) whose features :meth:`forward_intermediates` returns.
    num_layers: one more than the largest :meth:`layer_index`.
    """

    patch_embed: nn.Module
    neck: nn.Module

    def __init__(self, img_size: int, out_indices: Sequence[int], num_layers: int) -> None:
        super().__init__()
        self.img_size = img_size
        self.out_indices = tuple(out_indices)
        self.num_layers = num_layers

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_intermediates(x)[0]

    @abstractmethod
    def forward_intermediates(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The embeddings, and the features ``(B, C, h, w)`` of ``out_indices``, in that order."""

    @abstractmethod
    def recompute_blocks(self) -> None:
        """From now on compute inner values of blocks again for the gradients, instead of keeping them."""

    @abstractmethod
    def layer_index(self, parameter_name: str) -> int:
        """Depth of a parameter (named relative to the encoder), for layer-wise learning rates.

        The patch embedding is 0, the blocks count from 1, the neck is last.
        """


def build_neck(in_channels: int, out_channels: int) -> nn.Sequential:
    """SAM's neck: from the encoder's width to that of prompts and decoder."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        LayerNorm2d(out_channels, eps=1e-6),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        LayerNorm2d(out_channels, eps=1e-6),
    )
