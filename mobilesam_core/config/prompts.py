"""The ``prompts:`` section: what training asks the model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mobilesam_core.config.base import Config


class PromptConfig(Config):
    """A mix of boxes and points, drawn anew for every object and epoch."""

    box: Annotated[float, Field(ge=0)] = 0.5
    """Weight of box prompts in the mix."""
    point: Annotated[float, Field(ge=0)] = 0.5
    """Weight of point prompts in the mix."""
    box_noise: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Standard deviation of each box edge, as a share of the box's side (SAM: 0.1)."""
    box_noise_max: Annotated[float, Field(ge=0)] = 20.0
    """That noise is clipped to so many pixels of the input frame (SAM: 20)."""
    point_mode: Literal["uniform", "center", "mixed"] = "uniform"
    """``uniform``: anywhere in the object; ``center``: where it is thickest; ``mixed``: either, evenly."""
    min_points: Annotated[int, Field(ge=1)] = 1
    """Least number of points of a point prompt."""
    max_points: Annotated[int, Field(ge=1)] = 1
    """A point prompt has ``min_points`` to ``max_points`` foreground points."""

    rounds: Annotated[int, Field(ge=0)] = 0
    """Interactive training: so many further answers to each prompt, each time with one more point where the mask is
    wrong, positive or negative (SAM: 8). Each takes the decoder's time and memory once more."""
    rounds_without_click: Annotated[int, Field(ge=0)] = 0
    """Further answers that get the last mask and no point: one in the end, others anywhere between (SAM: 2)."""
    click_mode: Literal["uniform", "center"] = "uniform"
    """``uniform``: anywhere in the wrong region (SAM); ``center``: in the middle of its largest part, as ``mobilesam
    eval --prompts clicks`` asks."""
    mask_prompt: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Chance that a further answer is given the mask before, as low-resolution logits."""

    @model_validator(mode="after")
    def _something_to_ask(self) -> PromptConfig:
        if self.box + self.point <= 0:
            raise ValueError("box and point cannot both be 0")
        if self.min_points > self.max_points:
            raise ValueError("min_points must not exceed max_points")
        if self.rounds_without_click and not self.mask_prompt:
            raise ValueError("rounds_without_click without mask_prompt would ask the same again")
        return self
