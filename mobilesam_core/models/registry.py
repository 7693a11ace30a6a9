"""The named architectures, and building a model from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mobilesam_core.config.model import EncoderOverrides, ModelConfig, ModelName
from mobilesam_core.errors import ConfigError
from mobilesam_core.models.encoder import EncoderSpec, ImageEncoder
from mobilesam_core.models.initial import initialise_from_scratch
from mobilesam_core.models.mask_decoder import MaskDecoder
from mobilesam_core.models.prompt_encoder import PromptEncoder
from mobilesam_core.models.sam import Sam
from mobilesam_core.models.tiny_vit import TinyViTEncoder
from mobilesam_core.ops.frame import STRIDE

_STAGE_FIELDS = ("embed_dims", "depths", "num_heads", "window_sizes")
_PLAIN_FIELDS = ("mlp_ratio", "input_channels")


@dataclass(frozen=True)
class SamSpec:
    """A named architecture: the image encoder, and the widths of what follows it."""

    encoder: EncoderSpec
    image_size: int = 1024
    embed_dim: int = 256
    decoder_mlp_dim: int = 2048
    iou_head_depth: int = 3
    iou_head_hidden_dim: int = 256


SPECS: Mapping[ModelName, SamSpec] = {
    "vit_t": SamSpec(
        EncoderSpec("tiny_vit", (64, 128, 160, 320), (2, 2, 6, 2), (2, 4, 5, 10), (7, 7, 14, 7), classes=1000)
    ),
    "vit_b": SamSpec(EncoderSpec("vit", (768,), (12,), (12,), (14,))),
    "vit_l": SamSpec(EncoderSpec("vit", (1024,), (24,), (16,), (14,))),
    "vit_h": SamSpec(EncoderSpec("vit", (1280,), (32,), (16,), (14,))),
    "vit_nano": SamSpec(
        EncoderSpec("tiny_vit", (32, 48, 96, 128), (1, 1, 3, 1), (1, 2, 4, 4), (8, 8, 16, 16), mlp_ratio=3.0),
        image_size=512,
        embed_dim=128,
        decoder_mlp_dim=512,
        iou_head_hidden_dim=128,
    ),
}


def build_sam(config: ModelConfig) -> Sam:
    """Build the model of ``config`` with random weights, in training mode; ``config.checkpoint`` is not read.

    Raises:
        ConfigError: the overrides do not make an encoder.
    """
    spec = SPECS[config.name]
    encoder = _encoder_spec(spec.encoder, config.encoder)
    _check(encoder, config.encoder.out_indices)
    size = config.image_size or spec.image_size
    iou_depth = config.iou_head_depth or spec.iou_head_depth
    iou_dim = config.iou_head_hidden_dim or spec.iou_head_hidden_dim
    filled = {field: list(getattr(encoder, field)) for field in _STAGE_FIELDS}
    filled |= {field: getattr(encoder, field) for field in _PLAIN_FIELDS}
    resolved = config.model_copy(
        update={
            "image_size": size,
            "encoder": config.encoder.model_copy(update=filled),
            "iou_head_depth": iou_depth,
            "iou_head_hidden_dim": iou_dim,
        }
    )
    decoder = MaskDecoder(spec.embed_dim, spec.decoder_mlp_dim, iou_depth, iou_dim)
    prompt_encoder = PromptEncoder(spec.embed_dim, size, size // STRIDE)
    initialise_from_scratch(prompt_encoder, decoder)
    return Sam(
        resolved,
        _build_encoder(encoder, spec.embed_dim, size, config.encoder.out_indices),
        prompt_encoder,
        decoder,
    )


def _build_encoder(spec: EncoderSpec, out_channels: int, img_size: int, out_indices: list[int]) -> ImageEncoder:
    if spec.family == "tiny_vit":
        return TinyViTEncoder(spec, out_channels, img_size, out_indices)
    # Not before it is asked for: its blocks are timm's, which takes as long to import as torch does.
    from mobilesam_core.models.vit import ViTEncoder

    return ViTEncoder(spec, out_channels, img_size, out_indices)


def _encoder_spec(spec: EncoderSpec, overrides: EncoderOverrides) -> EncoderSpec:
    changes: dict[str, Any] = {}
    for field in (*_STAGE_FIELDS, *_PLAIN_FIELDS):
        value = getattr(overrides, field)
        if value is not None:
            changes[field] = tuple(value) if isinstance(value, list) else value
    return replace(spec, **changes)


def _check(encoder: EncoderSpec, out_indices: list[int]) -> None:
    for i, (dim, heads) in enumerate(zip(encoder.embed_dims, encoder.num_heads, strict=True)):
        if dim % heads:
            raise ConfigError(
                f"model.encoder: stage {i} is {dim} wide, which its {heads} heads do not divide.",
                "Change embed_dims or num_heads.",
            )
    if encoder.family == "tiny_vit" and encoder.embed_dims[0] % 2:
        raise ConfigError(f"model.encoder.embed_dims: the first stage must be even, not {encoder.embed_dims[0]}.")
    taps = len(encoder.depths) if encoder.family == "tiny_vit" else encoder.depths[0]
    if wrong := [i for i in out_indices if i >= taps]:
        raise ConfigError(
            f"model.encoder.out_indices: there is no stage or block {wrong[0]}.",
            f"The last one is {taps - 1}.",
        )
