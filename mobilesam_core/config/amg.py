"""The settings of ``mobilesam amg``: its options, and its YAML file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mobilesam_core.config.base import Config
from mobilesam_core.config.tiles import TileConfig

Share = Annotated[float, Field(ge=0, le=1)]


class AmgThresholds(Config):
    """By which of a model's own scores a mask is kept. The defaults are segment_anything's, for the official weights;
    other weights score themselves otherwise."""

    pred_iou_thresh: Share = 0.88
    stability_score_thresh: Share = 0.95

    def __str__(self) -> str:
        return f"pred_iou_thresh {self.pred_iou_thresh:g}, stability_score_thresh {self.stability_score_thresh:g}"


class AmgConfig(TileConfig):
    """Where to ask and which masks to keep. Names and defaults are segment_anything's.

    Tiles are crops like those of ``crop_n_layers``: looked at besides the whole image, as layer 1.
    """

    points_per_side: Annotated[int, Field(ge=1, le=256)] = 32
    """Points along each side of the image; their square is asked."""
    points_per_batch: Annotated[int, Field(ge=1)] | None = None
    """Points decoded together (null: as fits the device). It changes no result."""
    strategy: Literal["grid", "coarse-to-fine"] = "grid"
    """``grid`` asks at every point; ``coarse-to-fine`` at fewer than half, where the image differs."""
    pred_iou_thresh: Share | None = None
    """Masks have a higher predicted IoU (0: all; null: what the weights suggest, else 0.88)."""
    stability_score_thresh: Share | None = None
    """Least IoU of a mask with itself when the mask threshold is moved (0: all; null: what the weights suggest, else
    0.95)."""
    stability_score_offset: Annotated[float, Field(gt=0)] = 1.0
    """By how much it is moved, up and down, in logits."""
    box_nms_thresh: Share = 0.7
    """Of masks whose boxes overlap by more than this IoU the best-scored stays."""
    crop_n_layers: Annotated[int, Field(ge=0, le=4)] = 0
    """Look at crops too: layer n has 4^n of them."""
    crop_nms_thresh: Share = 0.7
    """The same as ``box_nms_thresh``, between crops; masks of smaller crops stay."""
    crop_overlap_ratio: Annotated[float, Field(ge=0, lt=1)] = 512 / 1500
    """Overlap of crops, as a share of the image's shorter side."""
    crop_n_points_downscale_factor: Annotated[int, Field(ge=1)] = 1
    """Layer n has the points a side divided by this to the n."""
    min_mask_region_area: Annotated[int, Field(ge=0)] = 0
    """Holes and separate parts of fewer pixels are removed (0: left)."""
    min_area: Annotated[int, Field(ge=0)] = 0
    """Masks of fewer pixels are left out."""
    max_masks: Annotated[int, Field(ge=1)] | None = None
    """At most so many masks an image, the best-scored (null: all)."""

    @model_validator(mode="after")
    def _one_kind_of_crops(self) -> AmgConfig:
        if self.tile is not None and self.crop_n_layers:
            raise ValueError("tile and crop_n_layers both say where to crop: give one of them")
        return self
