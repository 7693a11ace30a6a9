"""One forward pass of a student beside its teachers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
from mobilesam_core.prompts.correction import next_click
from mobilesam_core.prompts.tensors import PromptTensors, add_clicks


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
        self._levels = list(dict.fromkeys(pair.student for teacher in teachers for pair in teacher.pairs))
        for teacher in teachers:
            _require_fit(model, teacher, config)
        self._feature_losses = {teacher.name: _feature_losses(model, teacher) for teacher in teachers}
        self.feature_losses = nn.ModuleDict(
            {name: nn.ModuleList(losses) for name, losses in self._feature_losses.items()}
        )

    def begin_epoch(self, epoch: int) -> None:
        """Learn from what the config names for ``epoch``, counted from 0."""
        self._terms = set(self._config.terms_of(epoch))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        terms = self._terms
        images = self.model.preprocess(batch.images, batch.sizes)
        with FeatureHookManager(self.model.image_encoder, self._levels if "features" in terms else []) as kept:
            embeddings = self.model.encode(images)
            levels = {level: kept[level] for level in kept.layouts}
        losses: dict[str, Tensor] = {}
        total = embeddings.new_zeros((), dtype=torch.float32)
        decoded: DecoderOutput | None = None
        if terms & {"ground_truth", "masks", "tokens"}:
            decoded = self.model.decode(embeddings, batch.image_index, batch.prompts)
        if "ground_truth" in terms and decoded is not None:
            values = self.loss(decoded.low_res_logits, decoded.iou_predictions, batch.targets)
            losses |= values._asdict()
            total = total + self._config.ground_truth * values.total
        for teacher in self._teachers:
            found = teacher.features(batch) if terms & {"features", "masks", "tokens"} else {}
            parts: dict[str, Tensor] = {}
            if "features" in terms and teacher.pairs:
                parts["features"] = self._features(teacher, levels, found)
            if decoded is not None and terms & {"masks", "tokens"}:
                parts |= self._answers(teacher, found["neck"], embeddings, decoded, batch)
            if "prompt_embeddings" in terms:
                parts["prompt_embeddings"] = self._prompt_embeddings(teacher, batch)
            losses |= {f"{teacher.name}_{name}": value.detach() for name, value in parts.items()}
            if parts:
                total = total + teacher.weight * _sum(list(parts.values()))
        return losses | {"total": total}

    def _features(self, teacher: Teacher, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum over the pairs of levels."""
        pairs = zip(teacher.pairs, self._feature_losses[teacher.name], strict=True)
        return _sum([pair.weight * loss(ours[pair.student], theirs[pair.teacher]) for pair, loss in pairs])

    def _answers(
        self, teacher: Teacher, seen: Tensor, embeddings: Tensor, decoded: DecoderOutput, batch: Batch
    ) -> dict[str, Tensor]:
        """Weighted distances of masks and tokens: mean over the rounds of prompts."""
        parts: dict[str, list[Tensor]] = {}
        prompts = batch.prompts
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
                    prompts = _corrected(prompts, decoded.low_res_logits, logits, self.model.image_size)
                    decoded = self.model.decode(embeddings, batch.image_index, prompts)
        return {name: torch.stack(values).mean() for name, values in parts.items()}

    def _prompt_embeddings(self, teacher: Teacher, batch: Batch) -> Tensor:
        term = self._config.prompt_embeddings
        assert term is not None
        ours = self.model.prompt_encoder.embed_tokens(batch.prompts.points, batch.prompts.labels)
        theirs = teacher.prompt_embeddings(batch)
        return term.mse * feature_distance(ours, theirs, "mse", -1) + term.cosine * feature_distance(
            ours, theirs, "cosine", -1
        )


@torch.no_grad()
def _corrected(prompts: PromptTensors, student: Tensor, teacher: Tensor, image_size: int) -> PromptTensors:
    """``prompts``, each with a click where the single masks of ``(N, 4, h, w)`` logits differ most."""
    masks = (torch.stack([student[:, 0], teacher[:, 0]]) > 0).cpu().numpy()
    return add_clicks(prompts, [next_click(wanted, mask) for mask, wanted in zip(*masks, strict=True)],
                      image_size / student.shape[-1])  # fmt: skip


def _feature_losses(model: Sam, teacher: Teacher) -> list[FeatureDistillationLoss]:
    ours = level_shapes(model.image_encoder, [pair.student for pair in teacher.pairs], model.image_size)
    theirs = level_shapes(
        teacher.model.image_encoder, [pair.teacher for pair in teacher.pairs], teacher.model.image_size
    )
    known = encoder_levels(model.image_encoder)
    losses = []
    for pair in teacher.pairs:
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
    """Raise a UsageError where tokens or images of student and teacher have different widths."""
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


def _resized(logits: Tensor, like: Tensor) -> Tensor:
    if logits.shape[-2:] == like.shape[-2:]:
        return logits
    return F.interpolate(logits.float(), like.shape[-2:], mode="bilinear", align_corners=False)


def _sum(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).sum()
