"""Which images a job is about, what their results are called, and which of them are this machine's."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mobilesam_core.data.reading import folders_below, is_image, list_images
from mobilesam_core.errors import UsageError
from mobilesam_core.jobs.names import Folders, absolute, distinct_names

Item = TypeVar("Item")


@dataclass(frozen=True)
class ImageFile:
    """An image to work on. name: of its results, without suffix; ``/`` between folders; no other image has it."""

    path: Path
    name: str


@dataclass(frozen=True)
class Shard:
    """Share ``number`` (from 1) of ``count`` equal ones."""

    number: int = 1
    count: int = 1

    @staticmethod
    def parse(text: str) -> Shard:
        """Read ``2/4``.

        Raises:
            UsageError: it is nothing of the kind, or 5/3.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(f"'{text}' is no share of the work.", "Write e.g. 2/4 for the second of four.")
        return Shard(int(match[1]), int(match[2]))

    def of(self, items: Sequence[Item]) -> list[Item]:
        """Every ``count``-th: all shares together are all items, each in one."""
        return list(items[self.number - 1 :: self.count])

    def suffix(self) -> str:
        """What sets this share's own files apart: nothing where there is but one."""
        return "" if self.count == 1 else f"_{self.number}-of-{self.count}"


WHOLE = Shard()


def find_images(arguments: Sequence[str], listed: Iterable[str] = (), out: Path | None = None) -> list[ImageFile]:
    """The images of files, folders (searched through), patterns (``**`` too) and, for ``-``, of ``listed`` lines; in
    order of their names, each once.

    An image of a folder is called by its path in it, any other by its stem, with more where that is not enough. Hidden
    files and folders are left out, and what lies below ``out``, where results go.

    Raises:
        UsageError: an argument names nothing that is an image, or a file below ``out``.
    """
    found: dict[Path, tuple[Path, Folders]] = {}
    for argument in arguments:
        lines = [line.strip() for line in listed] if argument == "-" else [argument]
        for line in filter(None, lines):
            for path, folders in _expand(line, out):
                found.setdefault(absolute(path), (path, folders))
    if not found:
        raise UsageError("No image is given.", "Name image files, folders, patterns, or '-' for a list on stdin.")
    names = distinct_names([path for path, _ in found.values()], folders=[folders for _, folders in found.values()])
    images = [ImageFile(path, name) for (path, _), name in zip(found.values(), names, strict=True)]
    return sorted(images, key=lambda image: image.name)


def _expand(argument: str, out: Path | None) -> list[tuple[Path, Folders]]:
    """Paths, and for each the folders that are part of its name."""
    path = Path(argument).expanduser()
    if path.is_dir():
        files = [file for folder in folders_below(path) for file in list_images(folder)]
        found = [(file, file.relative_to(path).parent.parts) for file in files]
    elif glob.has_magic(argument) and not path.exists():
        matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 Path's has no absolute patterns
        found = [(Path(match), ()) for match in matches if is_image(Path(match))]
    else:
        found = [(path, ())]  # whether it is there and can be read shows when it is read
    outside = [each for each in found if not _is_below(each[0], out)]
    if found and not outside:
        raise UsageError(
            f"'{argument}' lies in {out}, where the results go.", "Choose another folder for them with --out."
        )
    if not outside:
        raise UsageError(f"'{argument}' holds no image.", "Check the path; hidden files are left out.")
    return outside


def _is_below(path: Path, folder: Path | None) -> bool:
    return folder is not None and absolute(path).is_relative_to(absolute(folder))
