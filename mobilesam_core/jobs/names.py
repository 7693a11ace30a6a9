"""Names for the results of several files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from mobilesam_core.errors import UsageError

Folders = tuple[str, ...]


def distinct_names(
    paths: Sequence[Path], reserved: Collection[str] = (), folders: Sequence[Folders] | None = None
) -> list[str]:
    """A short name for each path, all different even where upper and lower case are the same.

    The stem where it will do; else with the suffix (``cat_png``), then with parent folders (``left-cat``).

    Args:
        folders: for each path its last folders, if they are part of its name in any case (``a/b/cat``).

    Raises:
        UsageError: a path is given twice.
    """
    full = [absolute(path) for path in paths]
    if twice := [path for path, count in Counter(full).items() if count > 1]:
        raise UsageError(f"{twice[0]} is given {Counter(full)[twice[0]]} times.", "Name each file once.")
    own = folders or [()] * len(full)
    levels = [0] * len(full)
    while True:
        names = [_name(i, *each) for i, each in enumerate(zip(full, own, levels, strict=True))]
        counts = Counter(name.casefold() for name in [*names, *reserved])
        clashes = [i for i, name in enumerate(names) if counts[name.casefold()] > 1]
        if not clashes:
            return names
        for i in clashes:
            levels[i] += 1


def absolute(path: Path) -> Path:
    """From the root and without ``..``; links are kept, since they have names of their own."""
    return Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 resolve() would follow links


def _name(index: int, path: Path, folders: Folders, level: int) -> str:
    """Even levels end in the stem, odd ones in stem and suffix; every second level adds a folder.

    Beyond the root comes the index, for paths that differ only in what a name cannot show.
    """
    last = f"{path.stem}{path.suffix.replace('.', '_')}" if level % 2 else path.stem
    above, depth = path.parts[1 : len(path.parts) - 1 - len(folders)], level // 2
    added = [str(index)] if depth > len(above) else above[len(above) - depth :]
    return "/".join([*folders, "-".join([*added, last])])
