"""What old values become. Each function raises a ValueError, which says why, where a value cannot stand here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from mobilesam_core.config.train import as_name


def whole(least: int) -> Callable[[Any], int]:
    """A whole number from ``least``."""

    def convert(value: Any) -> int:
        if not _is_number(value) or value != int(value) or value < least:
            raise ValueError(f"{value!r} is no whole number from {least}")
        return int(value)

    return convert


def number(value: Any) -> float:
    """A number from 0."""
    if not _is_number(value) or value < 0:
        raise ValueError(f"{value!r} is no number from 0")
    return float(value)


def positive(value: Any) -> float:
    """A number above 0."""
    if not _is_number(value) or value <= 0:
        raise ValueError(f"{value!r} is no number above 0")
    return float(value)


def flag(value: Any) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def text(value: Any) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{value!r} is no text")
    return value


def name(value: Any) -> str:
    """A text as the name of a folder, or of a teacher."""
    return as_name(text(value), "run")


def model(value: Any) -> str:
    """A model's name."""
    if value not in ("vit_t", "vit_b", "vit_l", "vit_h"):
        raise ValueError(f"there is no model {value!r}; the default is vit_t, MobileSAM")
    return str(value)


def image_size(value: Any) -> int:
    """The side of the model's input."""
    size = whole(64)(value)
    if size % 64:
        raise ValueError(f"{size} is no multiple of 64; the default is 1024")
    return size


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
