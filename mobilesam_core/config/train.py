"""The ``train:`` section and the whole tree of ``mobilesam train``."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from mobilesam_core.config.base import Config
from mobilesam_core.config.data import DataConfig
from mobilesam_core.config.distill import DistillConfig
from mobilesam_core.config.lora import LoraConfig
from mobilesam_core.config.loss import LossConfig
from mobilesam_core.config.model import ModelConfig
from mobilesam_core.config.optim import OptimConfig
from mobilesam_core.config.prompts import PromptConfig

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


def as_name(text: str, otherwise: str) -> str:
    """``text`` with what a :data:`Name` may not hold made ``-``; ``otherwise`` if nothing is left."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-") or otherwise


def _quoted(precision: Any) -> Any:
    """YAML, and ``--set``, read 32 without quotes as a number."""
    return "32" if precision == 32 else precision


TrackerName = Literal["tensorboard", "wandb", "mlflow"]

# What is passed on to others does not tell where things lie on this machine: that is for config.yaml alone.
_PRIVATE: Any = {
    "model": {"checkpoint", "adapter"},
    "data": {"root"},
    "train": {"output_dir": True, "cache": {"folder"}},
    "distill": {"teachers": {"__all__": {"checkpoint", "store"}}},
}


class FreezeConfig(Config):
    """Parts that do not learn. A frozen part stays in evaluation mode, BatchNorm included."""

    image_encoder: bool = False
    """Keep the image encoder as it is."""
    prompt_encoder: bool = False
    """Keep the prompt encoder as it is."""
    mask_decoder: bool = False
    """Keep the mask decoder as it is."""


class UnfreezeConfig(Config):
    """Epochs, counted from 1 as everywhere in what is shown, at whose start frozen parts begin to learn (null: never).

    Each of these parts is frozen in ``train.freeze`` too. The learning rate goes on as planned.
    """

    image_encoder: Annotated[int, Field(ge=2)] | None = None
    """Epoch from which the image encoder learns."""
    prompt_encoder: Annotated[int, Field(ge=2)] | None = None
    """Epoch from which the prompt encoder learns."""
    mask_decoder: Annotated[int, Field(ge=2)] | None = None
    """Epoch from which the mask decoder learns."""


class ValidationConfig(Config):
    """What is measured after each epoch, with fixed prompts: each object's box, and one point at its centre."""

    every: Annotated[int, Field(ge=1)] = 1
    """Epochs between validations; the last epoch is always validated."""
    max_images: Annotated[int, Field(ge=1)] | None = None
    """Validate on at most so many images, evenly spread (null: all)."""
    max_objects: Annotated[int, Field(ge=1)] | None = None
    """At most so many objects an image, evenly spread (null: all)."""
    metric: Literal["miou", "box_miou", "point_miou", "loss"] = "miou"
    """What ``best`` means: ``miou`` is the mean of box and one-point mIoU."""
    overlays: Annotated[int, Field(ge=0)] = 4
    """Pictures of so many validation images each time, and of so many of the objects that came out worst."""
    before: bool | None = None
    """Measure the start weights too, so that the gain shows (null: unless they are random)."""
    everything: Annotated[int, Field(ge=0)] = 4
    """At the end, find everything in so many validation images, evenly spread, and save with the weights by which
    thresholds that works best (0: not)."""
    agreement: bool = True
    """When distilling, compare with the first teacher's masks too: its encoder sees every validation image each
    time."""


class CacheConfig(Config):
    """Embeddings of a frozen image encoder: made once, then read in every epoch, which trains the decoder alone."""

    use: Literal["auto", "always", "never"] = "auto"
    """``auto``: wherever it changes nothing, which is when the encoder is frozen and images are always seen alike, or
    in ``views``; ``always``: or else refuse to start."""
    views: Annotated[int, Field(ge=1)] | None = None
    """With augmentation: draw so many views of each image, and show them in turn (null: new ones in every epoch, so
    there is no cache)."""
    folder: Path | None = None
    """Where they are kept, in float16; may hold what ``mobilesam embed`` made with the same weights (null: in the
    run's folder, until the run is finished)."""


class RunConfig(Config):
    """How long, on what, and where to."""

    project: Name = "mobilesam"
    """Folder of runs that belong together."""
    run: Name = "run"
    """Folder of this run in it."""
    output_dir: Path = Path("runs")
    """Results go to ``output_dir/project/run/``."""
    on_taken: Literal["refuse", "number"] = "refuse"
    """When that folder holds a run already: refuse to start, or add a number to the name."""
    epochs: Annotated[int, Field(ge=1)] = 10
    """How often all of ``data.train`` is seen."""
    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Stop after so many optimizer steps, even inside an epoch; the learning rate is planned for it."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of everything random: new weights, order, augmentation, prompts."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """``auto`` is CUDA where there is a device for it, else the CPU."""
    devices: Annotated[int, Field(ge=1)] | None = None
    """Processes that share the work on this machine, each with a GPU of its own or its part of the CPU's cores (null:
    one, or as many as ``torchrun`` or ``srun`` started)."""
    strategy: Literal["ddp"] = "ddp"
    """How they share it: each has the whole model and its part of every batch (distributed data parallel)."""
    precision: Annotated[Literal["32", "bf16", "fp16"], BeforeValidator(_quoted)] = "32"
    """``bf16`` and ``fp16`` are mixed precision: weights stay in float32."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads of the step (null: all cores)."""
    freeze: FreezeConfig = FreezeConfig()
    unfreeze: UnfreezeConfig = UnfreezeConfig()
    batch_norm: Literal["frozen", "train"] | None = None
    """BatchNorm of the parts that learn: keep its statistics, or update them (null: ``frozen`` when starting
    from weights, ``train`` from random ones)."""
    gradient_checkpointing: bool = False
    """Keep no inner values of the image encoder's blocks for the gradients but compute them again: less memory for a
    longer step, and the same weights."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Validate and save not the weights but their moving average, of which each step keeps this share; 0.999 forgets
    within some thousand steps (null: the weights themselves)."""
    cache: CacheConfig = CacheConfig()
    validation: ValidationConfig = ValidationConfig()
    checkpoint_every: Annotated[int, Field(ge=1)] | None = None
    """Also keep ``step_N`` every so many optimizer steps."""
    checkpoint_dtype: Literal["float32", "float16"] = "float32"
    """What ``best``, ``last`` and ``step_N`` are stored as; ``float16`` halves the files. Training, its state and the
    figures of its validations stay in float32."""
    early_stop: Annotated[int, Field(ge=1)] | None = None
    """Stop after so many validations without an improvement."""
    log_every: Annotated[int, Field(ge=1)] = 10
    """Optimizer steps between two lines of ``metrics.jsonl``."""
    loggers: list[TrackerName] | None = None
    """Who is told the metrics besides ``metrics.jsonl`` (null: TensorBoard, if it is installed)."""

    @model_validator(mode="after")
    def _unfreezes_what_is_frozen(self) -> RunConfig:
        for part, epoch in self.unfreezing.items():
            if not getattr(self.freeze, part):
                raise ValueError(f"unfreeze.{part} is {epoch}, but freeze.{part} is false: it learns from the start")
            if epoch > self.epochs:
                raise ValueError(f"unfreeze.{part} is epoch {epoch}, and the run ends with epoch {self.epochs}")
        return self

    @property
    def unfreezing(self) -> dict[str, int]:
        """The parts that begin to learn later, and the epochs (from 1) at which they do."""
        return {part: epoch for part, epoch in self.unfreeze if epoch is not None}

    def frozen_in(self, epoch: int) -> set[str]:
        """The parts that do not learn in ``epoch``, counted from 1; in the last one, those that never do."""
        return {part for part, frozen in self.freeze if frozen and epoch < self.unfreezing.get(part, math.inf)}


class TrainConfig(Config):
    """All of ``mobilesam train``."""

    model: ModelConfig = ModelConfig()
    data: DataConfig
    prompts: PromptConfig = PromptConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    train: RunConfig = RunConfig()
    distill: DistillConfig | None = None
    lora: LoraConfig | None = None
    """Learn adapters instead of the weights (null: the weights)."""

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        freeze = self.train.freeze
        if freeze.image_encoder and freeze.prompt_encoder and freeze.mask_decoder:
            raise ValueError("train.freeze freezes all three parts: nothing would learn")
        if self.data.val is None and self.train.early_stop is not None:
            raise ValueError("train.early_stop needs a validation set (data.val)")
        if self.data.val is None and self.train.validation.before:
            raise ValueError("train.validation.before needs a validation set (data.val)")
        return self

    def public_json(self) -> str:
        """What may be passed on: all but the folders and files of this machine."""
        return self.model_dump_json(exclude=_PRIVATE)

    @property
    def views(self) -> int | None:
        """How many views of an image there are; None: a new one in every epoch."""
        # Images that are always seen alike need no more than one, with a cache or without.
        return self.train.cache.views if self.data.augment.changes else 1

    @property
    def why_no_cache(self) -> str | None:
        """Why embeddings cannot be kept, in a few words; None if they can."""
        if not self.train.freeze.image_encoder:
            return "the image encoder learns (train.freeze.image_encoder)"
        if self.train.unfreeze.image_encoder is not None:
            return "the image encoder learns later (train.unfreeze.image_encoder)"
        if self.distill is not None:
            return "teachers look at the images (distill)"
        if self.views is None:
            return "augmentation makes new images in every epoch (train.cache.views would keep so many of each)"
        return None

    @model_validator(mode="after")
    def _caches(self) -> TrainConfig:
        cache = self.train.cache
        if cache.use == "always" and (reason := self.why_no_cache):
            raise ValueError(f"train.cache.use=always is not possible: {reason}")
        if cache.views is not None and not self.data.augment.changes:
            raise ValueError("train.cache.views needs augmentation (data.augment): without it all views are alike")
        if cache.views is not None and (reason := self.why_no_cache):
            raise ValueError(f"train.cache.views is for a cache of embeddings, which is not possible: {reason}")
        return self

    @model_validator(mode="after")
    def _adapts(self) -> TrainConfig:
        lora = self.lora
        if lora is None:
            return self
        if self.model.checkpoint is None:
            raise ValueError("lora adapts weights that have learnt, and model.checkpoint is null")
        if self.model.adapter is not None:
            raise ValueError("lora cannot start from model.adapter: give the merged weights as model.checkpoint")
        if self.distill is not None and self.distill.copy_decoder:
            raise ValueError("lora adapts the weights of model.checkpoint, which distill.copy_decoder would replace")
        if self.train.batch_norm == "train" and "image_encoder" not in lora.full:
            raise ValueError("lora keeps the weights it adapts, so train.batch_norm cannot be 'train'")
        if never := self.train.frozen_in(self.train.epochs) & set(lora.full):
            raise ValueError(f"lora.full and train.freeze both name {min(never)}")
        return self

    @model_validator(mode="after")
    def _distils(self) -> TrainConfig:
        distill = self.distill
        if self.data.train.format == "images":
            if distill is None:
                raise ValueError(
                    "data.train has no labels (format: images): name a teacher to learn from instead (distill)"
                )
            if "ground_truth" in distill.used_terms:
                raise ValueError("data.train has no labels (format: images): set distill.ground_truth to 0")
        if distill is None:
            return self
        if self.prompts.rounds or self.prompts.rounds_without_click:
            raise ValueError(
                "prompts.rounds goes by the labels and does not go with distill: set distill.masks.rounds instead"
            )
        train = self.data.train
        sets = [each.set for each in train.sets] if train.format == "mix" else [train]
        if any(each.format == "shapes" for each in sets) and any(teacher.store for teacher in distill.teachers):
            raise ValueError("drawn shapes are no files, nothing is stored of them: leave distill.teachers[].store out")
        epochs = sum(stage.epochs for stage in distill.stages)
        if distill.stages and epochs != self.train.epochs:
            raise ValueError(f"distill.stages last {epochs} epochs in all, train.epochs is {self.train.epochs}")
        moved = self.data.augment.moves or self.data.tile is not None
        if distill.geometry == "off" and moved and any(t.store for t in distill.teachers):
            raise ValueError(
                "data.augment crops, scales or flips, or data.tile cuts, so stored features would belong to other "
                "places: set distill.geometry to 'features', switch that off, or run the teacher (no store)"
            )
        if self.train.freeze.image_encoder and "features" in distill.used_terms:
            raise ValueError("train.freeze.image_encoder leaves nothing to learn from features")
        if self.train.freeze.prompt_encoder and "prompt_embeddings" in distill.used_terms:
            raise ValueError("train.freeze.prompt_encoder leaves nothing to learn from prompt_embeddings")
        return self
