"""Colours, shading and textures of a drawn image, and what the camera makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np

from mobilesam_core.data.shapes.domains import Domain

FIELDS = 3
"""Textures an image has to offer: two kinds of noise and a pattern."""


class Paints:
    """What each number of a paint map looks like: a colour, a linear shade across the image, textures.

    Paint 0 is the ground. Units are grey levels of 0 to 255, and pixels.
    """

    def __init__(self, rng: np.random.Generator, size: int, domain: Domain) -> None:
        self._rng = rng
        self._size = size
        self._domain = domain
        # Known before any contrast is drawn: two colours told apart by their hue would be one grey.
        self._grey = bool(rng.random() < 0.35)
        level = rng.choice([rng.uniform(5, 50), rng.uniform(60, 190), rng.uniform(200, 245)])
        tint = rng.uniform(-40, 40, 3) if rng.random() < 0.5 and not self._grey else np.zeros(3)
        shade = _directions(rng, 1) * (rng.uniform(0, 50) / size if rng.random() < 0.4 else 0.0)
        self._ground_field = int(rng.integers(FIELDS))
        texture = np.zeros((1, FIELDS))
        if rng.random() < 0.5:
            texture[0, self._ground_field] = rng.uniform(4, 25)
        self._colours = np.clip(level + tint, 0, 255)[None]
        self._middles = np.full((1, 2), size / 2)
        self._shades = shade
        self._textures = texture

    def add_clutter(self, n: int) -> int:
        """Paints of ``n`` things in the background; returns the number of the first."""
        middles = self._rng.uniform(0, self._size, (n, 2))
        hues = self._rng.uniform(-15, 15, (n, 3)) * (not self._grey)
        colours = self._colours[0] + self._rng.uniform(-50, 50, (n, 1)) + hues
        return self._add(np.clip(colours, 0, 255), middles, np.zeros((n, 2)), self._draw_textures(n))

    def add_objects(self, middles: np.ndarray, radii: np.ndarray, alike: bool) -> int:
        """Paints of objects at ``(n, 2)`` middles that stand out from the ground there; the number of the first."""
        n, rng = len(middles), self._rng
        drawn = 1 if alike else n
        shifts = self._contrasts(drawn, self._domain.contrast) * rng.uniform(0.65, 1, (n, 1))
        ground = self._colours[0] + ((middles - self._middles[0]) @ self._shades[0])[:, None]
        strength = np.where(rng.random(n) < 0.4, rng.uniform(0, 25, n), 0) / radii
        textures = np.broadcast_to(self._draw_textures(drawn), (n, FIELDS))
        return self._add(_shifted(ground, shifts), middles, _directions(rng, n) * strength[:, None], textures)

    def add_markings(self, objects: list[int]) -> int:
        """Paints of patches on objects of those paints; the number of the first."""
        rows = np.array(objects, np.intp)
        colours = _shifted(self._colours[rows], self._contrasts(len(rows), self._domain.marking))
        return self._add(colours, self._middles[rows], self._shades[rows], self._textures[rows])

    def apply(self, paint_map: np.ndarray, fields: np.ndarray) -> np.ndarray:
        """Colour an ``(H, W)`` map: ``(H, W, 3)`` float32. fields: ``(FIELDS, H, W)`` float32."""
        paints = paint_map.astype(np.intp)
        y, x = np.arange(self._size, dtype=np.float32)[:, None], np.arange(self._size, dtype=np.float32)
        offsets = -(self._middles * self._shades).sum(axis=1)
        tone = np.zeros(paint_map.shape, np.float32)
        shade_x, shade_y, offset = np.concatenate([self._shades, offsets[:, None]], axis=1).T.astype(np.float32)
        if self._shades.any():
            tone = offset.take(paints) + shade_x.take(paints) * x + shade_y.take(paints) * y
        for field, strengths in zip(fields, self._textures.T.astype(np.float32), strict=True):
            if strengths.any():
                tone += strengths.take(paints) * field
        canvas = self._colours.astype(np.float32).take(paints, axis=0)
        canvas += tone[..., None]
        return canvas

    def _add(self, colours: np.ndarray, middles: np.ndarray, shades: np.ndarray, textures: np.ndarray) -> int:
        first = len(self._colours)
        self._colours = np.concatenate([self._colours, colours])
        self._middles = np.concatenate([self._middles, middles])
        self._shades = np.concatenate([self._shades, shades])
        self._textures = np.concatenate([self._textures, textures])
        return first

    def _draw_textures(self, n: int) -> np.ndarray:
        """``(n, FIELDS)``: how much of each field a paint has; of one or none, and never of the ground's."""
        rng, domain = self._rng, self._domain
        strengths = np.where(rng.random(n) < domain.textured, rng.uniform(*domain.texture, n), 0)
        fields = (self._ground_field + rng.integers(1, FIELDS, n)) % FIELDS
        return np.eye(FIELDS)[fields] * strengths[:, None]

    def _contrasts(self, n: int, strength: tuple[float, float]) -> np.ndarray:
        """``(n, 3)`` shifts of colour, each as strong as drawn in some channel; of a colour image half are grey."""
        rng = self._rng
        directions = rng.uniform(-1, 1, (n, 3))
        directions /= np.abs(directions).max(axis=1, keepdims=True)
        directions[rng.random(n) < (1.0 if self._grey else 0.5)] = 1
        return directions * (rng.uniform(*strength, (n, 1)) * rng.choice([-1, 1], (n, 1)))


def draw_fields(rng: np.random.Generator, size: int, patterns: tuple[str, ...]) -> np.ndarray:
    """``(FIELDS, size, size)`` float32 of mean 0 and deviation about 1: fine noise, coarse noise and a pattern."""
    fine, coarse = (_noise(rng, size, int(rng.integers(low, high))) for low, high in ((1, 5), (6, 20)))
    pattern = PATTERNS[patterns[rng.integers(len(patterns))]](rng, size)
    return np.stack([fine, coarse, pattern])


def develop(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """What a camera does to an ``(H, W, 3)`` float32 scene, which is used up: light, blur and noise; uint8."""
    if rng.random() < 0.3:
        light = _ramp(rng, len(canvas), rng.uniform(0, 0.25))
        canvas *= (1 + light - light.max())[..., None]  # never brighter: cut off at white, objects would vanish
    canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.4, 1.3))
    noise = rng.standard_normal(canvas.shape[:2], np.float32) * np.float32(rng.uniform(0, 8))
    canvas += noise[..., None]
    return np.clip(canvas, 0, 255, out=canvas).astype(np.uint8)


def _noise(rng: np.random.Generator, size: int, grain: int) -> np.ndarray:
    coarse = rng.standard_normal((size // grain + 2,) * 2, np.float32)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR)


def _ramp(rng: np.random.Generator, size: int, amplitude: float) -> np.ndarray:
    """``(size, size)`` float32 in a random direction, from about ``-amplitude`` to ``amplitude``."""
    x, y = _directions(rng, 1)[0].astype(np.float32)
    line = np.linspace(-amplitude, amplitude, size, dtype=np.float32)
    return line[:, None] * y + line * x


def _stripes(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.sin(_ramp(rng, size, np.pi * size / rng.uniform(5, 24))) * np.float32(1.4)


def _dots(rng: np.random.Generator, size: int) -> np.ndarray:
    x, y = _waves(rng, size)
    return np.float32(2) * ((x + y) > 0.8) - np.float32(0.5)


def _checks(rng: np.random.Generator, size: int) -> np.ndarray:
    x, y = _waves(rng, size)
    return np.sign(x * y)


def _weave(rng: np.random.Generator, size: int) -> np.ndarray:
    """Strands that run across in every other square, as in a basket."""
    x, y = _waves(rng, size)
    return np.where(x * y > 0, np.abs(x), np.abs(y)) * np.float32(4) - np.float32(2.5)


def _rings(rng: np.random.Generator, size: int) -> np.ndarray:
    """Circles about a point anywhere in the image."""
    x, y = (np.arange(size, dtype=np.float32) - np.float32(middle) for middle in rng.uniform(0, size, 2))
    return np.sin(np.hypot(x, y[:, None]) * np.float32(2 * np.pi / rng.uniform(6, 20))) * np.float32(1.4)


def _waves(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Sines along two perpendicular directions."""
    frequency, angle = 2 * np.pi / rng.uniform(6, 24), rng.uniform(0, 2 * np.pi)
    line = np.arange(size, dtype=np.float32) * np.float32(frequency)
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return np.sin(line * cosine + line[:, None] * sine), np.sin(line[:, None] * cosine - line * sine)


PATTERNS: Mapping[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "stripes": _stripes,
    "dots": _dots,
    "checks": _checks,
    "weave": _weave,
    "rings": _rings,
}


def _directions(rng: np.random.Generator, n: int) -> np.ndarray:
    """``(n, 2)`` unit vectors."""
    angles = rng.uniform(0, 2 * np.pi, n)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _shifted(colours: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Where a shift leaves the range of colours it goes the other way, so the contrast stays."""
    moved = colours + shifts
    return np.where((moved < 0) | (moved > 255), colours - shifts, moved)
