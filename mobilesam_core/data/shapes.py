"""Procedurally drawn shapes: a data set that needs no files, for demos, tests and start weights.

An image is a function of the set's seed and its index alone. Grounds and objects differ in brightness,
colour or texture; shapes overlap, and each mask is exactly what stays visible of its shape.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from mobilesam_core.config.data import ShapesConfig
from mobilesam_core.data.sample import Sample
from mobilesam_core.ops.masks import LabelMapMasks

MIN_VISIBLE_PIXELS = 20
"""A shape of which later ones leave less to be seen is no object."""

Outline = Callable[[np.random.Generator, float], np.ndarray]
"""Draws a closed outline about the origin: ``(n, 2)`` float ``(x, y)`` within ``radius``."""


class ShapesSource:
    """``config.count`` images of ``config.size`` squared, each with 1 to ``config.max_shapes`` objects."""

    def __init__(self, config: ShapesConfig, channels: int = 3) -> None:
        self._config = config
        self._channels = channels

    def __len__(self) -> int:
        return self._config.count

    def describe(self, index: int) -> str:
        return f"shapes(seed={self._config.seed})[{index}]"

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        rng = np.random.default_rng(np.random.SeedSequence([self._config.seed, index]))
        image, label_map = draw_shapes(rng, self._config.size, self._config.max_shapes)
        if self._channels == 1:
            image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        return Sample(f"{index:06d}", image, LabelMapMasks(label_map), self.describe(index))


def draw_shapes(rng: np.random.Generator, size: int, max_shapes: int) -> tuple[np.ndarray, np.ndarray]:
    """One image, ``(size, size, 3)`` uint8 RGB, and its ``(size, size)`` uint16 label map, ids 1..N."""
    while True:
        canvas = _ground(rng, size)
        label_map = np.zeros((size, size), np.uint16)
        _draw_objects(rng, canvas, label_map, max_shapes)
        visible = np.bincount(label_map.ravel())
        visible[0] = 0
        kept = visible >= MIN_VISIBLE_PIXELS
        if kept.any():  # else each shape is at the border or hidden: rare, and drawn again
            break
    ids = np.where(kept, np.cumsum(kept), 0).astype(np.uint16)
    return _develop(rng, canvas), ids[label_map]


def _draw_objects(rng: np.random.Generator, canvas: np.ndarray, label_map: np.ndarray, max_shapes: int) -> None:
    size = len(canvas)
    # Half of the images hold objects of one kind and one contrast, as under a microscope or on a shelf.
    uniform = rng.random() < 0.5
    kinds = [OUTLINES[rng.integers(len(OUTLINES))]] if uniform else OUTLINES
    largest = rng.uniform(0.08, 0.35)
    shift = _contrast(rng)
    for number in range(1, int(rng.integers(1, max_shapes + 1)) + 1):
        radius = max(4.0, size * largest * rng.uniform(0.3, 1.0))
        outline = kinds[rng.integers(len(kinds))](rng, radius)
        turn = rng.uniform(0, 2 * np.pi)
        rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        points = outline @ rotation + rng.uniform(0, size, 2)
        left, top = np.maximum(np.floor(points.min(axis=0)).astype(int) - 1, 0)
        right, bottom = np.minimum(np.ceil(points.max(axis=0)).astype(int) + 2, size)
        mask = np.zeros((bottom - top, right - left), np.uint8)
        # Four fractional bits: outlines fall between pixels.
        cv2.fillPoly(mask, [np.rint((points - [left, top]) * 16).astype(np.int32)], 1, cv2.LINE_8, 4)
        shown = mask.astype(bool)
        window = canvas[top:bottom, left:right]
        if not uniform:
            shift = _contrast(rng)
        ground = window[shown].mean(axis=0) if shown.any() else np.zeros(3, np.float32)
        window[shown] = _paint(rng, mask.shape, ground, shift)[shown]
        label_map[top:bottom, left:right][shown] = number


def _contrast(rng: np.random.Generator) -> np.ndarray:
    """How far an object's colour is from its ground's: ``(3,)``, at least 25 grey levels in some channel."""
    strength = rng.uniform(25, 130) * rng.choice([-1, 1])
    if rng.random() < 0.5:
        return np.full(3, strength, np.float32)
    direction = rng.uniform(-1, 1, 3)
    return (strength * direction / np.abs(direction).max()).astype(np.float32)


def _paint(rng: np.random.Generator, shape: tuple[int, int], ground: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """``(h, w, 3)`` float32 pixels of an object: flat, shaded, or textured."""
    # A colour that the shift would push out of range goes the other way, so the contrast stays.
    colour = np.where((ground + shift < 0) | (ground + shift > 255), ground - shift, ground + shift)
    pixels = np.broadcast_to(colour.astype(np.float32), (*shape, 3))
    manner = rng.random()
    if manner < 0.4:
        return pixels
    if manner < 0.7:
        return pixels + _gradient(rng, shape, rng.uniform(5, 20))[..., None]
    return pixels + _texture(rng, shape, rng.uniform(4, 20))[..., None]


def _ground(rng: np.random.Generator, size: int) -> np.ndarray:
    """``(size, size, 3)`` float32: plain, shaded, textured or striped; dark, light, grey or coloured."""
    level = rng.choice([rng.uniform(5, 50), rng.uniform(60, 190), rng.uniform(200, 245)])
    tint = rng.uniform(-40, 40, 3) if rng.random() < 0.5 else np.zeros(3)
    plane = np.zeros((size, size), np.float32)
    manner = rng.integers(4)
    if manner == 1:
        plane += _gradient(rng, plane.shape, rng.uniform(10, 60))
    elif manner == 2:
        plane += _texture(rng, plane.shape, rng.uniform(5, 25))
    elif manner == 3:
        waves = _gradient(rng, plane.shape, rng.uniform(5, 60))
        plane += rng.uniform(4, 15) * np.sin(waves)
    return plane[..., None] + np.clip(level + tint, 0, 255).astype(np.float32)


def _gradient(rng: np.random.Generator, shape: tuple[int, int], amplitude: float) -> np.ndarray:
    """``(h, w)`` float32 ramp in a random direction, from about ``-amplitude`` to ``amplitude``."""
    angle = rng.uniform(0, 2 * np.pi)
    rows = np.linspace(-amplitude, amplitude, shape[0], dtype=np.float32) * np.float32(np.sin(angle))
    columns = np.linspace(-amplitude, amplitude, shape[1], dtype=np.float32) * np.float32(np.cos(angle))
    return rows[:, None] + columns[None]


def _texture(rng: np.random.Generator, shape: tuple[int, int], amplitude: float) -> np.ndarray:
    """``(h, w)`` float32 smooth noise of a random grain and standard deviation of about ``amplitude``."""
    grain = int(rng.integers(2, 17))
    coarse = rng.standard_normal((shape[0] // grain + 2, shape[1] // grain + 2), np.float32)
    return cv2.resize(coarse * np.float32(amplitude), shape[::-1], interpolation=cv2.INTER_LINEAR)


def _develop(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """What a camera does to the scene: blur, noise, 8 bits, sometimes no colour."""
    canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.4, 1.2))
    if rng.random() < 0.3:
        canvas = cv2.cvtColor(cv2.cvtColor(canvas, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    noise = rng.standard_normal(canvas.shape[:2], np.float32) * np.float32(rng.uniform(0, 8))
    return np.clip(canvas + noise[..., None], 0, 255).astype(np.uint8)


def _blob(rng: np.random.Generator, radius: float) -> np.ndarray:
    """A smooth closed curve: a circle with a few low harmonics."""
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    harmonics = np.arange(2, 6)
    phases = rng.uniform(0, 2 * np.pi, len(harmonics))
    heights = rng.uniform(0, 0.35, len(harmonics)) / harmonics
    radii = 1 + (heights[:, None] * np.sin(harmonics[:, None] * angles + phases[:, None])).sum(axis=0)
    return _polar(angles, radius * radii / radii.max())


def _ellipse(rng: np.random.Generator, radius: float) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return _polar(angles, np.full(48, radius)) * [1, rng.uniform(0.4, 1)]


def _polygon(rng: np.random.Generator, radius: float) -> np.ndarray:
    """3 to 8 corners at random distances: often concave."""
    corners = int(rng.integers(3, 9))
    angles = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * (2 * np.pi / corners)
    return _polar(angles, radius * rng.uniform(0.5, 1, corners))


def _rectangle(rng: np.random.Generator, radius: float) -> np.ndarray:
    half = radius * np.array([0.8, rng.uniform(0.25, 0.8)])
    return half * [[-1, -1], [1, -1], [1, 1], [-1, 1]]


def _ribbon(rng: np.random.Generator, radius: float) -> np.ndarray:
    """A thin bent strip."""
    along = np.linspace(-1, 1, 24)
    bend = rng.uniform(-0.6, 0.6) * (along**2 - 0.5) + rng.uniform(-0.3, 0.3) * along**3
    width = max(1.5, radius * rng.uniform(0.06, 0.15)) / radius
    upper = np.stack([along, bend - width], axis=1)
    lower = np.stack([along, bend + width], axis=1)
    return radius * 0.9 * np.concatenate([upper, lower[::-1]])


def _polar(angles: np.ndarray, radii: np.ndarray) -> np.ndarray:
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


OUTLINES: list[Outline] = [_blob, _ellipse, _polygon, _rectangle, _ribbon]
