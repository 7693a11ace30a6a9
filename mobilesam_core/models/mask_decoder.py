"""From embeddings to masks and their predicted IoU (Kirillov et al., "Segment Anything", 2023)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobilesam_core.models.norm import LayerNorm2d
from mobilesam_core.models.transformer import TwoWayTransformer

NUM_MASKS = 4
"""Mask 0 is for prompts that mean one object; 1 to 3 are the multimask output."""

_PIECE = 2048  # image tokens


class DecoderOutput(NamedTuple):
    """What the decoder says of N prompts.

    low_res_logits: ``(N, 4, S/4, S/4)``, mask where positive. iou_predictions: ``(N, 4)``, nominally 0 to 1.
    tokens: ``(N, 1 + 4 + T, D)``, transformed: those of the IoU, of the masks and of the prompt.
    """

    low_res_logits: Tensor
    iou_predictions: Tensor
    tokens: Tensor

    @property
    def mask_tokens(self) -> Tensor:
        """``(N, 4, D)``, what the masks' filters are made of."""
        return self.tokens[:, 1 : 1 + NUM_MASKS]


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
        tokens, mask = self.with_own_tokens(prompt_tokens, absent)
        tokens, image = self.transformer(
            image_embeddings.flatten(2).transpose(1, 2), image_pe.flatten(2).transpose(1, 2), tokens, mask
        )
        filters, iou_predictions = self.read_tokens(tokens)
        return DecoderOutput(self.draw_masks(image, filters), iou_predictions, tokens)

    def with_own_tokens(self, prompt_tokens: Tensor, absent: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The IoU token and the mask tokens, which come first, and those of each prompt, ``(N, 1 + NUM_MASKS + T, D)``;
        and which of them count, ``(N, 1, 1, 1 + NUM_MASKS + T)`` bool, None where all do."""
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(prompt_tokens.shape[0], -1, -1), prompt_tokens], dim=1)
        mask = None if absent is None else F.pad(~absent, (len(own), 0), value=True)[:, None, None]
        return tokens, mask

    def read_tokens(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The masks' filters ``(N, 4, D/8)`` and predicted IoUs ``(N, 4)`` of transformed tokens ``(N, T, D)``."""
        filters = [mlp(tokens[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)]
        return torch.stack(filters, dim=1), self.iou_prediction_head(tokens[:, 0])

    def draw_masks(self, image: Tensor, filters: Tensor) -> Tensor:
        """Logits ``(N, K, 4g, 4g)`` of ``(N, K, D/8)`` filters on transformed image tokens ``(N, g², D)``.

        Each transposed convolution doubles the grid without overlap: it is a matrix product that turns a token into
        2 x 2. So tokens stay rows to the end, and only the logits, a fraction of the numbers, are put in their places.
        """
        parts = pieces(image[0], len(image)) if torch.is_inference_mode_enabled() else [slice(None)]
        split = self.split_layer
        drawn = [self.finish(F.linear(image[:, part], *split), filters) for part in parts]
        return self.arrange(drawn[0] if len(drawn) == 1 else torch.cat(drawn, dim=2))

    @property
    def split_layer(self) -> tuple[Tensor, Tensor]:
        """Weight ``(D, D)`` and bias of the first convolution: of a token it makes four of a quarter of its width."""
        return _split_layer(self.output_upscaling[0])

    def finish(self, split: Tensor, filters: Tensor) -> Tensor:
        """Logits ``(N, K, P, 16)`` of ``(N, K, D/8)`` filters on P split tokens ``(N, P, D)``: 4 x 4 of each, two by
        two."""
        first, norm, activation, second, _ = self.output_upscaling
        assert isinstance(first, nn.ConvTranspose2d) and isinstance(norm, LayerNorm2d)
        x = F.layer_norm(split.unflatten(2, (4, -1)), [first.out_channels], norm.weight, norm.bias, norm.eps)
        x = activation(F.linear(activation(x), *_split_layer(second)))
        # The filters are transposed, not the image: of a batch in bfloat16 torch would copy it.
        logits = x.unflatten(3, (4, -1)).flatten(1, 3) @ filters.mT
        return logits.mT.unflatten(2, (split.shape[1], 16))

    def arrange(self, logits: Tensor) -> Tensor:
        """``(..., g², 16)`` logits as :meth:`finish` makes them, to ``(..., 4g, 4g)``."""
        grid = math.isqrt(logits.shape[-2])
        several = range(logits.ndim - 2)
        placed = (
            logits.unflatten(-1, (2, 2, 2, 2)).unflatten(-5, (grid, grid)).permute(*several, -6, -4, -2, -5, -3, -1)
        )
        return placed.reshape(*logits.shape[:-2], 4 * grid, 4 * grid)


def pieces(image: Tensor, count: int) -> list[slice]:
    """Parts of the ``(P, D)`` tokens of an image to draw masks of, for ``count`` prompts, one after the other.

    On a CPU, so that what is computed stays in its caches, and in memory that the process already has: to be given new
    pages by the system takes as long as to compute what is written in them.
    """
    places = len(image)
    step = max(1, _PIECE // count) if image.device.type == "cpu" else places
    return [slice(start, start + step) for start in range(0, places, step)]


def _split_layer(convolution: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight ``(4 E, D)`` and bias of a linear layer: of a token it makes the 2 x 2 that a convolution does."""
    assert isinstance(convolution, nn.ConvTranspose2d) and convolution.bias is not None
    return convolution.weight.permute(2, 3, 1, 0).flatten(0, 2), convolution.bias.repeat(4)
