"""Random changes of an image and its masks, by torchvision's joint transforms."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from mobilesam_core.config.data import AugmentConfig
from mobilesam_core.ops.resize import to_tensor

_QUARTERS = np.array([[0, 1], [2, 3]], np.uint8)


class Augmented(NamedTuple):
    """A changed image, if one was given, and masks; ``(2, 2)`` the quarter of the image (0 and 1 above, 2 and 3 below)
    that each quarter came from, which tells all flips and turns."""

    image: np.ndarray | None
    masks: np.ndarray
    quarters: np.ndarray


class Augment:
    """Flips, transposition and colour jitter, as the config asks; crop and scale are the view's."""

    def __init__(self, config: AugmentConfig) -> None:
        changes: list[Any] = []
        if config.horizontal_flip:
            changes.append(v2.RandomHorizontalFlip(config.horizontal_flip))
        if config.vertical_flip:
            changes.append(v2.RandomVerticalFlip(config.vertical_flip))
        if config.transpose:
            changes.append(_RandomTranspose(config.transpose))
        if config.brightness or config.contrast or config.saturation or config.hue:
            changes.append(v2.ColorJitter(config.brightness, config.contrast, config.saturation, config.hue))
        self._change = v2.Compose(changes) if changes else None

    def __call__(self, image: np.ndarray | None, masks: np.ndarray, seed: int) -> Augmented:
        """Change an ``(H, W)`` or ``(H, W, 3)`` uint8 image, if there is one, and its ``(K, H, W)`` bool masks alike.

        A function of its arguments: torch's global random state, which torchvision draws from, is put back.
        """
        if self._change is None:
            return Augmented(image, masks, _QUARTERS)
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would reseed the accelerators too.
            torch.default_generator.manual_seed(seed)
            changed_masks, quarters, *changed = self._change(
                tv_tensors.Mask(torch.from_numpy(masks)),
                tv_tensors.Mask(torch.from_numpy(_QUARTERS)),
                *([] if image is None else [tv_tensors.Image(to_tensor(image))]),
            )
        pixels = None
        if image is not None:
            planes = changed[0].numpy().transpose(1, 2, 0)
            pixels = np.ascontiguousarray(planes if image.ndim == 3 else planes[..., 0])
        return Augmented(pixels, np.ascontiguousarray(changed_masks.numpy()), quarters.numpy())


class _RandomTranspose(nn.Module):
    """Swap x and y with probability ``p``; torchvision has no such transform."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if torch.rand(()) >= self.p:
            return inputs
        return tuple(tv_tensors.wrap(each.mT, like=each) for each in inputs)
