"""The mask decoder for the prompts of training images: the same numbers, and gradients, with a fraction of the work.

All prompts of an image share its tokens, which are many (P, 4096 for ``vit_t``) and wide (D), while a prompt has few
(T, 7 for a point or a box). So what the first block computes from the image alone is computed once, and later on the
image's projections are absorbed into the tokens (:class:`~mobilesam_core.models.attention.Reading`). For hundreds of
prompts on one image, without gradients, :mod:`~mobilesam_core.models.factored_decoder` goes further.

Letters of shapes: N prompts, T tokens of each, h heads of width d, P image tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mobilesam_core.models.attention import Attention, Reading, Spreading, Writing, attend, scale_of
from mobilesam_core.models.mask_decoder import DecoderOutput
from mobilesam_core.models.sam import Sam
from mobilesam_core.prompts.tensors import PromptTensors


@dataclass(frozen=True)
class Answers:
    """What the decoder says of N prompts before any mask is drawn.

    iou_predictions: ``(N, 4)``. filters: ``(N, 4, D/8)``. image: ``(N, P, D)``. tokens: ``(N, 1 + 4 + T, D)``.
    """

    iou_predictions: Tensor
    filters: Tensor
    image: Tensor
    tokens: Tensor


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
        self._first_keys = read.split(read.k_proj(placed))[0]
        self._first_values = read.split(read.v_proj(self._image))[0]
        self._first_queries = write.split(write.q_proj(placed))[0]

    def __call__(self, prompts: PromptTensors) -> Answers:
        """The answers to N prompts, in pixels of the input frame, none of which has a mask."""
        asked = self._prompt_encoder.embed_tokens(prompts.points, prompts.labels)
        positions, mask = self._decoder.with_own_tokens(asked, prompts.absent)
        transformer = self._decoder.transformer
        first, second = transformer.layers
        tokens = first.norm1(first.self_attn(positions, positions, positions, mask))
        tokens = first.norm2(tokens + self._read_first(first.cross_attn_token_to_image, tokens + positions))
        tokens = first.norm3(tokens + first.mlp(tokens))
        image = first.norm4(
            self._image + self._write_first(first.cross_attn_image_to_token, tokens + positions, tokens, mask)
        )

        tokens = second.norm1(tokens + second.self_attn(tokens + positions, tokens + positions, tokens, mask))
        placed = image + self._positions
        seen = Reading(second.cross_attn_token_to_image, tokens + positions)(placed, image)
        tokens = second.norm2(tokens + seen)
        tokens = second.norm3(tokens + second.mlp(tokens))
        writing = Writing(second.cross_attn_image_to_token, tokens + positions, tokens, mask)
        image = second.norm4(image + writing(placed))

        seen = Reading(transformer.final_attn_token_to_image, tokens + positions)(image + self._positions, image)
        tokens = transformer.norm_final_attn(tokens + seen)
        filters, iou_predictions = self._decoder.read_tokens(tokens)
        return Answers(iou_predictions, filters, image, tokens)

    def _read_first(self, attention: Attention, queries: Tensor) -> Tensor:
        """The first block's tokens read the image that all prompts share: all their queries at once."""
        n, t = queries.shape[:2]
        q = attention.split(attention.q_proj(queries)).transpose(0, 1).flatten(1, 2)
        out = attend(q[None], self._first_keys[None], self._first_values[None])[0]
        return attention.out_proj(out.unflatten(1, (n, t)).permute(1, 2, 0, 3).flatten(2))

    def _write_first(self, attention: Attention, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """The first block's tokens write: the queries of the image are those that all prompts share."""
        n, t = keys.shape[:2]
        k = attention.split(attention.k_proj(keys)).transpose(0, 1).flatten(1, 2)
        scores = ((k * scale_of(k)) @ self._first_queries.mT).unflatten(1, (n, t)).transpose(0, 1)
        return Spreading(attention, values, mask)(scores)


def decode_shared(
    model: Sam, embeddings: Tensor, image_index: Tensor, counts: Sequence[int], prompts: PromptTensors
) -> DecoderOutput:
    """As :meth:`Sam.decode`, with gradients, and with what the prompts of an image share computed once.

    Prompts with masks share nothing and are decoded each on its own.

    image_index: ``(N,)`` int64, ascending. counts: how many prompts each image has; known here, since asking a device
    would mean waiting for it.
    """
    if prompts.masks is not None:
        return model.decode(embeddings, image_index, prompts)
    outputs = []
    start = 0
    for number, count in enumerate(counts):
        if count:
            own = slice(start, start + count)
            answers = SharedImageDecoder(model, embeddings[number : number + 1])(
                PromptTensors(prompts.points[own], prompts.labels[own])
            )
            outputs.append(answers)
        start += count
    names = ("image", "filters", "iou_predictions", "tokens")
    image, filters, scores, tokens = (torch.cat([getattr(each, name) for each in outputs]) for name in names)
    return DecoderOutput(model.mask_decoder.draw_masks(image, filters), scores, tokens)
