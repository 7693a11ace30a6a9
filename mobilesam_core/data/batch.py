"""What passes from data sets to training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mobilesam_core.data.view import SeenView
from mobilesam_core.prompts.tensors import PromptTensors


class Batch(NamedTuple):
    """B framed images and the N objects chosen in them, ready for the model.

    images: ``(B, C, S, S)`` uint8, zero where padded; ``sizes`` ``(B, 2)`` int64 is what is image, ``(h, w)``.
    image_index: ``(N,)`` int64, the image each object is in, ascending. counts: how many are in each of the B.
    prompts: N prompts in the frame.
    targets: ``(N, L, L)`` float32 in [0, 1], the share of each cell of the loss grid that the object covers.
    sources: B texts naming the images.
    features: what teachers made of the images, ``(B, C, h, w)`` float16, by name.
    embeddings: of a frozen encoder, ``(B, D, g, g)`` float16; then there are no ``images`` (``B`` of 0 x 0).
    views: what is seen of which image, B times.
    spare: another process has these images too; this one was left without, and has them for company only.
    """

    images: Tensor
    sizes: Tensor
    image_index: Tensor
    counts: Sequence[int]
    prompts: PromptTensors
    targets: Tensor
    sources: Sequence[str]
    features: Mapping[str, Tensor] = {}
    embeddings: Tensor | None = None
    views: Sequence[SeenView] = ()
    spare: bool = False

    def to(self, device: torch.device) -> Batch:
        """The same batch on ``device``."""
        return self._replace(
            images=self.images.to(device, non_blocking=True),
            sizes=self.sizes.to(device, non_blocking=True),
            image_index=self.image_index.to(device, non_blocking=True),
            prompts=self.prompts.to(device, non_blocking=True),
            targets=self.targets.to(device, non_blocking=True),
            features={name: value.to(device, non_blocking=True) for name, value in self.features.items()},
            embeddings=None if self.embeddings is None else self.embeddings.to(device, non_blocking=True),
        )
