"""From samples of any format to batches the model trains on."""

from __future__ import annotations

import copy
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
from mobilesam_core.data.sample import Sample, SampleSource
from mobilesam_core.data.view import SeenView, Tile, View, choose_anchor, choose_objects, choose_view
from mobilesam_core.ops.frame import Frame, resize_image
from mobilesam_core.ops.masks import mask_coverage, resize_masks
from mobilesam_core.ops.placement import Placement
from mobilesam_core.ops.resize import pad_to_frame, to_tensor
from mobilesam_core.prompts.sampling import random_points, sample_prompt
from mobilesam_core.prompts.tensors import prompt_tensors
from mobilesam_core.prompts.types import Prompt

# Set apart the random streams that one seed feeds; numpy hashes them into unrelated states.
ITEM_STREAM, ORDER_STREAM, VIEW_STREAM, STEP_STREAM = range(4)


@dataclass(frozen=True)
class FramedSample:
    """One augmented image in the model's input frame, and K of its objects.

    image: ``(C, h, w)`` uint8, not padded; h and w are at most ``frame_size``. None where ``embedding`` stands for it.
    size: ``(h, w)``.
    prompts: K prompts in pixels of the frame.
    targets: ``(K, L, L)`` float32 in [0, 1]: the share of each cell of the loss grid, which covers the
        whole padded frame, that the object covers.
    source: names the image, for messages.
    features: of teachers, ``(C, h, w)`` float16, by name.
    embedding: of the image, ``(D, g, g)`` float16, where there is a cache.
    view: what is seen of which image.
    """

    image: Tensor | None
    size: tuple[int, int]
    frame_size: int
    prompts: list[Prompt]
    targets: Tensor
    source: str
    features: Mapping[str, Tensor]
    embedding: Tensor | None
    view: SeenView


class CachedEmbeddings(Protocol):
    """Embeddings of views of images that were made before."""

    def read(self, view: SeenView) -> Tensor:
        """Its ``(D, g, g)`` float16 embedding.

        Raises:
            DataError: it cannot be read.
        """


class StoredFeatures(Protocol):
    """Features of images that teachers made before."""

    def read(self, source: str, placement: Placement | None = None) -> Mapping[str, Tensor]:
        """Those of the image file ``source``, ``(C, h, w)`` float16 by name, for the frame that ``placement`` says;
        None is the whole image.

        Raises:
            DataError: they cannot be read.
        """


class TrainingSet(Dataset[FramedSample]):
    """Views of a source's images, or tiles of them, with prompts and targets: a pure function of
    ``(seed, epoch, index)``.

    Indexed by ``index`` (in the epoch last given to :meth:`set_epoch`) or by ``(epoch, index)``.

    An image without labels gets ``data.max_objects`` points anywhere in it as prompts, and empty targets.

    Args:
        image_size: side S of the model's square input frame in pixels.
        loss_size: side L of the grid on which masks are compared.
        features: what teachers made of the images.
        views: each image is seen in so many views, one after the other from epoch to epoch, but with objects and
            prompts of the epoch's own (None: a new view in each epoch).
        tiles: parts of the images, each an image of its own (None: images are whole). With ``data.tile`` these are
            :func:`~mobilesam_core.data.verify.find_tiles`'.

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
        views: int | None = None,
        tiles: Sequence[Tile] | None = None,
    ) -> None:
        if data.tile is not None and tiles is None:
            raise ValueError("data.tile needs the tiles that find_tiles finds")
        self._source = source
        self._data = data
        self._prompts = prompts
        self._image_size = image_size
        self._loss_size = loss_size
        self._seed = seed
        self._epoch = 0
        self._augment = Augment(data.augment)
        self._features = features
        self._views = views
        self._tiles = tiles
        self._embeddings: CachedEmbeddings | None = None

    def __len__(self) -> int:
        return len(self._source if self._tiles is None else self._tiles)

    @property
    def source(self) -> SampleSource:
        """Where the images come from."""
        return self._source

    @property
    def cached(self) -> bool:
        """Whether embeddings are in place of images."""
        return self._embeddings is not None

    def with_embeddings(self, embeddings: CachedEmbeddings) -> TrainingSet:
        """The same set with ``embeddings`` in place of images."""
        cached = copy.copy(self)
        cached._embeddings = embeddings
        return cached

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of plain indices."""
        self._epoch = epoch

    def __getitem__(self, index: int | tuple[int, int]) -> FramedSample:
        epoch, place = index if isinstance(index, tuple) else (self._epoch, index)
        rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(ITEM_STREAM, epoch, place)))
        whole, sample, corner = self._read(place)
        if self._views is None:
            view = choose_view(sample, self._data, self._image_size, rng)
            masks = choose_objects(sample.masks, view, self._data, rng)
            seed = int(rng.integers(2**63))
        else:
            fixed = np.random.SeedSequence(self._seed, spawn_key=(VIEW_STREAM, epoch % self._views, place))
            view_rng = np.random.default_rng(fixed)
            view = choose_view(sample, self._data, self._image_size, view_rng)
            seed = int(view_rng.integers(2**63))
            view = choose_anchor(sample.masks, view, self._data, rng)
            masks = choose_objects(sample.masks, view, self._data, rng)
        seen = SeenView.of(whole, corner, view, seed if self._data.augment.changes else None)
        left, top, right, bottom = view.window
        embedding = None if self._embeddings is None else self._embeddings.read(seen)
        image = sample.image[top:bottom, left:right] if embedding is None else None
        if view.factor < 1:  # augment where there are fewer pixels
            image, masks = self._into_frame(image, masks, view)
        image, masks, quarters = self._augment(image, masks, seed)
        if view.factor >= 1:
            image, masks = self._into_frame(image, masks, view)
        size = (masks.shape[1], masks.shape[2])
        prompts = [sample_prompt(mask, self._prompts, rng) for mask in masks]
        targets = mask_coverage(masks, self._image_size, self._loss_size)
        if len(sample.masks) == 0:
            prompts = random_points(size, self._data.max_objects, rng)
            targets = np.zeros((len(prompts), self._loss_size, self._loss_size), np.float32)
        features: Mapping[str, Tensor] = {}
        if self._features is not None:
            frame = Frame((bottom - top, right - left), size, self._image_size)
            placement = Placement.of(whole.masks.shape, seen.window, quarters, frame)
            features = self._features.read(sample.source, placement)
        return FramedSample(
            image=None if image is None else to_tensor(image),
            size=size,
            frame_size=self._image_size,
            prompts=prompts,
            targets=torch.from_numpy(targets),
            source=sample.source,
            features=features,
            embedding=embedding,
            view=seen,
        )

    def _read(self, index: int) -> tuple[Sample, Sample, tuple[int, int]]:
        """An image, the part of it that is ``index``, and where in the image ``(x, y)`` that begins."""
        if self._tiles is None:
            sample = self._source[index]
            return sample, sample, (0, 0)
        place, window = self._tiles[index]
        whole = self._source[place]
        return whole, whole.part(window), window[:2]

    def _into_frame(
        self, image: np.ndarray | None, masks: np.ndarray, view: View
    ) -> tuple[np.ndarray | None, np.ndarray]:
        frame = view.frame(masks.shape[1], masks.shape[2], self._image_size)
        return None if image is None else resize_image(image, frame), resize_masks(masks, frame.scaled)


def collate(samples: Sequence[FramedSample]) -> Batch:
    """Pad the images to their frame and line up all their objects."""
    counts = [len(sample.prompts) for sample in samples]
    embeddings = [sample.embedding for sample in samples if sample.embedding is not None]
    return Batch(
        images=torch.stack([_padded(sample) for sample in samples]),
        sizes=torch.tensor([sample.size for sample in samples]),
        image_index=torch.repeat_interleave(torch.arange(len(samples)), torch.tensor(counts)),
        counts=counts,
        prompts=prompt_tensors([prompt for sample in samples for prompt in sample.prompts]),
        targets=torch.cat([sample.targets for sample in samples]),
        sources=[sample.source for sample in samples],
        features={name: torch.stack([sample.features[name] for sample in samples]) for name in samples[0].features},
        embeddings=torch.stack(embeddings) if embeddings else None,
        views=[sample.view for sample in samples],
    )


def _padded(sample: FramedSample) -> Tensor:
    if sample.image is None:
        return torch.empty(0, 0, 0, dtype=torch.uint8)
    return pad_to_frame(sample.image, sample.frame_size)
