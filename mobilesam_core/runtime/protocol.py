"""What prediction, automatic masks, embedding and evaluation need of a model, whatever computes it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mobilesam_core.config.amg import AmgThresholds
from mobilesam_core.errors import UsageError
from mobilesam_core.ops.frame import Frame
from mobilesam_core.ops.upscale import Measured
from mobilesam_core.prompts.types import Prompt
from mobilesam_core.stores.producer import Producer

Array = Any
"""A numpy array, or a tensor on a runtime's device: only that runtime looks into it."""


@dataclass(frozen=True)
class EncodedImage:
    """embedding: ``(1, D, g, g)``. frame: how the image lies in the model's input."""

    embedding: Array
    frame: Frame


@dataclass(frozen=True)
class Decoded:
    """What the decoder says of n prompts.

    low_res_logits: ``(n, 4, S/4, S/4)``, mask where above the model's threshold; output 0 is for prompts that mean one
    object, 1 to 3 are the multimask outputs. iou_predictions: ``(n, 4)`` float32, nominally 0 to 1.
    """

    low_res_logits: Array
    iou_predictions: np.ndarray


class PointSearch(Protocol):
    """Asks about single points of one image, many at a time, and draws only those masks that are wanted.

    points_at_once: as many are quickest together.
    """

    points_at_once: int

    def ask(self, points: np.ndarray) -> tuple[Array, np.ndarray]:
        """Answers to ``(n, 2)`` points in pixels of the input frame, for :meth:`draw`, and the predicted IoUs of their
        multimask outputs, ``(n, 3)`` float32."""

    def draw(self, answers: Array, points: np.ndarray, outputs: np.ndarray) -> Array:
        """The ``(M, S/4, S/4)`` float32 logits of M masks: multimask output ``outputs[i]`` (0 to 2) of that point of
        ``answers`` whose number is ``points[i]``."""

    def measure(self, logits: Array, threshold: float, offset: float) -> Measured:
        """The masks of ``(M, S/4, S/4)`` logits above ``threshold``, and ``offset`` above and below it."""

    def mask(self, logits: Array, threshold: float) -> np.ndarray:
        """The ``(H, W)`` bool mask of ``(S/4, S/4)`` logits."""


class Runtime(Protocol):
    """A model that is ready to run.

    source: the file it came from; sha256: of that file, or of the checkpoint it was
    exported from. model: the architecture's name. image_size: side of the input
    frame in pixels. channels: of the images. embed_dim: of the embeddings. mask_threshold: logits above it are mask.
    memory: bytes that decoding may take at a time, about. precision: of its numbers, for people. producer: what its
    embeddings are stored as. amg_thresholds: that its file suggests for finding everything, if it does.
    """

    @property
    def source(self) -> Path: ...

    @property
    def sha256(self) -> str: ...

    @property
    def model(self) -> str: ...

    @property
    def image_size(self) -> int: ...

    @property
    def channels(self) -> int: ...

    @property
    def embed_dim(self) -> int: ...

    @property
    def mask_threshold(self) -> float: ...

    @property
    def memory(self) -> int: ...

    @property
    def precision(self) -> str: ...

    @property
    def producer(self) -> Producer: ...

    @property
    def amg_thresholds(self) -> AmgThresholds | None: ...

    def running(self) -> AbstractContextManager[None]:
        """Within it the model may be used; on leaving, it is as it was."""

    def encode(self, image: np.ndarray) -> EncodedImage:
        """Encode a ``(H, W, 3)`` RGB (``(H, W)`` for a model of one channel) uint8 image."""

    def restore(self, embedding: np.ndarray) -> Array:
        """A stored embedding ``(D, g, g)`` float16 as :class:`EncodedImage` holds it."""

    def store(self, embedding: Array) -> np.ndarray:
        """An embedding of :class:`EncodedImage` as it is stored: ``(D, g, g)`` float16."""

    def decode(self, image: EncodedImage, prompts: Sequence[Prompt], previous: Array | None = None) -> Decoded:
        """Decode n prompts together; their points and boxes are in pixels of the image.

        previous: ``(n, S/4, S/4)`` low-resolution logits that stand in for the prompts' own masks.
        """

    def masks(self, logits: Array, frame: Frame, threshold: float) -> np.ndarray:
        """``(n, K, S/4, S/4)`` low-resolution logits as ``(n, K, H, W)`` bool masks of the original image."""

    def search(self, image: EncodedImage) -> PointSearch:
        """Ask about points of an image."""


_CHUNK = (
    2**23
)  # bytes of image tokens of all points that are asked about together: on a CPU they should stay in its caches


def points_at_once(embedding: Array, budget: int = _CHUNK) -> int:
    """How many points of an image of this ``(1, D, g, g)`` embedding to ask about together, within ``budget`` bytes of
    their image tokens."""
    return max(1, budget // (4 * math.prod(embedding.shape)))


def file_channels(channels: int, source: Path) -> int:
    """The ``channels`` that image files are read with for a model from ``source``, 1 or 3.

    Raises:
        UsageError: it takes another number, which image files do not have.
    """
    if channels not in (1, 3):
        raise UsageError(
            f"{source} takes images of {channels} channels, which image files do not have.",
            "Use SamPredictor from Python.",
        )
    return channels


def objects_at_once(runtime: Runtime, frame: Frame) -> int:
    """How many objects to decode together, so that memory stays within bounds on any image."""
    height, width = frame.original
    # About 48 bytes of decoder activations a pixel of the frame, logits in the frame, and masks.
    return max(1, runtime.memory // (52 * frame.size**2 + 9 * height * width))
