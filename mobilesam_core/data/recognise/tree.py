"""What lies in a folder and below it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mobilesam_core.data.reading import IMAGE_SUFFIXES
from mobilesam_core.data.recognise.splits import split_of

Item = TypeVar("Item")


@dataclass(frozen=True)
class Folder:
    """A folder and its files, hidden ones left out; ``images`` by stem."""

    path: Path
    images: dict[str, Path]
    jsons: tuple[Path, ...]
    texts: tuple[Path, ...]
    subfolders: tuple[str, ...]


class Tree:
    """``root`` and the folders below it, sorted; each once, whatever links lead to it.

    depth: how deep to look. most: at most so many folders (None: all).
    """

    def __init__(self, root: Path, depth: int = 5, most: int | None = None) -> None:
        self.root = root
        self.folders: list[Folder] = []
        self._of_stem: dict[str, list[Folder]] | None = None
        seen: set[str] = set()
        for name, below, files in os.walk(root, followlinks=True):
            path = Path(name)
            below[:] = sorted(each for each in below if not each.startswith("."))
            real = os.path.realpath(name)
            if real in seen or (most is not None and len(self.folders) >= most):
                below[:] = []
                continue
            seen.add(real)
            self.folders.append(_folder(path, files, below))
            if len(path.relative_to(root).parts) >= depth:
                below[:] = []

    @property
    def images(self) -> int:
        """How many image files there are."""
        return sum(len(folder.images) for folder in self.folders)

    def relative(self, path: Path) -> Path:
        """``path`` as the config has it, below ``root``."""
        return path.relative_to(self.root)

    def best_match(self, stems: Iterable[str], near: Path) -> Folder | None:
        """The folder with most images of these stems; of several, the one most alike ``near`` in split and path.

        None where no folder has any.
        """
        if self._of_stem is None:
            self._of_stem = {}
            for folder in self.folders:
                for stem in folder.images:
                    self._of_stem.setdefault(stem, []).append(folder)
        hits: Counter[Path] = Counter()
        for stem in stems:
            hits.update(folder.path for folder in self._of_stem.get(stem, ()))
        return self.most_alike(hits, near)

    def most_alike(self, hits: Mapping[Path, int], near: Path) -> Folder | None:
        """Of the folders with ``hits`` the one most alike ``near`` in split, then in these and in path; or None."""
        if not any(hits.values()):
            return None
        wanted = self.relative(near)

        def rank(folder: Folder) -> tuple[bool, bool, int]:
            place = self.relative(folder.path)
            shared = sum(part in wanted.parts for part in place.parts)
            # Stems like 0001 are in every split, and not in each as often.
            own = hits.get(folder.path, 0)
            return own > 0, split_of(place) == split_of(wanted), own + shared

        return max(self.folders, key=rank)


def _folder(path: Path, files: Iterable[str], below: Sequence[str]) -> Folder:
    images: dict[str, Path] = {}
    others: dict[str, list[Path]] = {".json": [], ".txt": []}
    for file in sorted(each for each in files if not each.startswith(".")):
        suffix = os.path.splitext(file)[1].lower()  # noqa: PTH122  (a Path a file is slow where there are a million)
        if suffix in IMAGE_SUFFIXES:
            images.setdefault(file[: -len(suffix)], path / file)
        elif suffix in others:
            others[suffix].append(path / file)
    return Folder(path, images, tuple(others[".json"]), tuple(others[".txt"]), tuple(below))
