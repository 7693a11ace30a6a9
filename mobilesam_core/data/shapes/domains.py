"""The kinds of scene that can be drawn, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mobilesam_core.config.data import ShapesDomain

Range = tuple[float, float]


@dataclass(frozen=True)
class Domain:
    """What the images of a domain have in common.

    outlines, patterns: which occur (``outlines.py``, ``paint.py``).
    count: objects in an image. radius: of the largest of them, as a share of the image's side; both are drawn
    log-uniformly for each image. spread: the smallest object's radius as a share of the largest.
    placement: ``anywhere``, where later objects hide earlier ones, or ``apart``, on a loose grid.
    alike: how many images show objects of one outline and one paint, as under a microscope.
    holed, marked: how many objects have a hole in them, or a patch of another paint that belongs to them.
    marking: how far such a patch is from its object's colour, like ``contrast``.
    contrast: how far an object's mean colour is from its ground's, in grey levels of the channel where it is
    farthest; of some objects down to two thirds of that.
    textured: how many objects have a texture. texture: its standard deviation in grey levels.
    """

    outlines: tuple[str, ...]
    count: tuple[int, int]
    radius: Range
    spread: float = 0.4
    placement: Literal["anywhere", "apart"] = "anywhere"
    alike: float = 0.3
    holed: float = 0.0
    marked: float = 0.15
    marking: Range = (15, 80)
    contrast: Range = (25, 130)
    textured: float = 0.4
    texture: Range = (4, 22)
    patterns: tuple[str, ...] = ("stripes", "dots")


DOMAINS: Mapping[ShapesDomain, Domain] = {
    # Many small objects that touch but hardly hide one another: cells, seeds.
    "crowd": Domain(
        ("blob", "ellipse", "spindle"),
        count=(15, 90),
        radius=(0.025, 0.08),
        spread=0.5,
        placement="apart",
        alike=0.85,
        marked=0.05,
        textured=0.5,
    ),
    # A few pixels each.
    "specks": Domain(
        ("blob", "ellipse", "polygon"), count=(5, 60), radius=(0.008, 0.03), spread=0.5, alike=0.8, marked=0.0
    ),
    "polygons": Domain(("polygon", "rectangle"), count=(2, 14), radius=(0.08, 0.3)),
    # Thin and long: fibres, cracks, cables.
    "thin": Domain(("ribbon",), count=(2, 12), radius=(0.12, 0.5), alike=0.5, marked=0.0),
    "holes": Domain(("blob", "ellipse", "polygon"), count=(2, 14), radius=(0.08, 0.3), holed=0.8),
    # Things that lie on one another.
    "heap": Domain(
        ("blob", "ellipse", "polygon", "rectangle", "spindle"),
        count=(8, 30),
        radius=(0.12, 0.28),
        alike=0.0,
        marked=0.3,
        textured=0.6,
    ),
    # Told from the ground by texture, hardly by colour.
    "texture": Domain(
        ("blob", "polygon", "spindle"),
        count=(1, 8),
        radius=(0.12, 0.35),
        contrast=(5, 25),
        textured=1.0,
        texture=(18, 45),
    ),
    # One to three things that fill much of the image: leaves, portraits of objects.
    "large": Domain(
        ("blob", "polygon", "spindle", "ellipse"), count=(1, 3), radius=(0.35, 0.8), marked=0.5, textured=0.6
    ),
    # The last three are kept for trials. The start weights never saw these outlines, nor their chequered paint.
    "symbols": Domain(
        ("star", "cross", "crescent", "gear"),
        count=(3, 16),
        radius=(0.1, 0.28),
        marked=0.0,
        textured=0.6,
        patterns=("checks",),
    ),
    # Nor that a body and its nucleus, which stands out more than the body does, are always one object.
    "cells": Domain(
        ("blob", "ellipse"),
        count=(4, 20),
        radius=(0.08, 0.16),
        spread=0.6,
        placement="apart",
        alike=1.0,
        marked=1.0,
        marking=(90, 150),
        contrast=(15, 45),
        textured=0.3,
        texture=(4, 12),
    ),
    # Nor these outlines, weaves and rings, nor that an inlay belongs to its tool: thin things across one another.
    "tools": Domain(
        ("spanner", "fork", "hook", "rule"),
        count=(3, 8),
        radius=(0.28, 0.45),
        spread=0.7,
        alike=0.0,
        marked=0.9,
        marking=(70, 150),
        contrast=(40, 120),
        textured=0.6,
        texture=(6, 20),
        patterns=("weave", "rings"),
    ),
}
