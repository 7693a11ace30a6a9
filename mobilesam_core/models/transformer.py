"""The decoder's two-way transformer (Kirillov et al., "Segment Anything", 2023).

Letters of shapes: N prompts, T tokens of a prompt, P image tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobilesam_core.models.lora_linear import matrix_of


class Attention(nn.Module):
    """Multi-head attention whose inner width may be a fraction of the outer one."""

    def __init__(self, dim: int, num_heads: int, downsample: int = 1) -> None:
        super().__init__()
        inner = dim // downsample
        self.num_heads = num_heads
        self.q_proj = nn.Linear(dim, inner)
        self.k_proj = nn.Linear(dim, inner)
        self.v_proj = nn.Linear(dim, inner)
        self.out_proj = nn.Linear(inner, dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """``q`` ``(N, Q, D)``, ``k`` and ``v`` ``(N, K, D)`` to ``(N, Q, D)``; ``mask``: which keys count."""
        out = attend(self.split(self.q_proj(q)), self.split(self.k_proj(k)), self.split(self.v_proj(v)), mask)
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def read(self, queries: Tensor, placed: Tensor, image: Tensor) -> Tensor:
        """As ``self(queries, placed, image)``, cheaper while T is small: T tokens read an image.

        The image's projections, P x D x D/2 each, are absorbed into the tokens: ``(W_q t)·(W_k x)`` is
        ``(W_kᵀ W_q t)·x``, and ``W_v`` may wait until the tokens have read. Each then costs h·T vectors instead of D/2,
        which pays while ``h·T < D/2``. The keys' bias adds the same to all scores of a token, so the softmax does not
        see it.

        queries: ``(N, T, D)``. placed, image: ``(N, P, D)``, with and without positions.
        """
        if self.num_heads * queries.shape[1] >= self.q_proj.out_features:
            return self(queries, placed, image)
        q = self.split(self.q_proj(queries))
        h, t = q.shape[1:3]
        probes = (q * scale_of(q)) @ matrix_of(self.k_proj).unflatten(0, (h, -1))
        weights = attention_weights(probes.flatten(1, 2) @ placed.mT)
        seen = (weights @ image).unflatten(1, (h, t))
        out = seen @ matrix_of(self.v_proj).unflatten(0, (h, -1)).mT + self.v_proj.bias.view(h, 1, -1)
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def write(self, placed: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """As ``self(placed, keys, values, mask)``, cheaper while T is small: T tokens write into an image.

        As in :meth:`read`; the output projection is applied before the tokens write. Here the softmax runs over tokens,
        so the bias of the image's queries counts.

        placed: ``(N, P, D)``. keys, values: ``(N, T, D)``. mask: ``(N, 1, 1, T)`` bool, which keys count.
        """
        if self.num_heads * keys.shape[1] >= self.q_proj.out_features:
            return self(placed, keys, values, mask)
        k = self.split(self.k_proj(keys))
        h, t = k.shape[1:3]
        k = k * scale_of(k)
        probes = k @ matrix_of(self.q_proj).unflatten(0, (h, -1))
        constants = k @ self.q_proj.bias.view(h, -1, 1)
        scores = (probes.flatten(1, 2) @ placed.mT).unflatten(1, (h, t)) + constants
        return self.written(scores, values, mask)

    def written(self, scores: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(N, h, T, P)`` scores of image tokens for the tokens that write ``values``, to ``(N, P, D)``."""
        if mask is not None:
            scores = scores.masked_fill(~mask.mT, float("-inf"))
        weights = attention_weights(scores).flatten(1, 2)  # with the image along the rows: vector instructions
        v = self.split(self.v_proj(values))
        out = v @ matrix_of(self.out_proj).unflatten(1, (v.shape[1], -1)).permute(1, 2, 0)
        return weights.mT @ out.flatten(1, 2) + self.out_proj.bias

    def split(self, x: Tensor) -> Tensor:
        """``(N, T, h·d)`` to ``(N, h, T, d)``."""
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


def scale_of(x: Tensor) -> float:
    """What scores of ``(..., d)`` queries or keys are multiplied with."""
    return float(x.shape[-1] ** -0.5)


def attention_weights(scores: Tensor) -> Tensor:
    """Softmax over dimension 2, with zeros for weights too small to count in a sum of float32.

    Trained attention is peaked. What it hardly looks at gets weights below the normal range of float32, and a CPU takes
    a hundred cycles for each product with one of them.
    """
    return F.threshold(scores.softmax(dim=2), 1e-20, 0.0, inplace=not torch.is_grad_enabled())


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention over ``(N, heads, tokens, width)``.

    Between 7 tokens and 4096 image tokens, on a CPU, the fused kernel takes 0.15 to 0.95 of the time of a matmul, a
    softmax and a matmul; but backwards in bfloat16 it takes 1.2 to 2.9 times as long as they.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and torch.is_grad_enabled():
        weights = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)
        if mask is not None:
            weights = weights.masked_fill(~mask, float("-inf"))
        return weights.softmax(dim=3) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


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
        look = read.read if self.training else read
        put = write.write if self.training else write
        tokens = self.norm2(tokens + look(tokens + token_pe, placed_image, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(image + put(placed_image, tokens + token_pe, tokens, mask))
        return tokens, image


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
        last = self.final_attn_token_to_image
        look = last.read if self.training else last
        tokens = tokens + look(tokens + token_pe, image + image_pe, image)
        return self.norm_final_attn(tokens), image
