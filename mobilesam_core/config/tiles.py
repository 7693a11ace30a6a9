"""Tiles: large images looked at in parts, so that small objects are not scaled down to nothing."""

from __future__ import annotations

from pydantic import model_validator

from mobilesam_core.config.base import Config

SMALLEST_TILE = 64


def tiling_problem(tile: int, overlap: int) -> str | None:
    """What is wrong with tiles of this side that share ``overlap`` pixels; None if nothing is."""
    if tile < SMALLEST_TILE:
        return f"tile is {tile} pixels, the least is {SMALLEST_TILE}"
    if not 0 <= overlap < tile:
        return f"overlap is {overlap} pixels, it must be from 0 to less than tile ({tile})"
    return None


class TileConfig(Config):
    """Keys of the sections that know tiles."""

    tile: int | None = None
    """Side, in pixels of the image, of square parts that images are looked at in; one that is not larger is seen whole
    (null: all are)."""
    overlap: int = 64
    """Pixels that neighbouring tiles share, at least: an object that is not larger is whole in one of them."""

    @model_validator(mode="after")
    def _tiles(self) -> TileConfig:
        if self.tile is not None and (problem := tiling_problem(self.tile, self.overlap)):
            raise ValueError(problem)
        return self
