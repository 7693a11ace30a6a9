"""The mask decoder for very many prompts on one image: the same numbers with half of the work.

What T tokens write into an image is, at each of its P places, a weighted sum of few rows: one for each head and token.
So the decoder's image tokens, P x D for every prompt, need not be made at all. Up to a gain and a bias they are

    ((u + A₀ᵀ C₀) s₀ + A₁ᵀ C₁) s₁

with u the image's own tokens, which all prompts share; A ``(hT, P)`` the weights and C ``(hT, D)`` the rows of what the
first and the second block wrote; s ``(P,)`` what the normalisation after each multiplied with. What is linear in image
tokens follows from u, once an image, and from C, hT rows instead of P places. The variance that a normalisation asks
for follows from the products of u with C and of C with itself.

Letters of shapes: N prompts, T tokens of each, h heads of width d, P image tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobilesam_core.models.attention import Attention, attention_weights, scale_of
from mobilesam_core.models.lora_linear import matrix_of
from mobilesam_core.models.mask_decoder import pieces
from mobilesam_core.models.sam import Sam
from mobilesam_core.prompts.tensors import PromptTensors


class Spread(NamedTuple):
    """Where n prompts wrote in one block.

    weights: ``(n, hT, P)``, how much of each row is written at each place. scale: ``(n, 1, P)``, what the image is
    multiplied with then.
    """

    weights: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Written:
    """What N prompts wrote into the image, block by block.

    values: ``(N, h, T, d + 1)`` each, what a head writes of a token, and a 1 for what it writes in any case.
    rows: ``(N, hT, D)`` each, the same projected, with a mean of 0.
    spreads: for one group of prompts after the other, where.
    """

    values: list[Tensor]
    rows: list[Tensor]
    spreads: list[list[Spread]]


@dataclass(frozen=True)
class FactoredAnswers:
    """What the decoder says of N prompts before any mask is drawn.

    iou_predictions: ``(N, 4)``. filters: ``(N, 4, D/8)``. tokens: ``(N, 1 + 4 + T, D)``.
    """

    iou_predictions: Tensor
    filters: Tensor
    tokens: Tensor
    written: Written


class FactoredDecoder:
    """Decodes any number of prompts on the image of ``embedding``, ``(1, D, g, g)``, without mask prompts or gradients.

    It first computes what prompts share, which takes as long as some six of them.
    """

    @torch.no_grad()
    def __init__(self, model: Sam, embedding: Tensor) -> None:
        self._prompt_encoder, self._decoder = model.prompt_encoder, model.mask_decoder
        # A CPU takes one prompt after the other through the image, so that what is computed of it stays in the caches.
        self._group = 1 if embedding.device.type == "cpu" else None
        none = model.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        image = (embedding + none).flatten(2).mT[0].contiguous()
        positions = model.prompt_encoder.get_dense_pe().flatten(2).mT[0]
        transformer = self._decoder.transformer
        first, second = transformer.layers

        start = _Stage(image)
        self._read_first = _Reader(first.cross_attn_token_to_image, start, positions)
        self._write_first = _Writer(first.cross_attn_image_to_token, start, positions)
        middle = _Stage(start.shared, first.norm4, [self._write_first])
        self._read_second = _Reader(second.cross_attn_token_to_image, middle, positions)
        self._write_second = _Writer(second.cross_attn_image_to_token, middle, positions)
        end = _Stage(middle.shared, second.norm4, [self._write_first, self._write_second])
        self._read_last = _Reader(transformer.final_attn_token_to_image, end, positions)
        self._middle, self._end = middle, end
        self._split_weight, split_bias = self._decoder.split_layer
        self._split = F.linear(end.shared, self._split_weight)
        self._split_bias = F.linear(end.bias, self._split_weight, split_bias)

    @torch.no_grad()
    def __call__(self, prompts: PromptTensors) -> FactoredAnswers:
        """The answers to N prompts, in pixels of the input frame, none of which has a mask."""
        asked = self._prompt_encoder.embed_tokens(prompts.points, prompts.labels)
        positions, mask = self._decoder.with_own_tokens(asked, prompts.absent)
        transformer = self._decoder.transformer
        first, second = transformer.layers
        written = Written([], [], [[] for _ in positions.split(self._group or len(positions))])

        tokens = first.norm1(first.self_attn(positions, positions, positions, mask))
        tokens = first.norm2(tokens + self._read_first(tokens + positions, written))
        tokens = first.norm3(tokens + first.mlp(tokens))
        written = self._write_first(tokens + positions, tokens, mask, written, self._middle)

        tokens = second.norm1(tokens + second.self_attn(tokens + positions, tokens + positions, tokens, mask))
        tokens = second.norm2(tokens + self._read_second(tokens + positions, written))
        tokens = second.norm3(tokens + second.mlp(tokens))
        written = self._write_second(tokens + positions, tokens, mask, written, self._end)

        tokens = transformer.norm_final_attn(tokens + self._read_last(tokens + positions, written))
        filters, iou_predictions = self._decoder.read_tokens(tokens)
        return FactoredAnswers(iou_predictions, filters, tokens, written)

    @torch.no_grad()
    def draw_masks(self, answers: FactoredAnswers, prompts: Tensor, outputs: Tensor) -> Tensor:
        """The ``(M, 4g, 4g)`` logits of M masks: output ``outputs[i]`` (0 to 3) of prompt ``prompts[i]``, each
        ``(M,)`` int64."""
        wanted, places = prompts.unique(return_inverse=True)
        rows = torch.cat(answers.written.rows, dim=1)[wanted] * self._end.gain @ self._split_weight.mT
        filters = answers.filters[wanted]
        drawn = [filters.new_empty(0, filters.shape[1], len(self._split), 16)]
        first = done = 0
        for spreads in answers.written.spreads:
            count = len(spreads[0].scale)
            own = wanted[(wanted >= first) & (wanted < first + count)] - first
            first += count
            if len(own):
                if len(own) < count:
                    spreads = [Spread(each.weights[own], each.scale[own]) for each in spreads]
                at = slice(done, done + len(own))
                drawn.append(self._draw(spreads, rows[at], filters[at]))
                done += len(own)
        return self._decoder.arrange(torch.cat(drawn)[places, outputs])

    def _draw(self, spreads: Sequence[Spread], rows: Tensor, filters: Tensor) -> Tensor:
        """``(n, 4, P, 16)`` logits of rows that are split, ``(n, R, D)``."""
        parts = []
        for at in pieces(self._split, len(filters)):
            scale, weights = torch.ones_like(spreads[-1].scale[..., at]), []
            for each in reversed(spreads):
                scale = scale * each.scale[..., at]
                weights.append(each.weights[..., at] * scale)
            shared = torch.addcmul(self._split_bias, self._split[at], scale.mT)
            split = shared.baddbmm_(torch.cat(weights[::-1], dim=1).mT, rows)
            parts.append(self._decoder.finish(split, filters))
        return torch.cat(parts, dim=2)


class _Stage:
    """The image between blocks: ``gain * y + bias``, with y its factored form, of which u is shared by all prompts.

    shared: ``(P, D)``, ``gain * u``. gain, bias: ``(D,)``.

    Args:
        image: ``shared`` of the stage before; the image's own tokens, ``(P, D)``, for the first.
        norm: that the image has come through since.
        writers: that have written in it before that, since the first stage.
    """

    def __init__(self, image: Tensor, norm: nn.LayerNorm | None = None, writers: Sequence[_Writer] = ()) -> None:
        self.written = norm is not None
        if norm is None:
            self.shared, self.gain, self.bias = image, torch.ones_like(image[0]), torch.zeros_like(image[0])
            return
        image = _centred(image)
        self.shared, self.gain, self.bias, self._eps = norm.weight * image, norm.weight, norm.bias, norm.eps
        self._energy = image.float().square().sum(dim=1)
        # What earlier blocks wrote has come through the gains since: here the image goes through them instead.
        self._products: list[Tensor] = []
        for writer in reversed(writers):
            self._products.insert(0, writer.products(image))
            image = _centred(writer.stage.gain * image)

    def scale(
        self, values: Sequence[Tensor], mixes: Sequence[Sequence[Tensor]], before: Sequence[Spread], weights: Tensor
    ) -> Tensor:
        """``(n, 1, P)``, the inverse standard deviation of the image once ``weights`` of what is written last are, too.

        values: as :class:`Written` has them. mixes: products of the rows of each block with those of every block up to
        it, ``(n, hT, hT)``.
        """
        energy = self._energy
        for number, (products, value, mix) in enumerate(zip(self._products, values, mixes, strict=True)):
            own = before[number].weights if number < len(before) else weights
            crossed = _nested(_by_head(value, products), mix[:number], before[:number])
            crossed = crossed.baddbmm_(mix[number], own, beta=2).mul_(own)
            energy = energy + crossed.sum(dim=1, keepdim=True, dtype=torch.float32)
            if number < len(before):
                energy = energy * before[number].scale.float().square()
        variance = (energy / len(self.gain)).clamp_min(0)  # rounding may leave less than nothing
        return (variance + self._eps).rsqrt().to(self.gain.dtype)


class _Projection:
    """One of an attention's projections of the image with its positions, which few probes ask for."""

    def __init__(self, layer: nn.Linear, heads: int, stage: _Stage, positions: Tensor) -> None:
        self._weight, self._gain = matrix_of(layer).unflatten(0, (heads, -1)), stage.gain
        # Until something is written, no scale comes between the image and its positions.
        placed = positions + (stage.bias if stage.written else stage.shared)
        self._placed = _heads_first(layer(placed), heads)
        self._shared = _heads_first(F.linear(stage.shared, matrix_of(layer)), heads) if stage.written else None

    def mixes(self, probes: Tensor, rows: Sequence[Tensor]) -> list[Tensor]:
        """Scores of ``(N, h, T, d)`` probes for the rows of each block, ``(N, hT, hT)``."""
        absorbed = (probes @ self._weight).flatten(1, 2) * self._gain
        return [absorbed @ each.mT for each in rows]

    def scores(self, probes: Tensor, mixes: Sequence[Tensor], spreads: Sequence[Spread]) -> Tensor:
        """Of n of the probes with their mixes, and where those rows are: ``(n, hT, P)``."""
        placed = _by_head(probes, self._placed)
        if self._shared is None:
            return placed
        return _nested(_by_head(probes, self._shared), mixes, spreads).add_(placed)


class _Reader:
    """Tokens read the image: ``attention(queries, image + positions, image)``."""

    def __init__(self, attention: Attention, stage: _Stage, positions: Tensor) -> None:
        self._attention, self._stage = attention, stage
        self._keys = _Projection(attention.k_proj, attention.num_heads, stage, positions)
        weight = matrix_of(attention.v_proj)
        self._weight = weight.unflatten(0, (attention.num_heads, -1)).mT
        self._values = _heads_first(F.linear(stage.shared, weight), attention.num_heads).mT
        self._constant = attention.v_proj(stage.bias).view(attention.num_heads, 1, -1)

    def __call__(self, queries: Tensor, written: Written) -> Tensor:
        """``(N, T, D)`` to ``(N, T, D)``."""
        probes = self._attention.split(self._attention.q_proj(queries))
        probes = probes * scale_of(probes)
        mixes = self._keys.mixes(probes, written.rows)
        looks = [
            self._look(probes[part], [each[part] for each in mixes], spreads)
            for part, spreads in _groups(len(probes), written)
        ]
        seen = torch.cat([shared for shared, _ in looks])
        if written.rows:
            own = [torch.cat(each) for each in zip(*(shares for _, shares in looks), strict=True)]
            rows = sum(share @ each for share, each in zip(own, written.rows, strict=True)) * self._stage.gain
            seen = seen + rows.unflatten(1, probes.shape[1:3]) @ self._weight
        return self._attention.out_proj((seen + self._constant).transpose(1, 2).flatten(2))

    def _look(self, probes: Tensor, mixes: Sequence[Tensor], spreads: Sequence[Spread]) -> tuple[Tensor, list[Tensor]]:
        """What is seen of what all prompts share, ``(n, h, T, d)``; how much of each block's rows, ``(n, hT, hT)``."""
        weights = attention_weights(self._keys.scores(probes, mixes, spreads))
        shares = []
        for each in reversed(spreads):
            weights = weights.mul_(each.scale)
            shares.append(_over_places(weights, each.weights))
        n, heads, t = probes.shape[:3]
        by_head = weights.unflatten(1, (heads, t)).transpose(0, 1).flatten(1, 2)
        return torch.bmm(by_head, self._values).unflatten(1, (n, t)).transpose(0, 1), shares[::-1]


class _Writer:
    """Tokens write into the image: what comes of ``image + attention(image + positions, keys, values)``.

    stage: of the image before.
    """

    def __init__(self, attention: Attention, stage: _Stage, positions: Tensor) -> None:
        self._attention, self.stage = attention, stage
        heads = attention.num_heads
        self._queries = _Projection(attention.q_proj, heads, stage, positions)
        # The weights of a head add up to 1 at each place. So what is added to all places may be a part of the rows.
        always = ((attention.out_proj.bias + stage.bias) / heads).expand(heads, 1, -1)
        self._out = torch.cat([matrix_of(attention.out_proj).mT.unflatten(0, (heads, -1)), always], dim=1)

    def products(self, image: Tensor) -> Tensor:
        """Of ``(P, D)`` with the rows of values: ``(h, d + 1, P)``."""
        return self._out @ image.mT

    def __call__(self, keys: Tensor, values: Tensor, mask: Tensor | None, written: Written, after: _Stage) -> Written:
        """What is written once ``(N, T, D)`` values are, too, normalised to the stage ``after``.

        mask: ``(N, 1, 1, T)`` bool, which of them count.
        """
        attention = self._attention
        probes = attention.split(attention.k_proj(keys))
        probes = probes * scale_of(probes)
        asked = self._queries.mixes(probes, written.rows)
        new = F.pad(attention.split(attention.v_proj(values)), (0, 1), value=1.0)
        every = [*written.values, new]
        rows = [_centred(self.stage.gain * each) for each in written.rows]
        rows.append(_centred((new @ self._out).flatten(1, 2)))
        mixes = [[own @ each.mT for each in rows[: i + 1]] for i, own in enumerate(rows)]
        spreads = []
        for part, before in _groups(len(probes), written):
            scores = self._queries.scores(probes[part], [each[part] for each in asked], before)
            scores = scores.unflatten(1, probes.shape[1:3])
            if mask is not None:
                scores = scores.masked_fill(~mask[part].mT, float("-inf"))
            weights = attention_weights(scores).flatten(1, 2)
            own_mixes = [[each[part] for each in of_block] for of_block in mixes]
            scale = after.scale([each[part] for each in every], own_mixes, before, weights)
            spreads.append([*before, Spread(weights, scale)])
        return Written(every, rows, spreads)


def _nested(scores: Tensor, mixes: Sequence[Tensor], spreads: Sequence[Spread]) -> Tensor:
    """``(n, R, P)`` scores for what all prompts share, to those for what is written there, too; in place.

    mixes: scores for the rows of each block, ``(n, R, hT)``.
    """
    for mix, spread in zip(mixes, spreads, strict=True):
        scores = scores.baddbmm_(mix, spread.weights).mul_(spread.scale)
    return scores


def _groups(prompts: int, written: Written) -> Iterator[tuple[slice, list[Spread]]]:
    """Of each group which of all prompts it is, and where they wrote."""
    size = -(-prompts // len(written.spreads))
    for number, spreads in enumerate(written.spreads):
        yield slice(number * size, (number + 1) * size), spreads


def _by_head(probes: Tensor, table: Tensor) -> Tensor:
    """``(N, h, T, d)`` probes and an ``(h, d, P)`` table, to ``(N, hT, P)``."""
    n, t = probes.shape[0], probes.shape[2]
    product = torch.bmm(probes.transpose(0, 1).flatten(1, 2), table)
    return product.unflatten(1, (n, t)).transpose(0, 1).flatten(1, 2)


def _over_places(a: Tensor, b: Tensor) -> Tensor:
    """``(N, R, P)`` and ``(N, S, P)`` to ``(N, R, S)``."""
    # Of a batch in bfloat16, torch would copy what is transposed.
    return (a[0] @ b[0].mT)[None] if len(a) == 1 else a @ b.mT


def _heads_first(x: Tensor, heads: int) -> Tensor:
    """``(P, hd)`` to ``(h, d, P)``."""
    return x.mT.unflatten(0, (heads, -1)).contiguous()


def _centred(x: Tensor) -> Tensor:
    """Less its mean over the last dimension."""
    return x - x.mean(dim=-1, keepdim=True)
