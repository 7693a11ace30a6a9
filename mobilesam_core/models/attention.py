"""Attention, and how tokens read an image and write into it while they are few.

Letters of shapes: N prompts, T tokens of a prompt, h heads, P image tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable

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

    def split(self, x: Tensor) -> Tensor:
        """``(N, T, h·d)`` to ``(N, h, T, d)``."""
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class Reading:
    """T tokens read an image: ``attention(queries, placed, image)``, cheaper while T is small.

    The image's projections, P x D x D/2 each, are absorbed into the tokens: ``(W_q t)·(W_k x)`` is
    ``(W_kᵀ W_q t)·x``, and ``W_v`` may wait until the tokens have read. Each then costs h·T vectors instead of D/2,
    which pays while ``h·T < D/2``. The keys' bias adds the same to all scores of a token, so the softmax does not
    see it.

    queries: ``(N, T, D)``. placed, image: ``(N, P, D)``, with and without positions.
    """

    def __init__(self, attention: Attention, queries: Tensor) -> None:
        self._attention, self._queries = attention, queries
        self._absorbs = attention.num_heads * queries.shape[1] < attention.q_proj.out_features
        if self._absorbs:
            q = attention.split(attention.q_proj(queries))
            probes = (q * scale_of(q)) @ matrix_of(attention.k_proj).unflatten(0, (attention.num_heads, -1))
            self._probes = probes.flatten(1, 2)

    def __call__(self, placed: Tensor, image: Tensor) -> Tensor:
        """``(N, T, D)``, read in the whole image."""
        if not self._absorbs:
            return self._attention(self._queries, placed, image)
        seen = attention_weights(self._probes @ placed.mT) @ image
        attention, h = self._attention, self._attention.num_heads
        values = seen.unflatten(1, (h, -1)) @ matrix_of(attention.v_proj).unflatten(0, (h, -1)).mT
        values = values + attention.v_proj.bias.view(h, 1, -1)
        return attention.out_proj(values.transpose(1, 2).flatten(2))


class Spreading:
    """T tokens write ``values`` into an image: what they write is projected before it is spread.

    values: ``(N, T, D)``. mask: ``(N, 1, 1, T)`` bool, which tokens count.
    """

    def __init__(self, attention: Attention, values: Tensor, mask: Tensor | None = None) -> None:
        v = attention.split(attention.v_proj(values))
        h = attention.num_heads
        out = v @ matrix_of(attention.out_proj).unflatten(1, (h, -1)).permute(1, 2, 0)
        # Of each head the weights of a place add up to 1: so the bias is added for nothing.
        self._out = (out + attention.out_proj.bias / h).flatten(1, 2)
        self._mask = mask

    def __call__(self, scores: Tensor) -> Tensor:
        """``(N, h, T, P)`` scores of image tokens for tokens, to the ``(N, P, D)`` that is written."""
        if self._mask is not None:
            scores = scores.masked_fill(~self._mask.mT, float("-inf"))
        weights = attention_weights(scores).flatten(1, 2)  # with the image along the rows: vector instructions
        return weights.mT @ self._out


class Writing:
    """T tokens write into an image: ``attention(placed, keys, values, mask)``, cheaper while T is small.

    As :class:`Reading` does, but the softmax runs over tokens, so that the bias of the image's queries counts, and each
    place of an image is written to for itself.

    keys, values: ``(N, T, D)``. mask: ``(N, 1, 1, T)`` bool, which keys count.
    """

    def __init__(self, attention: Attention, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> None:
        h = attention.num_heads
        if h * keys.shape[1] >= attention.q_proj.out_features:
            self._plain: Callable[[Tensor], Tensor] | None = lambda placed: attention(placed, keys, values, mask)
            return
        self._plain = None
        k = attention.split(attention.k_proj(keys))
        k = k * scale_of(k)
        self._heads = h
        self._probes = (k @ matrix_of(attention.q_proj).unflatten(0, (h, -1))).flatten(1, 2)
        self._constants = (k @ attention.q_proj.bias.view(h, -1, 1)).flatten(1, 2)
        self._spread = Spreading(attention, values, mask)

    def __call__(self, placed: Tensor) -> Tensor:
        """What is written at the ``(N, P, D)`` places of an image, with their positions; ``(N, P, D)``."""
        if self._plain is not None:
            return self._plain(placed)
        scores = torch.baddbmm(self._constants, self._probes, placed.mT)
        return self._spread(scores.unflatten(1, (self._heads, -1)))


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
