"""One forward pass of a student beside its teachers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobilesam_core.config.distill import DistillConfig
from mobilesam_core.data.batch import Batch
from mobilesam_core.distillation.teacher import Teacher
from mobilesam_core.errors import UsageError
from mobilesam_core.losses.distillation import (
    FeatureDistillationLoss,
    feature_distance,
    mask_focal_dice,
    mask_kl,
    token_kl,
)
from mobilesam_core.losses.total import SegLoss
from mobilesam_core.models.features import FeatureHookManager, encoder_levels, level_shapes
from mobilesam_core.models.mask_decoder import DecoderOutput
from mobilesam_core.models.sam import Sam
from mobilesam_core.models.shared_decoder import decode_shared
from mobilesam_core.training.clicks import cells_inside, corrected


class DistillingStep(nn.Module):
    """Batch → losses by name, of which ``total`` has the gradient.

    Each image is encoded once; the student's decoder runs only where a term asks for masks. Teachers are no
    submodules: they are neither trained, nor saved, nor counted.

    Raises:
        UsageError: a level does not exist, or features, tokens or channels of student and teacher do not fit.
    """

    def __init__(self, model: Sam, loss: SegLoss, config: DistillConfig, teachers: Sequence[Teacher]) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self._config = config
        self._teachers = tuple(teachers)
        self._terms = set(config.terms)
        for teacher in teachers:
            _require_fit(model, teacher, config)
        self.feature_losses = nn.ModuleList(nn.ModuleList(_feature_losses(model, teacher)) for teacher in teachers)

    def begin_epoch(self, epoch: int) -> None:
        """Learn from what the config names for ``epoch``, counted from 0."""
        self._terms = set(self._config.terms_of(epoch))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        terms = self._terms
        losses: dict[str, Tensor] = {}
        total = torch.zeros((), device=batch.sizes.device)
        levels: Mapping[str, Tensor] = {}
        answer: _Answer | None = None
        if terms - {"prompt_embeddings"}:
            levels, embeddings = self._encode(batch)
            if terms & {"ground_truth", "masks", "tokens"}:
                answer = _Answer(
                    embeddings, decode_shared(self.model, embeddings, batch.image_index, batch.counts, batch.prompts)
                )
        if "ground_truth" in terms and answer is not None:
            values = self.loss(answer.decoded.low_res_logits, answer.decoded.iou_predictions, batch.targets)
            losses |= values._asdict()
            total = total + self._config.ground_truth * values.total
        for teacher, feature_losses in zip(self._teachers, self.feature_losses, strict=True):
            found = teacher.features(batch, self._config.levels_of(teacher.config, terms))
            parts: dict[str, Tensor] = {}
            if "features" in terms and teacher.config.features:
                parts["features"] = self._features(teacher, feature_losses, levels, found, batch)  # type: ignore[arg-type]
            if answer is not None and terms & {"masks", "tokens"}:
                parts |= self._answers(teacher, found["neck"], answer, batch)
            if "prompt_embeddings" in terms:
                parts["prompt_embeddings"] = self._prompt_embeddings(teacher, batch)
            losses |= {f"{teacher.name}_{name}": value.detach() for name, value in parts.items()}
            if parts:
                total = total + teacher.config.weight * _sum(list(parts.values()))
        return losses | {"total": total}

    def _encode(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """The student's levels that this epoch compares, and its embeddings."""
        pairs = [pair for each in self._config.teachers for pair in each.features] if "features" in self._terms else []
        wanted = list(dict.fromkeys(pair.student for pair in pairs))
        with FeatureHookManager(self.model.image_encoder, wanted) as kept:
            embeddings = self.model.encode(self.model.preprocess(batch.images, batch.sizes))
            return {level: kept[level] for level in wanted}, embeddings

    def _features(
        self,
        teacher: Teacher,
        losses: Iterable[nn.Module],
        ours: Mapping[str, Tensor],
        theirs: Mapping[str, Tensor],
        batch: Batch,
    ) -> Tensor:
        """Weighted sum over the pairs of levels.

        Where stored features were moved along with the image, what they have beside it belongs to nothing.
        """
        moved = teacher.config.store is not None and self._config.geometry == "features"
        distances = []
        for pair, loss in zip(teacher.config.features, losses, strict=True):
            wanted = theirs[pair.teacher]
            valid = cells_inside(batch.sizes, wanted.shape[-1], batch.images.shape[-1]) if moved else None
            distances.append(pair.weight * loss(ours[pair.student], wanted, valid))
        return _sum(distances)

    def _answers(self, teacher: Teacher, seen: Tensor, answer: _Answer, batch: Batch) -> dict[str, Tensor]:
        """Weighted distances of masks and tokens: mean over the rounds of prompts."""
        parts: dict[str, list[Tensor]] = {}
        prompts, decoded = batch.prompts, answer.decoded
        masks = self._config.masks if "masks" in self._terms else None
        rounds = 0 if masks is None else masks.rounds
        for number in range(1 + rounds):
            wanted = teacher.decode(seen, batch, prompts)
            if "tokens" in self._terms and self._config.tokens is not None:
                tokens = self._config.tokens
                distance = token_kl(decoded.mask_tokens, wanted.mask_tokens, tokens.temperature)
                parts.setdefault("tokens", []).append(tokens.weight * distance)
            if masks is not None:
                logits = _resized(wanted.low_res_logits, decoded.low_res_logits)
                if masks.loss == "kl":
                    distance = mask_kl(decoded.low_res_logits, logits, masks.temperature).mean()
                else:
                    distance = mask_focal_dice(decoded.low_res_logits, logits).mean()
                scores = F.mse_loss(decoded.iou_predictions.float(), wanted.iou_predictions.float())
                parts.setdefault("masks", []).append(masks.weight * distance + masks.iou * scores)
                if number < rounds:
                    found, sought = decoded.low_res_logits[:, 0] > 0, logits[:, 0] > 0
                    sizes = batch.sizes[batch.image_index]
                    prompts = corrected(prompts, found, sought, sizes, self.model.image_size)
                    decoded = decode_shared(self.model, answer.embeddings, batch.image_index, batch.counts, prompts)
        return {name: torch.stack(values).mean() for name, values in parts.items()}

    def _prompt_embeddings(self, teacher: Teacher, batch: Batch) -> Tensor:
        term = self._config.prompt_embeddings
        assert term is not None
        ours = self.model.prompt_encoder.embed_tokens(batch.prompts.points, batch.prompts.labels)
        theirs = teacher.prompt_embeddings(batch)
        return term.mse * feature_distance(ours, theirs, "mse", -1) + term.cosine * feature_distance(
            ours, theirs, "cosine", -1
        )


class _Answer(NamedTuple):
    """What the student makes of a batch."""

    embeddings: Tensor
    decoded: DecoderOutput


def _feature_losses(model: Sam, teacher: Teacher) -> list[FeatureDistillationLoss]:
    pairs = teacher.config.features
    ours = level_shapes(model.image_encoder, [pair.student for pair in pairs], model.image_size)
    theirs = level_shapes(teacher.model.image_encoder, [pair.teacher for pair in pairs], teacher.model.image_size)
    known = encoder_levels(model.image_encoder)
    losses = []
    for pair in pairs:
        try:
            losses.append(
                FeatureDistillationLoss(
                    ours[pair.student],
                    theirs[pair.teacher],
                    pair.loss,
                    resize=pair.resize,
                    student_layout=known[pair.student][1],
                )
            )
        except UsageError as error:
            raise UsageError(
                f"{teacher.name}, {pair.teacher} → {pair.student}: {error.message}", error.remedy
            ) from error
    return losses


def _require_fit(model: Sam, teacher: Teacher, config: DistillConfig) -> None:
    """Raise a UsageError where images, tokens or positions of student and teacher cannot be compared."""
    ours, theirs = (
        (sam.config.encoder.input_channels, sam.prompt_encoder.no_mask_embed.weight.shape[1])
        for sam in (model, teacher.model)
    )
    if ours[0] != theirs[0]:
        raise UsageError(
            f"The student takes images of {ours[0]} channels, {teacher.name} of {theirs[0]}.",
            "Choose a teacher of the same channels, or change model.encoder.input_channels.",
        )
    if ours[1] != theirs[1] and (config.tokens or config.prompt_embeddings):
        raise UsageError(
            f"The student's tokens are {ours[1]} wide, those of {teacher.name} {theirs[1]}: they cannot be compared.",
            "Leave distill.tokens and distill.prompt_embeddings out; distill.masks compares any two models.",
        )
    if config.prompt_embeddings is None:
        return
    # The random frequencies that positions are written in: made once, never learnt.
    frequencies, wanted = (
        sam.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.cpu() for sam in (model, teacher.model)
    )
    if not torch.allclose(frequencies, wanted, rtol=1e-3):
        raise UsageError(
            f"Positions are encoded by other frequencies in the student than in {teacher.name}, and no training "
            "changes them: embeddings of prompts cannot become alike.",
            "Set distill.copy_decoder, start from weights of the teacher's family, or leave "
            "distill.prompt_embeddings out.",
        )


def _resized(logits: Tensor, like: Tensor) -> Tensor:
    if logits.shape[-2:] == like.shape[-2:]:
        return logits
    return F.interpolate(logits.float(), like.shape[-2:], mode="bilinear", align_corners=False)


def _sum(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).sum()
