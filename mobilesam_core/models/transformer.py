"""The decoder's two-way transformer (Kirillov et al., "Segment Anything", 2023).

Letters of shapes: N prompts, T tokens of a prompt, P image tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from mobilesam_core.models.attention import Attention, Reading, Writing


class MLPBlock(nn.Module):
    """Two layers with a ReLU between."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, hidden_dim)
        self.lin2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(F.relu(self.lin1(x)))


class TwoWayBlock(nn.Module):
    """Tokens attend to each other, then to the image, then the image to the tokens."""

    def __init__(self, dim: int, num_heads: int, mlp_dim: int, first: bool) -> None:
        super().__init__()
        self.self_attn = Attention(dim, num_heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = Attention(dim, num_heads, downsample=2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLPBlock(dim, mlp_dim)
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = Attention(dim, num_heads, downsample=2)
        self.first = first

    def forward(
        self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if self.first:
            # The first block's tokens are their own positions: nothing to add, and no residual.
            tokens = self.norm1(self.self_attn(tokens, tokens, tokens, mask))
        else:
            placed = tokens + token_pe
            tokens = self.norm1(tokens + self.self_attn(placed, placed, tokens, mask))
        placed_image = image + image_pe
        # In evaluation mode, too, it would be faster; but what is exported then is to be plain projections.
        read, write = self.cross_attn_token_to_image, self.cross_attn_image_to_token
        asked = tokens + token_pe
        seen = Reading(read, asked)(placed_image, image) if self.training else read(asked, placed_image, image)
        tokens = self.norm2(tokens + seen)
        tokens = self.norm3(tokens + self.mlp(tokens))
        keys = tokens + token_pe
        written = (
            Writing(write, keys, tokens, mask)(placed_image)
            if self.training
            else write(placed_image, keys, tokens, mask)
        )
        return tokens, self.norm4(image + written)


class TwoWayTransformer(nn.Module):
    """A stack of two-way blocks and a last look of the tokens at the image."""

    def __init__(self, dim: int, mlp_dim: int, depth: int = 2, num_heads: int = 8) -> None:
        super().__init__()
        blocks = [TwoWayBlock(dim, num_heads, mlp_dim, first=i == 0) for i in range(depth)]
        self.layers: Sequence[TwoWayBlock] = nn.ModuleList(blocks)  # type: ignore[assignment]
        self.final_attn_token_to_image = Attention(dim, num_heads, downsample=2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(
        self, image: Tensor, image_pe: Tensor, tokens: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The new tokens and image.

        image: ``(N, P, D)``. image_pe: ``(1, P, D)``. tokens: ``(N, T, D)``.
        mask: ``(N, 1, 1, T)`` bool, false for tokens that nothing may attend to.
        """
        token_pe = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pe, image_pe, mask)
        last, asked, placed = self.final_attn_token_to_image, tokens + token_pe, image + image_pe
        seen = Reading(last, asked)(placed, image) if self.training else last(asked, placed, image)
        return self.norm_final_attn(tokens + seen), image
