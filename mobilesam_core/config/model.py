"""The ``model:`` section."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mobilesam_core.config.base import Config

ModelName = Literal["vit_t", "vit_b", "vit_l", "vit_h", "vit_nano"]
Positive = Annotated[int, Field(ge=1)]


class EncoderOverrides(Config):
    """Changes to the image encoder's architecture; null keeps the named model's own value.

    The lists have one value a stage: four for ``vit_t`` and ``vit_nano``, one for ``vit_b``, ``vit_l``, ``vit_h``.
    """

    input_channels: Positive | None = None
    """Channels of the input image (3 by default)."""
    embed_dims: list[Positive] | None = None
    """Width of each stage."""
    depths: list[Positive] | None = None
    """Blocks in each stage."""
    num_heads: list[Positive] | None = None
    """Attention heads in each stage."""
    window_sizes: list[Positive] | None = None
    """Side of the attention windows of each stage, in tokens."""
    mlp_ratio: Annotated[float, Field(gt=0)] | None = None
    """Hidden width of the MLPs as a multiple of their input width."""
    out_indices: list[Annotated[int, Field(ge=0)]] = []
    """Stages (blocks, for vit_b/l/h) whose features ``forward_intermediates`` returns."""


class ModelConfig(Config):
    """Which model, from which weights."""

    name: ModelName = "vit_t"
    """``vit_t`` is MobileSAM; ``vit_b/l/h`` are SAM's own encoders; ``vit_nano`` is small, for plain scenes."""
    checkpoint: str | None = "official"
    """A ``.safetensors`` or ``.pt`` file, ``official`` (downloaded once and verified), ``nano`` (comes with the
    package, and is what ``vit_nano`` starts from by default), or null for random weights."""
    adapter: str | None = None
    """What a run with ``lora`` learnt (``best.lora.safetensors``), to be merged into the weights of ``checkpoint``:
    those it started from."""
    image_size: Annotated[int, Field(ge=64, multiple_of=64)] | None = None
    """Side of the square input frame in pixels, a multiple of 64 (null: 1024; 512 for ``vit_nano``)."""
    encoder: EncoderOverrides = EncoderOverrides()
    iou_head_depth: Annotated[int, Field(ge=2)] | None = None
    """Layers of the head that predicts each mask's IoU (null: 3)."""
    iou_head_hidden_dim: Positive | None = None
    """Hidden width of that head (null: 256; 128 for ``vit_nano``)."""

    @model_validator(mode="before")
    @classmethod
    def _nano_starts_from_nano(cls, tree: Any) -> Any:
        # There are no official weights of this model: that default would always be an error.
        if isinstance(tree, dict) and tree.get("name") == "vit_nano":
            return {"checkpoint": "nano", **tree}
        return tree

    @model_validator(mode="after")
    def _nano_is_of_vit_nano(self) -> ModelConfig:
        if self.checkpoint == "nano" and self.name != "vit_nano":
            raise ValueError(f"checkpoint 'nano' holds weights of vit_nano, not of {self.name}")
        return self

    @model_validator(mode="after")
    def _adapter_has_weights(self) -> ModelConfig:
        if self.adapter is not None and self.checkpoint is None:
            raise ValueError("adapter belongs to weights, and checkpoint is null")
        return self

    @model_validator(mode="after")
    def _right_number_of_stages(self) -> ModelConfig:
        stages = 4 if self.name in ("vit_t", "vit_nano") else 1
        for field in ("embed_dims", "depths", "num_heads", "window_sizes"):
            value = getattr(self.encoder, field)
            if value is not None and len(value) != stages:
                raise ValueError(
                    f"encoder.{field} of {self.name} needs {stages} value{'s'[: stages > 1]}, not {len(value)}"
                )
        return self
