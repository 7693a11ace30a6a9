"""From a domain to one image and its label map.

All polygons are first drawn into a map of paints, one number a pixel; then all pixels are coloured at once by
looking their paint up: an object more costs an outline, not a pass over its pixels (``benchmarks/draw_shapes.py``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from mobilesam_core.data.shapes.domains import Domain
from mobilesam_core.data.shapes.outlines import OUTLINES
from mobilesam_core.data.shapes.paint import Paints, develop, draw_fields

MIN_VISIBLE_PIXELS = 12
"""A shape of which later ones leave less to be seen is no object."""

_MIN_RADIUS = 2.0  # pixels
_FRACTION_BITS = 4


@dataclass(frozen=True)
class _Shapes:
    """n polygons, each with its middle ``(n, 2)`` and radius ``(n,)`` in pixels; of an image of like objects all
    are painted alike."""

    polygons: list[np.ndarray]
    middles: np.ndarray
    radii: np.ndarray
    alike: bool


def draw_scene(
    rng: np.random.Generator, size: int, domain: Domain, max_shapes: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """One image, ``(size, size, 3)`` uint8 RGB, and its ``(size, size)`` uint16 label map, ids 1..N.

    N is at least 1 and at most ``max_shapes``, if given, else the domain's largest count.
    """
    while True:
        image, label_map = _draw(rng, size, domain, max_shapes)
        visible = np.bincount(label_map.ravel())
        visible[0] = 0
        kept = visible >= MIN_VISIBLE_PIXELS
        if kept.any():  # else each shape is at the border or hidden: rare, and drawn again
            return image, np.where(kept, np.cumsum(kept), 0).astype(np.uint16)[label_map]


def _draw(rng: np.random.Generator, size: int, domain: Domain, max_shapes: int | None) -> tuple[np.ndarray, np.ndarray]:
    paints = Paints(rng, size, domain)
    paint_map = np.zeros((size, size), np.uint16)
    # Things in the background that are nobody's object.
    clutter = _clutter(rng, size)
    for paint, polygon in enumerate(clutter, paints.add_clutter(len(clutter))):
        _fill(paint_map, [polygon], paint)
    shapes = _shapes(rng, size, domain, max_shapes)
    first = paints.add_objects(shapes.middles, shapes.radii, shapes.alike)
    n = len(shapes.polygons)
    owners = [0] * first + list(range(1, n + 1))  # of each paint, the object it belongs to
    inner = rng.random(n)
    marked: list[int] = []
    for i, (polygon, middle) in enumerate(zip(shapes.polygons, shapes.middles, strict=True)):
        rings = [polygon]
        if inner[i] < domain.holed:
            rings.append(_shrunk(rng, polygon, middle))
        _fill(paint_map, rings, first + i)
        if domain.holed <= inner[i] < domain.holed + domain.marked:
            _mark(paint_map, _shrunk(rng, polygon, middle), first + i, len(owners))
            owners.append(i + 1)
            marked.append(first + i)
    paints.add_markings(marked)
    canvas = paints.apply(paint_map, draw_fields(rng, size, domain.patterns))
    return develop(rng, canvas), np.array(owners, np.uint16)[paint_map]


def _shapes(rng: np.random.Generator, size: int, domain: Domain, max_shapes: int | None) -> _Shapes:
    largest = max(_MIN_RADIUS, size * math.exp(rng.uniform(*np.log(domain.radius))))
    n = round(math.exp(rng.uniform(*np.log(domain.count))))
    if domain.placement == "apart":
        middles = _loose_grid(rng, size, largest)[:n]
        n = len(middles)
    else:
        middles = rng.uniform(0, size, (n, 2))
    if max_shapes is not None:
        n = min(n, max_shapes)
        middles = middles[:n]
    radii = np.maximum(_MIN_RADIUS, largest * rng.uniform(domain.spread, 1, n))
    alike = bool(rng.random() < domain.alike)
    kinds = rng.integers(len(domain.outlines), size=1 if alike else n)
    kinds = np.broadcast_to(kinds, n)
    turns = rng.uniform(0, 2 * np.pi, n)
    cosines, sines = np.cos(turns) * radii, np.sin(turns) * radii
    rotations = np.stack([cosines, sines, -sines, cosines], axis=1).reshape(n, 2, 2)
    polygons: list[np.ndarray] = [np.empty(0)] * n
    for kind in np.unique(kinds):
        members = np.flatnonzero(kinds == kind)
        outlines = OUTLINES[domain.outlines[kind]](rng, len(members))
        for i, points in zip(members, outlines @ rotations[members] + middles[members, None], strict=True):
            polygons[i] = points
    return _Shapes(polygons, middles, radii, alike)


def _loose_grid(rng: np.random.Generator, size: int, radius: float) -> np.ndarray:
    """Middles of neighbours that touch here and there: ``(n, 2)``, shuffled."""
    step = 2 * radius * rng.uniform(0.85, 2.0)
    line = np.arange(rng.uniform(0, step), size, step)
    middles = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    middles = middles + rng.uniform(-0.3, 0.3, middles.shape) * step
    return np.clip(rng.permutation(middles), 0, size - 1)


def _clutter(rng: np.random.Generator, size: int) -> list[np.ndarray]:
    if rng.random() < 0.6:
        return []
    n = int(rng.integers(1, 7))
    radii = size * np.exp(rng.uniform(math.log(0.02), math.log(0.8), (n, 1, 1)))
    return list(OUTLINES["polygon"](rng, n) * radii + rng.uniform(0, size, (n, 1, 2)))


def _shrunk(rng: np.random.Generator, polygon: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """A smaller copy inside: outlines can be seen whole from their middle, or nearly so."""
    return middle + (polygon - middle) * rng.uniform(0.3, 0.75)


def _fill(paint_map: np.ndarray, rings: list[np.ndarray], paint: int) -> None:
    # Fractional bits let outlines fall between pixels; of two rings the inner one is a hole.
    scaled = [np.rint(ring * (1 << _FRACTION_BITS)).astype(np.int32) for ring in rings]
    cv2.fillPoly(paint_map, scaled, paint, cv2.LINE_8, _FRACTION_BITS)


def _mark(paint_map: np.ndarray, patch: np.ndarray, own: int, paint: int) -> None:
    """Paint a patch where ``own`` is seen: of a concave outline the smaller copy may reach over the edge."""
    covered = np.zeros_like(paint_map)
    _fill(covered, [patch], 1)
    paint_map[(covered > 0) & (paint_map == own)] = paint
