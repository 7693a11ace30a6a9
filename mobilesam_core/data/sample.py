"""What passes from data sets to training and evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from mobilesam_core.ops.masks import InstanceMasks
from mobilesam_core.prompts.types import PromptTensors


@dataclass(frozen=True)
class Sample:
    """One image and the masks of its objects, upright (EXIF rotation applied).

    key: names the image within its set, stable between runs (a path relative to the set, for most formats).
    image: ``(H, W, 3)`` uint8 RGB, or ``(H, W)`` uint8 for a model of one input channel.
    masks: one mask an object, at the size of the image.
    source: the path of the image file, or the name of the generator; for messages and to find stored features.
    """

    key: str
    image: np.ndarray
    masks: InstanceMasks
    source: str


class SampleSource(Protocol):
    """A data set of any format: a sequence of samples, read when asked for.

    ``__getitem__`` raises :class:`~mobilesam_core.errors.DataError` naming the file when one cannot be used.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def describe(self, index: int) -> str:
        """The file or record behind ``index``, without reading it; for failure lists."""


@dataclass(frozen=True)
class BadFile:
    """One entry of ``failures.jsonl``: where in the set, which file, and what is wrong with it."""

    index: int
    source: str
    problem: str


class Batch(NamedTuple):
    """B framed images and the N objects chosen in them, ready for the model.

    images: ``(B, C, S, S)`` uint8, zero where padded; ``sizes`` ``(B, 2)`` int64 is what is image, ``(h, w)``.
    image_index: ``(N,)`` int64, the image each object is in, ascending.
    prompts: N prompts in the frame.
    targets: ``(N, L, L)`` float32 in [0, 1], the share of each cell of the loss grid that the object covers.
    sources: B texts naming the images.
    """

    images: Tensor
    sizes: Tensor
    image_index: Tensor
    prompts: PromptTensors
    targets: Tensor
    sources: Sequence[str]

    def to(self, device: torch.device) -> Batch:
        """The same batch on ``device``."""
        return self._replace(
            images=self.images.to(device, non_blocking=True),
            sizes=self.sizes.to(device, non_blocking=True),
            image_index=self.image_index.to(device, non_blocking=True),
            prompts=self.prompts.to(device, non_blocking=True),
            targets=self.targets.to(device, non_blocking=True),
        )


def path_key(path: Path, root: Path) -> str:
    """A stable key for ``path``: relative to ``root``, with forward slashes."""
    return path.relative_to(root).as_posix()
