"""The file of ``mobilesam predict --prompts``: what to segment in many images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from mobilesam_core.config.base import Config


class ObjectPrompts(Config):
    """All prompts of one object, in pixels of the upright image (EXIF rotation applied)."""

    points: list[tuple[float, float]] = []
    """``[x, y]`` each."""
    labels: list[int] | None = None
    """1 (on the object) or 0 (not on it) for each point; all 1 when left out."""
    box: tuple[float, float, float, float] | None = None
    """``[x1, y1, x2, y2]``."""
    mask: Path | None = None
    """A mask of the object as far as it is known: an image of the same size (not 0 is object), or a ``.npy``
    of low-resolution logits. Relative to the prompt file."""


class ImagePrompts(Config):
    """One image and its objects."""

    image: Path
    """Relative to the prompt file."""
    objects: Annotated[list[ObjectPrompts], Field(min_length=1)]


class PromptFile(Config):
    """All images of one file.

    ``{"images": [{"image": "a.jpg", "objects": [{"points": [[x, y]], "labels": [1], "box": [x1, y1, x2, y2]}]}]}``
    """

    images: Annotated[list[ImagePrompts], Field(min_length=1)]
