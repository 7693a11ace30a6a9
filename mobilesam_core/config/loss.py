"""The ``loss:`` section."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mobilesam_core.config.base import Config

Weight = Annotated[float, Field(ge=0)]


class LossConfig(Config):
    """Weighted sum of mask losses and the loss of the predicted IoU."""

    focal: Weight = 20.0
    """Weight of the sigmoid focal loss (SAM: 20)."""
    bce: Weight = 0.0
    """Weight of binary cross-entropy. From random weights it learns far sooner than the focal loss."""
    dice: Weight = 1.0
    """Weight of the Dice loss (SAM: 1)."""
    iou: Weight = 1.0
    """Weight of the loss on the predicted IoU."""
    focal_alpha: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of the object in the focal loss; the background has the rest."""
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    """How much less the focal loss counts what is right already; 0: nothing less."""
    iou_loss: Literal["mse", "smooth_l1", "l1"] = "mse"
    """How the predicted IoU is compared with the true one (SAM: ``mse``; SAM 2: ``l1``)."""
    multimask: bool = True
    """Train the three multimask outputs, by the best of the three, along with the single-mask output.
    Off: the single-mask output alone."""
    loss_size: Annotated[int, Field(ge=16)] | None = None
    """Side of the grid on which masks are compared (null: the decoder's own, a quarter of the input frame)."""

    @model_validator(mode="after")
    def _some_mask_loss(self) -> LossConfig:
        if self.focal + self.bce + self.dice <= 0:
            raise ValueError("focal, bce and dice cannot all be 0: nothing would train the masks")
        return self
