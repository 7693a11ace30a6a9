"""Closed outlines of random shapes, drawn many at a time.

Each function returns ``(n, points, 2)`` float64 ``(x, y)``: n polygons about the origin, within the unit disc.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

Outline = Callable[[np.random.Generator, int], np.ndarray]

_TURN = 2 * np.pi


def _blob(rng: np.random.Generator, n: int) -> np.ndarray:
    """A circle with a few low harmonics."""
    angles = np.linspace(0, _TURN, 40, endpoint=False)
    order = np.arange(2, 6)
    phases = rng.uniform(0, _TURN, (n, 1, len(order)))
    heights = rng.uniform(0, 0.35, (n, 1, len(order))) / order
    radii = 1 + (heights * np.sin(angles[:, None] * order + phases)).sum(axis=-1)
    return _polar(angles, radii / radii.max(axis=1, keepdims=True))


def _ellipse(rng: np.random.Generator, n: int) -> np.ndarray:
    angles = np.linspace(0, _TURN, 32, endpoint=False)
    return _polar(angles, np.ones((n, 32))) * np.stack([np.ones(n), rng.uniform(0.4, 1, n)], axis=1)[:, None]


def _polygon(rng: np.random.Generator, n: int) -> np.ndarray:
    """3 to 8 corners at random distances: often concave."""
    corners = rng.integers(3, 9, (n, 1))
    place = np.minimum(np.arange(8), corners - 1)  # polygons of fewer corners repeat their last
    angles = (place + np.take_along_axis(rng.uniform(-0.3, 0.3, (n, 8)), place, 1)) * (_TURN / corners)
    return _polar(angles, np.take_along_axis(rng.uniform(0.5, 1, (n, 8)), place, 1))


def _rectangle(rng: np.random.Generator, n: int) -> np.ndarray:
    half = np.stack([np.full(n, 0.8), rng.uniform(0.15, 0.6, n)], axis=1)
    return half[:, None] * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])


def _ribbon(rng: np.random.Generator, n: int) -> np.ndarray:
    """A thin bent strip of even width."""
    along = np.linspace(-0.9, 0.9, 20)
    return _strip(along, _bend(rng, n, along), rng.uniform(0.04, 0.13, (n, 1)))


def _spindle(rng: np.random.Generator, n: int) -> np.ndarray:
    """A bent leaf, pointed at both ends."""
    along = np.linspace(-1, 1, 24)
    profile = (1 - along**2) ** rng.uniform(0.5, 1.2, (n, 1)) * (1 + rng.uniform(-0.4, 0.4, (n, 1)) * along)
    return _strip(along, 0.5 * _bend(rng, n, along), rng.uniform(0.15, 0.5, (n, 1)) * profile)


def _star(rng: np.random.Generator, n: int) -> np.ndarray:
    """4 to 7 points."""
    points = 2 * rng.integers(4, 8, (n, 1))
    place = np.minimum(np.arange(14), points - 1)
    return _polar(place * (_TURN / points), np.where(place % 2, rng.uniform(0.35, 0.6, (n, 1)), 1.0))


def _cross(rng: np.random.Generator, n: int) -> np.ndarray:
    arm = rng.uniform(0.15, 0.35, (n, 1))
    signs = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    quarter = np.stack([np.stack([np.full_like(arm, 0.9), arm], -1), np.stack([arm, arm], -1),
                        np.stack([arm, np.full_like(arm, 0.9)], -1)], axis=2)[:, 0]  # fmt: skip
    # Every other quarter runs the other way round, so that the corners follow one another.
    quarters = [quarter[:, :: 1 if i % 2 == 0 else -1] * sign for i, sign in enumerate(signs)]
    return np.concatenate(quarters, axis=1)


def _crescent(rng: np.random.Generator, n: int) -> np.ndarray:
    angles = np.linspace(-0.5, 0.5, 20) * np.pi
    outer = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    inner_x = rng.uniform(-0.2, 0.6, (n, 1)) * np.cos(angles)
    inner = np.stack([inner_x, np.broadcast_to(outer[:, 1], inner_x.shape)], axis=-1)[:, ::-1]
    middle = np.array([0.4, 0.0])  # about that of the shape, not of its disc
    return np.concatenate([np.broadcast_to(outer, inner.shape), inner], axis=1) * 0.9 - middle


def _gear(rng: np.random.Generator, n: int) -> np.ndarray:
    """A wheel of 6 to 12 teeth."""
    teeth = rng.integers(6, 13, (n, 1))
    place = np.minimum(np.arange(48), 4 * teeth - 1)
    radii = np.where(place % 4 < 2, 1.0, rng.uniform(0.65, 0.85, (n, 1)))
    return _polar(place * (_TURN / 4) / teeth, radii)


def _spanner(rng: np.random.Generator, n: int) -> np.ndarray:
    """A shaft with a round end, and a head with open jaws."""
    shaft, end, head = rng.uniform(0.06, 0.1, (n, 1)), rng.uniform(0.13, 0.17, (n, 1)), rng.uniform(0.2, 0.26, (n, 1))
    jaw = head * rng.uniform(0.4, 0.6, (n, 1))
    share = np.linspace(0, 1, 10)

    def arc(middle: np.ndarray, radius: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        angles = first + (last - first) * share
        return np.stack([middle + radius * np.cos(angles), radius * np.sin(angles)], axis=-1)

    tail = arc(end - 0.95, end, np.full_like(end, np.pi), np.arcsin(shaft / end))
    mouth = arc(0.95 - head, head, np.pi - np.arcsin(shaft / head), np.arcsin(jaw / head))
    gullet = np.stack([0.95 - head - 0.3 * jaw, jaw], axis=-1)
    upper = np.concatenate([tail, mouth, gullet], axis=1)
    return np.concatenate([upper, upper[:, ::-1] * (1, -1)], axis=1)


def _fork(rng: np.random.Generator, n: int) -> np.ndarray:
    """A handle and three prongs."""
    handle, prong, gap = rng.uniform(0.06, 0.1, n), rng.uniform(0.045, 0.065, n), rng.uniform(0.07, 0.1, n)
    neck, half = rng.uniform(0.1, 0.35, n), 3 * prong + 2 * gap  # of all prongs together
    tip, inner = np.full(n, 0.9), half - 2 * prong
    upper = [(-tip, handle), (neck - 0.15, handle), (neck, half), (tip, half), (tip, inner), (neck + 0.1, inner),
             (neck + 0.1, prong), (tip, prong)]  # fmt: skip
    points = np.stack([np.stack(point, axis=-1) for point in upper], axis=1)
    return np.concatenate([points, points[:, ::-1] * (1, -1)], axis=1)


def _hook(rng: np.random.Generator, n: int) -> np.ndarray:
    """A cane: a straight shaft of even width that bends back at one end."""
    radius, width = rng.uniform(0.22, 0.32, (n, 1)), rng.uniform(0.06, 0.1, (n, 1))
    angles = np.linspace(-np.pi / 2, 1, 20) * np.ones((n, 1)) * rng.uniform(0.85, 1.3, (n, 1))
    angles = angles - angles[:, :1] - np.pi / 2  # from the shaft's end, downwards
    bow = 0.6 - radius

    def side(offset: np.ndarray) -> np.ndarray:
        bent = np.stack([bow + (radius + offset) * np.cos(angles), (radius + offset) * np.sin(angles)], axis=-1)
        start = np.stack([np.full((n, 1), -0.9), -radius - offset], axis=-1)
        return np.concatenate([start, bent], axis=1)

    return np.concatenate([side(width), side(-width)[:, ::-1]], axis=1)


def _rule(rng: np.random.Generator, n: int) -> np.ndarray:
    """A folding rule: a zigzag of four limbs."""
    x = np.linspace(-0.85, 0.85, 5)
    y = np.array([-1, 1, -1, 1, -1]) * rng.uniform(0.12, 0.4, (n, 1)) * rng.uniform(0.7, 1, (n, 5))
    return _strip(x, y, rng.uniform(0.08, 0.13, (n, 1)))


def _bend(rng: np.random.Generator, n: int, along: np.ndarray) -> np.ndarray:
    return rng.uniform(-0.6, 0.6, (n, 1)) * (along**2 - 0.5) + rng.uniform(-0.3, 0.3, (n, 1)) * along**3


def _strip(along: np.ndarray, middle: np.ndarray, half_width: np.ndarray) -> np.ndarray:
    x = np.broadcast_to(along, middle.shape)
    upper, lower = (np.stack([x, middle + sign * half_width], axis=-1) for sign in (-1, 1))
    points = np.concatenate([upper, lower[:, ::-1]], axis=1)
    return points / max(1.0, np.linalg.norm(points, axis=-1).max())


def _polar(angles: np.ndarray, radii: np.ndarray) -> np.ndarray:
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=-1)


OUTLINES: Mapping[str, Outline] = {
    "blob": _blob,
    "ellipse": _ellipse,
    "polygon": _polygon,
    "rectangle": _rectangle,
    "ribbon": _ribbon,
    "spindle": _spindle,
    "star": _star,
    "cross": _cross,
    "crescent": _crescent,
    "gear": _gear,
    "spanner": _spanner,
    "fork": _fork,
    "hook": _hook,
    "rule": _rule,
}
