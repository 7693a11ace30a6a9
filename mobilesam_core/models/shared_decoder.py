"""The mask decoder for many prompts on one image: the same numbers with a fraction of the work.

All prompts of an image share its tokens, which are many (P, 4096 for ``vit_t``) and wide (D), while a prompt has few
(T, 7 for a point or a box). So:

- what the first block computes from the image alone is computed once;
- later on the image's projections are absorbed into the tokens
  (:meth:`~mobilesam_core.models.transformer.Attention.read`);
- masks are drawn for those prompts alone whose predicted IoU is worth it.

Letters of shapes: N prompts, T tokens of each, h heads of width d, P image tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mobilesam_core.models.mask_decoder import DecoderOutput
from mobilesam_core.models.sam import Sam
from mobilesam_core.models.transformer import Attention, attend, scale_of
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
        first, *others = transformer.layers
        tokens = first.norm1(first.self_attn(positions, positions, positions, mask))
        tokens = first.norm2(tokens + self._read_first(first.cross_attn_token_to_image, tokens + positions))
        tokens = first.norm3(tokens + first.mlp(tokens))
        written = self._write_first(first.cross_attn_image_to_token, tokens + positions, tokens, mask)
        image = first.norm4(self._image + written)
        for block in others:
            placed = image + self._positions
            tokens = block.norm1(tokens + block.self_attn(tokens + positions, tokens + positions, tokens, mask))
            tokens = block.norm2(tokens + block.cross_attn_token_to_image.read(tokens + positions, placed, image))
            tokens = block.norm3(tokens + block.mlp(tokens))
            write = block.cross_attn_image_to_token.write
            image = block.norm4(image + write(placed, tokens + positions, tokens, mask))
        last = transformer.final_attn_token_to_image.read(tokens + positions, image + self._positions, image)
        tokens = transformer.norm_final_attn(tokens + last)
        filters, iou_predictions = self._decoder.read_tokens(tokens)
        return Answers(iou_predictions, filters, image, tokens)

    def draw_masks(self, answers: Answers, prompts: Tensor, outputs: Tensor) -> Tensor:
        """The ``(M, 4g, 4g)`` logits of M masks: output ``outputs[i]`` (0 to 3) of prompt ``prompts[i]``, each
        ``(M,)`` int64."""
        rows, places = prompts.unique(return_inverse=True)
        return self._decoder.draw_masks(answers.image[rows], answers.filters[rows])[places, outputs]

    def _read_first(self, attention: Attention, queries: Tensor) -> Tensor:
        """The first block's tokens read the image that all prompts share: all their queries at once."""
        n, t = queries.shape[:2]
        q = attention.split(attention.q_proj(queries)).transpose(0, 1).flatten(1, 2)
        out = attend(q[None], self._first_keys[None], self._first_values[None])[0]
        return attention.out_proj(out.unflatten(1, (n, t)).permute(1, 2, 0, 3).flatten(2))

    def _write_first(self, attention: Attention, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        n, t = keys.shape[:2]
        k = attention.split(attention.k_proj(keys)).transpose(0, 1).flatten(1, 2)
        scores = (k * scale_of(k)) @ self._first_queries.mT
        return attention.written(scores.unflatten(1, (n, t)).transpose(0, 1), values, mask)


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
