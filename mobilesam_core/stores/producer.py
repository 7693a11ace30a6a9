"""What stored features were made by, so that features of other weights are never taken for one's own."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobilesam_core.models.fingerprint import weights_sha256

if TYPE_CHECKING:
    from mobilesam_core.models.sam import Sam

_UNUSED = ("head.", "norm_head.")  # TinyViT's classifier, which no feature passes through


@dataclass(frozen=True)
class Producer:
    """An image encoder and what was done to images before it.

    encoder_sha256: of the encoder's weights alone, so that a fine-tuned decoder keeps its frozen encoder's features.
    preprocessing_sha256: of all that leads from a file's pixels to the encoder's input.
    image_size: side of the input frame in pixels. precision: the encoder's numbers,
    ``32``, ``bf16``, ``fp16`` or ``int8``.
    """

    model: str
    encoder_sha256: str
    preprocessing_sha256: str
    image_size: int
    precision: str

    @staticmethod
    def of(model: Sam, precision: str = "32") -> Producer:
        """The producer of what ``model``, whose weights are in float32, makes of images in ``precision``."""
        return Producer(
            model=model.config.name,
            encoder_sha256=_encoder_sha256(model),
            preprocessing_sha256=_preprocessing_sha256(model),
            image_size=model.image_size,
            precision=precision,
        )

    def difference(self, other: Producer) -> str | None:
        """What makes features of ``other`` useless to this model, in a few words; None if nothing does.

        Precision does not, but for integers: whoever embedded in bfloat16 chose its small error.
        """
        if self.model != other.model:
            return f"the model {other.model}, not {self.model}"
        if self.encoder_sha256 != other.encoder_sha256:
            return f"other weights of the image encoder (sha256 {other.encoder_sha256[:12]}…)"
        if self.image_size != other.image_size:
            return f"image_size {other.image_size}, not {self.image_size}"
        if self.preprocessing_sha256 != other.preprocessing_sha256:
            return "another preprocessing of images"
        if self.precision != other.precision and "int8" in (self.precision, other.precision):
            return f"precision {other.precision}, not {self.precision}"
        return None


def _encoder_sha256(model: Sam) -> str:
    state = model.image_encoder.state_dict()
    return weights_sha256({name: value for name, value in state.items() if not name.startswith(_UNUSED)})


def _preprocessing_sha256(model: Sam) -> str:
    steps = {
        "pixels": "uint8, upright",
        "resize": "longest side, bilinear, antialiased by PIL",
        "mean": [round(value, 4) for value in model.pixel_mean.flatten().tolist()],
        "std": [round(value, 4) for value in model.pixel_std.flatten().tolist()],
        "padding": "zeros right and bottom, after normalising",
        "image_size": model.image_size,
    }
    return hashlib.sha256(json.dumps(steps, sort_keys=True).encode()).hexdigest()
