"""The ``distill:`` section: what a student learns from its teachers."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mobilesam_core.config.base import Config
from mobilesam_core.config.loss import Weight
from mobilesam_core.config.model import ModelName

Positive = Annotated[float, Field(gt=0)]
Term = Literal["ground_truth", "features", "masks", "tokens", "prompt_embeddings"]


class FeaturePair(Config):
    """A level of the teacher's image encoder, and the student's that is to be like it."""

    teacher: str = "neck"
    """``neck`` is the embedding; ``stages.N`` of vit_t and vit_nano, ``blocks.N`` of vit_b, vit_l and vit_h."""
    student: str = "neck"
    """Likewise of the student."""
    loss: Literal["mse", "l1", "smooth_l1", "cosine"] = "mse"
    """What measures the distance; ``cosine`` looks at directions alone."""
    weight: Positive = 1.0
    """Of this pair, beside all other losses."""
    resize: bool = False
    """Where the grids differ, bring the student's features to the teacher's, bilinearly."""


class TeacherConfig(Config):
    """A model to learn from."""

    checkpoint: str
    """A file, or ``official``, as in ``model.checkpoint``. No training image should be one it is judged by."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")] = "teacher"
    """What its losses are called in the log."""
    model: ModelName | None = None
    """For ``official``, and files that do not say what they are."""
    image_size: Annotated[int, Field(ge=64, multiple_of=64)] | None = None
    """Side of its input frame in pixels (null: the one its weights were made at)."""
    weight: Positive = 1.0
    """Of all its losses, beside those of other teachers."""
    features: list[FeaturePair] = []
    """Levels that the student's are to be like."""
    store: Path | None = None
    """Folder of its features of the training images, as ``mobilesam distill extract`` writes it (null: its encoder
    runs in every step)."""


class MaskTerm(Config):
    """The student's masks of the sampled prompts are to be the teacher's."""

    loss: Literal["kl", "focal_dice"] = "kl"
    """``kl`` compares probabilities; ``focal_dice`` takes the teacher's masks for the truth."""
    weight: Positive = 1.0
    """Of this loss, beside all others."""
    temperature: Positive = 1.0
    """Softens both masks before they are compared (``kl`` alone)."""
    iou: Weight = 1.0
    """Weight of the squared error to the teacher's predicted IoUs."""
    rounds: Annotated[int, Field(ge=0)] = 0
    """Further rounds in which each prompt gets one more point, in the largest region where student and teacher
    disagree."""


class TokenTerm(Config):
    """The student's mask tokens, read as distributions, are to be the teacher's."""

    weight: Positive = 1.0
    """Of this loss, beside all others."""
    temperature: Positive = 1.0
    """Softens both before they are compared."""


class PromptEmbeddingTerm(Config):
    """The student's embeddings of the sampled prompts are to be the teacher's."""

    mse: Weight = 1.0
    """Weight of the mean squared error."""
    cosine: Weight = 0.0
    """Weight of 1 - the cosine."""

    @model_validator(mode="after")
    def _something(self) -> PromptEmbeddingTerm:
        if self.mse + self.cosine <= 0:
            raise ValueError("mse and cosine cannot both be 0")
        return self


class Stage(Config):
    """Some epochs, and what is learnt from in them."""

    epochs: Annotated[int, Field(ge=1)]
    """How many it lasts."""
    terms: Annotated[list[Term], Field(min_length=1)]
    """What is learnt from: any that ``distill`` sets up."""


class DistillConfig(Config):
    """Losses that compare the student, which is ``model:``, with its teachers."""

    teachers: Annotated[list[TeacherConfig], Field(min_length=1)]
    """Whom the student learns from."""
    copy_decoder: bool = False
    """Start from the first teacher's prompt encoder and mask decoder."""
    ground_truth: Weight = 1.0
    """Weight of ``loss:``, which compares with the labels; 0 learns from the teachers alone."""
    masks: MaskTerm | None = None
    """Learn the teachers' masks of the sampled prompts (null: do not)."""
    tokens: TokenTerm | None = None
    """Learn the teachers' mask tokens (null: do not)."""
    prompt_embeddings: PromptEmbeddingTerm | None = None
    """Learn the teachers' embeddings of the prompts (null: do not)."""
    geometry: Literal["off", "features"] = "off"
    """Crops, scales and flips of ``data.augment`` move what a stored feature belongs to. ``off`` allows none;
    ``features`` cuts and turns the stored features alike, which is less exact than running the teacher."""
    stages: list[Stage] = []
    """One after the other (empty: everything, always); their epochs add up to ``train.epochs``."""

    @property
    def terms(self) -> list[Term]:
        """What there is to learn from."""
        present: dict[Term, bool] = {
            "ground_truth": self.ground_truth > 0,
            "features": any(teacher.features for teacher in self.teachers),
            "masks": self.masks is not None,
            "tokens": self.tokens is not None,
            "prompt_embeddings": self.prompt_embeddings is not None,
        }
        return [term for term, there in present.items() if there]

    def terms_of(self, epoch: int) -> list[Term]:
        """What ``epoch``, counted from 0, learns from."""
        for stage in self.stages:
            if epoch < stage.epochs:
                return stage.terms
            epoch -= stage.epochs
        return self.terms

    @property
    def used_terms(self) -> list[Term]:
        """What any epoch learns from."""
        return [term for term in self.terms if not self.stages or any(term in stage.terms for stage in self.stages)]

    def levels_of(self, teacher: TeacherConfig, terms: Collection[Term] | None = None) -> list[str]:
        """The levels of ``teacher`` that ``terms`` (None: those of any epoch) need, each once."""
        terms = self.used_terms if terms is None else terms
        paired = [pair.teacher for pair in teacher.features] if "features" in terms else []
        decoded = ["neck"] if "masks" in terms or "tokens" in terms else []
        return list(dict.fromkeys([*paired, *decoded]))

    @model_validator(mode="after")
    def _consistent(self) -> DistillConfig:
        names = [teacher.name for teacher in self.teachers]
        if len(set(names)) < len(names):
            raise ValueError("each of several teachers needs a name of its own (teachers[].name)")
        stores = [teacher.store for teacher in self.teachers if teacher.store is not None]
        if len(set(stores)) < len(stores):
            raise ValueError("each of several teachers needs a store of its own (teachers[].store)")
        if self.terms in ([], ["ground_truth"]):
            raise ValueError("nothing is learnt from the teachers: give one of them features, or add masks or tokens")
        missing = [term for stage in self.stages for term in stage.terms if term not in self.terms]
        if missing:
            raise ValueError(f"stages name {missing[0]}, which distill does not set up")
        return self
