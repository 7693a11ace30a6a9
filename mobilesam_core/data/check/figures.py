"""How many objects a set has, how large they are, and of which classes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mobilesam_core.config.data import AugmentConfig
from mobilesam_core.data.check.looking import Objects
from mobilesam_core.data.view import largest_factor
from mobilesam_core.ops.tiles import Tiling

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
SIDES = (4, 8, 16, 32, 64, 128, 256)
"""Edges of the histogram of sizes."""


@dataclass(frozen=True)
class ClassFigures:
    """name: None where the set has no names. objects, images: how many there are, and how many images have one."""

    id: int
    name: str | None
    objects: int
    images: int


@dataclass(frozen=True)
class SetFigures:
    """Of the images of a set that can be used; of a mix each counts once.

    unannotated: images that have no object and are left out; None in formats that do not allow it, and in a mix.
    tiles: how many are trained on; None where images are.
    sides: quantiles of the objects' sizes, in pixels of the image; a size is the side of the square of the same area.
    sides_in_frame: the same in pixels of the model's input, magnified as far as training may.
    histogram: objects by size, in pixels of the image.
    vanishing: of some image sizes, how many objects never have ``data.min_object_area`` pixels of the input.
    classes: by id; None where the format has none.
    """

    images: int
    unannotated: int | None
    tiles: int | None
    objects: int
    objects_per_image: float
    sides: dict[str, float]
    sides_in_frame: dict[str, float]
    histogram: dict[str, int]
    vanishing: dict[int, int]
    classes: tuple[ClassFigures, ...] | None

    def to_json(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return asdict(self)


def set_figures(
    found: Sequence[Objects],
    *,
    image_size: int,
    min_object_area: int,
    augment: AugmentConfig,
    class_names: Mapping[int, str] | None,
    unannotated: int | None,
    tiling: Tiling | None = None,
    tiles: int | None = None,
) -> SetFigures:
    """Sum up the objects of the images of a set.

    Args:
        augment: what magnifies the images on their way into the input.
        tiling: what they are cut into before; each object counts as if a tile showed it whole.
        class_names: of the labels; None where they are no classes.
    """
    areas = np.concatenate([np.zeros(0), *(each.areas for each in found)])
    factors = np.concatenate(
        [np.zeros(0), *(np.full(len(each.areas), _factor(each.shape, augment, tiling)) for each in found)]
    )
    sides = np.sqrt(areas)
    bins = np.searchsorted(SIDES, sides, side="right")
    return SetFigures(
        images=len(found),
        unannotated=unannotated,
        tiles=tiles,
        objects=len(areas),
        objects_per_image=round(len(areas) / max(1, len(found)), 2),
        sides=_quantiles(sides),
        sides_in_frame=_quantiles(sides * factors * image_size),
        histogram={name: int((bins == place).sum()) for place, name in enumerate(_bin_names())},
        vanishing={
            size: int((areas * (factors * size) ** 2 < min_object_area).sum())
            for size in (image_size // 2, image_size, image_size * 2)
        },
        classes=None if class_names is None else _classes(found, class_names),
    )


def _factor(shape: tuple[int, int], augment: AugmentConfig, tiling: Tiling | None) -> float:
    return largest_factor(shape if tiling is None else tiling.shape(*shape), augment, 1)


def _bin_names() -> list[str]:
    between = [f"{low}-{high}" for low, high in itertools.pairwise(SIDES)]
    return [f"<{SIDES[0]}", *between, f">={SIDES[-1]}"]


def _quantiles(values: np.ndarray) -> dict[str, float]:
    if len(values) == 0:
        return {}
    return {
        f"{q:.0%}": round(float(value), 1) for q, value in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)
    }


def _classes(found: Sequence[Objects], names: Mapping[int, str]) -> tuple[ClassFigures, ...]:
    nothing = np.zeros(0, np.int64)
    objects = np.unique(np.concatenate([nothing, *(each.labels for each in found)]), return_counts=True)
    images = np.unique(np.concatenate([nothing, *(np.unique(each.labels) for each in found)]), return_counts=True)
    return tuple(
        ClassFigures(int(label), names.get(int(label)), int(count), int(seen))
        for label, count, seen in zip(*objects, images[1], strict=True)
    )
