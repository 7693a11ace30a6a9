"""What an exported file says of itself, so that no one has to guess how to feed it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from mobilesam_core.config.amg import AmgThresholds
from mobilesam_core.errors import CheckpointError
from mobilesam_core.ops.frame import STRIDE

Part = Literal["encoder", "decoder", "combined"]
DecoderStyle = Literal["official", "batched", "low-res"]


@dataclass(frozen=True)
class ModelFacts:
    """The metadata of an exported model, one JSON document under the key ``mobilesam``.

    part: which part of the model it is. style: of a decoder or a combined model, which inputs and outputs it has.
    single_mask: whether it answers with one mask, chosen as SAM's export chooses, instead of four. preprocessing:
    whether it takes ``(H, W, C)`` uint8 images of any size. model: the architecture's name. image_size: side of the
    input frame in pixels. embed_dim: channels of the embeddings. pixel_mean, pixel_std: of each channel, 0 to 255.
    mask_threshold: logits above it are mask. checkpoint_sha256: of the weights' file. encoder_sha256,
    preprocessing_sha256: of the encoder's weights and of what is done to images, as in feature stores. precision: of
    the weights. license: of the weights, where it is known. amg_thresholds: that the weights suggest for finding
    everything. io: what goes in and comes out, for a reader.
    """

    KEY: ClassVar = "mobilesam"

    part: Part
    style: DecoderStyle | None
    single_mask: bool
    preprocessing: bool
    model: str
    image_size: int
    embed_dim: int
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    mask_threshold: float
    checkpoint_sha256: str
    encoder_sha256: str
    preprocessing_sha256: str
    precision: Literal["fp32", "fp16", "int8"]
    license: str
    amg_thresholds: AmgThresholds | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    io: Mapping[str, str] = field(default_factory=dict)

    @property
    def grid_size(self) -> int:
        """Image tokens along one side of an embedding."""
        return self.image_size // STRIDE

    def to_metadata(self) -> dict[str, str]:
        """For the file's metadata."""
        return {self.KEY: json.dumps(asdict(self), sort_keys=True, default=AmgThresholds.model_dump)}

    @staticmethod
    def from_metadata(metadata: Mapping[str, str], name: str) -> ModelFacts:
        """The facts in a file's ``metadata``; ``name`` is the file's, for messages.

        Raises:
            CheckpointError: they are not there, or not in a form this version knows.
        """
        if ModelFacts.KEY not in metadata:
            raise CheckpointError(
                f"{name} does not say what it is: it was not exported by mobilesam.",
                "Export it again with mobilesam export onnx.",
            )
        try:
            values: dict[str, Any] = json.loads(metadata[ModelFacts.KEY])
            for key in ("pixel_mean", "pixel_std"):
                values[key] = tuple(values[key])
            if values.get("amg_thresholds") is not None:  # files of older versions have none
                values["amg_thresholds"] = AmgThresholds.model_validate(values["amg_thresholds"])
            return ModelFacts(**values)
        except (ValueError, TypeError, KeyError) as error:
            raise CheckpointError(
                f"{name} describes itself in a way this version does not know.",
                "Update mobilesam, or export it again.",
            ) from error
