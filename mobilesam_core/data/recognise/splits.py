"""What the names of folders and files say about splits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

Split = Literal["train", "val", "test"]

_WORDS: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
_WORD = re.compile(rf"(?<![a-z])({'|'.join(_WORDS)})(?![a-z])")


def split_of(place: Path) -> Split | None:
    """The split that ``place`` names, as in ``val2017/images`` or ``instances_val.json``: the last; None if none."""
    found = _WORD.findall(place.as_posix().lower())
    return _WORDS[found[-1]] if found else None


def without_split(place: Path) -> str:
    """``place`` with a star for each split, by which the splits of one set are alike."""
    return _WORD.sub("*", place.as_posix().lower())
