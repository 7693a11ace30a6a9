"""The mask decoder for many prompts on one image: the same numbers with a fraction of the work.

All prompts of an image share its tokens, which are many (P, 4096 for ``vit_t``) and wide (D), while a prompt has few
(T, 7 for a point or a box). So:

- what the first block computes from the image alone is computed once;
- later on the image's projections are absorbed into the tokens (:class:`~mobilesam_core.models.attention.Reading`);
- each piece of the image is written to and read at once, while it is in the caches;
- masks are drawn for those prompts alone whose predicted IoU is worth it.

Letters of shapes: N prompts, T tokens of each, h heads of width d, P image tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mobilesam_core.models.attention import Attention, Reading, Spreading, Writing, attend, scale_of
from mobilesam_core.models.mask_decoder import DecoderOutput
from mobilesam_core.models.sam import Sam
from mobilesam_core.prompts.tensors import PromptTensors

Write = Callable[[slice], Tensor]
"""From places of an image to what is written there."""

_PIECE = 1024  # image tokens


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
        on_cpu = embedding.device.type == "cpu"
        places = self._image.shape[1]
        self._pieces = [slice(start, start + _PIECE) for start in range(0, places, _PIECE)] if on_cpu else []
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
        write_first = self._writing_first(first.cross_attn_image_to_token, tokens + positions, tokens, mask)

        tokens = second.norm1(tokens + second.self_attn(tokens + positions, tokens + positions, tokens, mask))
        reading = Reading(second.cross_attn_token_to_image, tokens + positions)
        image, seen = self._pass(self._image, write_first, first.norm4, reading)
        tokens = second.norm2(tokens + seen)
        tokens = second.norm3(tokens + second.mlp(tokens))
        writing = Writing(second.cross_attn_image_to_token, tokens + positions, tokens, mask)

        reading = Reading(transformer.final_attn_token_to_image, tokens + positions)
        before = image
        image, seen = self._pass(
            before, lambda at: writing(before[:, at] + self._positions[:, at]), second.norm4, reading
        )
        tokens = transformer.norm_final_attn(tokens + seen)
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

    def _writing_first(self, attention: Attention, keys: Tensor, values: Tensor, mask: Tensor | None) -> Write:
        """The first block's tokens write: the queries of the image are those that all prompts share."""
        n, t = keys.shape[:2]
        k = attention.split(attention.k_proj(keys)).transpose(0, 1).flatten(1, 2)
        scores = ((k * scale_of(k)) @ self._first_queries.mT).unflatten(1, (n, t)).transpose(0, 1)
        spread = Spreading(attention, values, mask)
        return lambda at: spread(scores[..., at])

    def _pass(self, image: Tensor, write: Write, norm: nn.Module, reading: Reading) -> tuple[Tensor, Tensor]:
        """Tokens write into the image, and the next ones read in what comes of it: the new image, what they see.

        In pieces small enough to stay in a CPU's caches all the way: else half of the time goes into moving them.
        """
        if not (self._pieces and reading.absorbs and not torch.is_grad_enabled()):
            image = norm(image + write(slice(None)))
            return image, reading(image + self._positions, image)
        parts = []
        for piece in self._pieces:
            parts.append(norm(image[:, piece] + write(piece)))
            reading.look(parts[-1] + self._positions[:, piece], parts[-1])
        return torch.cat(parts, dim=1), reading.result()


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
