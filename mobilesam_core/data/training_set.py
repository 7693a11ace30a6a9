"""From samples of any format to batches the model trains on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mobilesam_core.config.data import DataConfig
from mobilesam_core.config.prompts import PromptConfig
from mobilesam_core.data.augment import Augment
from mobilesam_core.data.batch import Batch
from mobilesam_core.data.sample import SampleSource
from mobilesam_core.data.view import View, choose_objects, choose_view
from mobilesam_core.ops.frame import Frame, resize_image
from mobilesam_core.ops.masks import mask_coverage, resize_masks
from mobilesam_core.ops.placement import Placement
from mobilesam_core.ops.resize import pad_to_frame, to_tensor
from mobilesam_core.prompts.sampling import random_points, sample_prompt
from mobilesam_core.prompts.tensors import prompt_tensors
from mobilesam_core.prompts.types import Prompt

# Set apart the random streams that one seed feeds; numpy hashes them into unrelated states.
ITEM_STREAM, ORDER_STREAM = 0, 1


@dataclass(frozen=True)
class FramedSample:
    """One augmented image in the model's input frame, and K of its objects.

    image: ``(C, h, w)`` uint8, not padded; h and w are at most ``frame_size``.
    prompts: K prompts in pixels of the frame.
    targets: ``(K, L, L)`` float32 in [0, 1]: the share of each cell of the loss grid, which covers the
        whole padded frame, that the object covers.
    source: names the image, for messages.
    features: of teachers, ``(C, h, w)`` float16, by name.
    """

    image: Tensor
    frame_size: int
    prompts: list[Prompt]
    targets: Tensor
    source: str
    features: Mapping[str, Tensor]


class StoredFeatures(Protocol):
    """Features of images that teachers made before."""

    def read(self, source: str, placement: Placement | None = None) -> Mapping[str, Tensor]:
        """Those of the image file ``source``, ``(C, h, w)`` float16 by name, for the frame that ``placement`` says;
        None is the whole image.

        Raises:
            DataError: they cannot be read.
        """


class TrainingSet(Dataset[FramedSample]):
    """Views of a source's images with prompts and targets: a pure function of ``(seed, epoch, index)``.

    Indexed by ``index`` (in the epoch last given to :meth:`set_epoch`) or by ``(epoch, index)``.

    An image without labels gets ``data.max_objects`` points anywhere in it as prompts, and empty targets.

    Args:
        image_size: side S of the model's square input frame in pixels.
        loss_size: side L of the grid on which masks are compared.
        features: what teachers made of the images.

    Raises:
        DataError: from ``__getitem__``, when a file cannot be used or none of its objects is large enough.
    """

    def __init__(
        self,
        source: SampleSource,
        data: DataConfig,
        prompts: PromptConfig,
        image_size: int,
        loss_size: int,
        seed: int,
        features: StoredFeatures | None = None,
    ) -> None:
        self._source = source
        self._data = data
        self._prompts = prompts
        self._image_size = image_size
        self._loss_size = loss_size
        self._seed = seed
        self._epoch = 0
        self._augment = Augment(data.augment)
        self._features = features

    def __len__(self) -> int:
        return len(self._source)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of plain indices."""
        self._epoch = epoch

    def __getitem__(self, index: int | tuple[int, int]) -> FramedSample:
        epoch, place = index if isinstance(index, tuple) else (self._epoch, index)
        rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(ITEM_STREAM, epoch, place)))
        sample = self._source[place]
        view = choose_view(sample, self._data, self._image_size, rng)
        left, top, right, bottom = view.window
        masks = choose_objects(sample.masks, view, self._data, rng)
        image = sample.image[top:bottom, left:right]
        if view.factor < 1:  # augment where there are fewer pixels
            image, masks = self._into_frame(image, masks, view)
        image, masks, quarters = self._augment(image, masks, int(rng.integers(2**63)))
        if view.factor >= 1:
            image, masks = self._into_frame(image, masks, view)
        prompts = [sample_prompt(mask, self._prompts, rng) for mask in masks]
        targets = mask_coverage(masks, self._image_size, self._loss_size)
        if len(sample.masks) == 0:
            prompts = random_points(image.shape[:2], self._data.max_objects, rng)
            targets = np.zeros((len(prompts), self._loss_size, self._loss_size), np.float32)
        features: Mapping[str, Tensor] = {}
        if self._features is not None:
            frame = Frame((bottom - top, right - left), (image.shape[0], image.shape[1]), self._image_size)
            placement = Placement.of(sample.masks.shape, view.window, quarters, frame)
            features = self._features.read(sample.source, placement)
        return FramedSample(
            image=to_tensor(image),
            frame_size=self._image_size,
            prompts=prompts,
            targets=torch.from_numpy(targets),
            source=sample.source,
            features=features,
        )

    def _into_frame(self, image: np.ndarray, masks: np.ndarray, view: View) -> tuple[np.ndarray, np.ndarray]:
        frame = view.frame(image.shape[0], image.shape[1], self._image_size)
        return resize_image(image, frame), resize_masks(masks, frame.scaled)


def collate(samples: Sequence[FramedSample]) -> Batch:
    """Pad the images to their frame and line up all their objects."""
    counts = torch.tensor([len(sample.prompts) for sample in samples])
    return Batch(
        images=torch.stack([pad_to_frame(sample.image, sample.frame_size) for sample in samples]),
        sizes=torch.tensor([sample.image.shape[-2:] for sample in samples]),
        image_index=torch.repeat_interleave(torch.arange(len(samples)), counts),
        prompts=prompt_tensors([prompt for sample in samples for prompt in sample.prompts]),
        targets=torch.cat([sample.targets for sample in samples]),
        sources=[sample.source for sample in samples],
        features={name: torch.stack([sample.features[name] for sample in samples]) for name in samples[0].features},
    )
