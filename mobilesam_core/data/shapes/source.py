"""Drawn images as a data set."""

from __future__ import annotations

import cv2
import numpy as np

from mobilesam_core.config.data import ShapesConfig, ShapesDomain
from mobilesam_core.data.sample import Sample
from mobilesam_core.data.shapes.domains import DOMAINS
from mobilesam_core.data.shapes.scene import draw_scene
from mobilesam_core.ops.masks import LabelMapMasks


class ShapesSource:
    """``config.count`` images of ``config.size`` squared, of the domains of ``config``, evenly mixed.

    An image is a function of the set's config and its index alone. Shapes hide one another, and each
    mask is exactly what stays visible of its shape.
    """

    def __init__(self, config: ShapesConfig, channels: int = 3) -> None:
        self._config = config
        self._channels = channels

    def __len__(self) -> int:
        return self._config.count

    def describe(self, index: int) -> str:
        config = self._config
        drawn = f"seed={config.seed}, size={config.size}, max_shapes={config.max_shapes}"
        return f"shapes:{self._begin(index)[0]}({drawn})[{index}]"

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        name, rng = self._begin(index)
        image, label_map = draw_scene(rng, self._config.size, DOMAINS[name], self._config.max_shapes)
        if self._channels == 1:
            image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        return Sample(f"{name}_{index:06d}", image, LabelMapMasks(label_map), self.describe(index))

    def _begin(self, index: int) -> tuple[ShapesDomain, np.random.Generator]:
        """The domain of an image, and the generator that draws the rest of it."""
        rng = np.random.default_rng(np.random.SeedSequence([self._config.seed, index]))
        domains = self._config.domains
        return domains[rng.integers(len(domains))], rng
