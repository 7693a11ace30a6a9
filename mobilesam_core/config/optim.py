"""The ``optim:`` section."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from mobilesam_core.config.base import Config

Factor = Annotated[float, Field(gt=0)]


class LrFactors(Config):
    """How fast each part of the model learns, as a multiple of ``optim.lr``. A part that shall not learn is frozen
    (``train.freeze``)."""

    image_encoder: Factor = 1.0
    """Of the image encoder."""
    prompt_encoder: Factor = 1.0
    """Of the prompt encoder."""
    mask_decoder: Factor = 1.0
    """Of the mask decoder."""


class OptimConfig(Config):
    """AdamW with a polynomial decay. Steps are optimizer steps: accumulated batches count once."""

    lr: Annotated[float, Field(gt=0)] = 1e-4
    """Peak learning rate, before ``lr_factors`` and ``layer_decay``."""
    end_lr: Annotated[float, Field(ge=0)] = 0.0
    """Learning rate of the last step, reached exactly; scaled like ``lr``."""
    power: Annotated[float, Field(gt=0)] = 1.0
    """Exponent of the decay; 1 is linear."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Linear warm-up from 0."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Applied to weight matrices and kernels; never to norms, biases, attention biases or embeddings."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Of AdamW: what its averages of gradients and of their squares keep in a step."""
    lr_factors: LrFactors = LrFactors()
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Each encoder block learns this factor slower than the one above it (null: all alike)."""
    batch_size: Annotated[int, Field(ge=1)] = 2
    """Images in a batch, which several processes share; each brings up to ``data.max_objects`` objects."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Batches summed into one optimizer step."""
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Gradients are scaled down to this norm (null: not clipped)."""

    @model_validator(mode="after")
    def _decays(self) -> OptimConfig:
        if self.end_lr > self.lr:
            raise ValueError("end_lr must not exceed lr")
        return self
