"""The mask decoder for many prompts on one image: the same numbers with a fraction of the work.

All prompts of an image share its tokens, which are many (P, 4096 for ``vit_t``) and wide (D), while a prompt has few
(T, 7 for a point or a box). So:

- what the first block computes from the image alone is computed once;
- later on the image's projections, P x D x D/2 each, are absorbed into the tokens: ``(W_q t)·(W_k x)`` is
  ``(W_kᵀ W_q t)·x``, and ``W_v`` and the output projection are linear, so they may wait until the tokens have read, or
  be applied before they write. Each then costs h·T vectors instead of D/2 (h heads; it pays while ``h·T < D/2``);
- masks are drawn for those prompts alone whose predicted IoU is worth it.

Letters of shapes: N prompts, T tokens of each, h heads of width d, P image tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mobilesam_core.models.sam import Sam
from mobilesam_core.models.transformer import Attention
from mobilesam_core.prompts.tensors import PromptTensors


@dataclass(frozen=True)
class Answers:
    """What the decoder says of N prompts before any mask is drawn.

    iou_predictions: ``(N, 4)``. filters: ``(N, 4, D/8)``. image: ``(N, P, D)``.
    """

    iou_predictions: Tensor
    filters: Tensor
    image: Tensor


class SharedImageDecoder:
    """Decodes any number of prompts on the image of ``embedding``, ``(1, D, g, g)``, without a mask prompt."""

    def __init__(self, model: Sam, embedding: Tensor) -> None:
        self._prompt_encoder = model.prompt_encoder
        self._decoder = model.mask_decoder
        none = model.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        self._image = (embedding + none).flatten(2).mT.contiguous()
        self._positions = model.prompt_encoder.get_dense_pe().flatten(2).mT.contiguous()
        first = self._decoder.transformer.layers[0]
        placed = self._image + self._positions
        read, write = first.cross_attn_token_to_image, first.cross_attn_image_to_token
        self._first_keys = _heads(read.k_proj(placed), read)[0]
        self._first_values = _heads(read.v_proj(self._image), read)[0]
        self._first_queries = _heads(write.q_proj(placed), write)[0]

    def __call__(self, prompts: PromptTensors) -> Answers:
        """The answers to N prompts, in pixels of the input frame, none of which has a mask or an absent token."""
        own = self._decoder.own_tokens().expand(len(prompts), -1, -1)
        positions = torch.cat([own, self._prompt_encoder.embed_tokens(prompts.points, prompts.labels)], dim=1)
        transformer = self._decoder.transformer
        first, *others = transformer.layers
        tokens = first.norm1(first.self_attn(positions, positions, positions))
        tokens = first.norm2(tokens + self._read_first(first.cross_attn_token_to_image, tokens + positions))
        tokens = first.norm3(tokens + first.mlp(tokens))
        written = self._write_first(first.cross_attn_image_to_token, tokens + positions, tokens)
        image = first.norm4(self._image + written)
        for block in others:
            placed = image + self._positions
            tokens = block.norm1(tokens + block.self_attn(tokens + positions, tokens + positions, tokens))
            tokens = block.norm2(tokens + _read(block.cross_attn_token_to_image, tokens + positions, placed, image))
            tokens = block.norm3(tokens + block.mlp(tokens))
            image = block.norm4(image + _write(block.cross_attn_image_to_token, placed, tokens + positions, tokens))
        last = _read(transformer.final_attn_token_to_image, tokens + positions, image + self._positions, image)
        filters, iou_predictions = self._decoder.read_tokens(transformer.norm_final_attn(tokens + last))
        return Answers(iou_predictions, filters, image)

    def draw_masks(self, answers: Answers, prompts: Tensor, outputs: Tensor) -> Tensor:
        """The ``(M, 4g, 4g)`` logits of M masks: output ``outputs[i]`` (0 to 3) of prompt ``prompts[i]``, each
        ``(M,)`` int64."""
        rows, places = prompts.unique(return_inverse=True)
        return self._decoder.draw_masks(answers.image[rows], answers.filters[rows])[places, outputs]

    def _read_first(self, attention: Attention, queries: Tensor) -> Tensor:
        """The first block's tokens read the image that all prompts share: all their queries at once."""
        n, t = queries.shape[:2]
        q = _heads(attention.q_proj(queries), attention).transpose(0, 1).flatten(1, 2)
        out = F.scaled_dot_product_attention(q[None], self._first_keys[None], self._first_values[None])[0]
        return attention.out_proj(out.unflatten(1, (n, t)).permute(1, 2, 0, 3).flatten(2))

    def _write_first(self, attention: Attention, keys: Tensor, values: Tensor) -> Tensor:
        n, t = keys.shape[:2]
        k = _heads(attention.k_proj(keys), attention).transpose(0, 1).flatten(1, 2)
        scores = (k * _scale(k)) @ self._first_queries.mT
        return _written(attention, scores.unflatten(1, (n, t)).transpose(0, 1), values)


def _read(attention: Attention, queries: Tensor, placed: Tensor, image: Tensor) -> Tensor:
    """Tokens ``(N, T, D)`` read ``image`` ``(N, P, D)`` by ``placed``, the same with positions: ``(N, T, D)``.

    The keys' bias adds the same to all scores of a token, so the softmax does not see it.
    """
    q = _heads(attention.q_proj(queries), attention)
    h, t = q.shape[1:3]
    probes = (q * _scale(q)) @ attention.k_proj.weight.unflatten(0, (h, -1))
    weights = _attention_weights(probes.flatten(1, 2) @ placed.mT)
    seen = (weights @ image).unflatten(1, (h, t))
    out = seen @ attention.v_proj.weight.unflatten(0, (h, -1)).mT + attention.v_proj.bias.view(h, 1, -1)
    return attention.out_proj(out.transpose(1, 2).flatten(2))


def _write(attention: Attention, placed: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """What tokens ``(N, T, D)`` write into an image ``placed`` ``(N, P, D)`` at its positions: ``(N, P, D)``.

    Here the softmax runs over tokens, so the bias of the image's queries counts.
    """
    k = _heads(attention.k_proj(keys), attention)
    h, t = k.shape[1:3]
    k = k * _scale(k)
    probes = k @ attention.q_proj.weight.unflatten(0, (h, -1))
    constants = k @ attention.q_proj.bias.view(h, -1, 1)
    scores = (probes.flatten(1, 2) @ placed.mT).unflatten(1, (h, t)) + constants
    return _written(attention, scores, values)


def _written(attention: Attention, scores: Tensor, values: Tensor) -> Tensor:
    """``(N, h, T, P)`` scores of image tokens for the tokens that write ``values``, to ``(N, P, D)``."""
    weights = _attention_weights(scores).flatten(1, 2)  # with the image along the rows: vector instructions
    v = _heads(attention.v_proj(values), attention)
    out = v @ attention.out_proj.weight.unflatten(1, (v.shape[1], -1)).permute(1, 2, 0)
    return weights.mT @ out.flatten(1, 2) + attention.out_proj.bias


def _attention_weights(scores: Tensor) -> Tensor:
    """Softmax over dimension 2, with zeros for weights too small to count in a sum of float32.

    Trained attention is peaked. What it hardly looks at gets weights below the normal range of float32, and a CPU takes
    a hundred cycles for each product with one of them.
    """
    return F.threshold(scores.softmax(dim=2), 1e-20, 0.0, inplace=True)


def _heads(x: Tensor, attention: Attention) -> Tensor:
    """``(N, T, h·d)`` to ``(N, h, T, d)``."""
    return x.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)


def _scale(x: Tensor) -> float:
    return float(x.shape[-1] ** -0.5)
