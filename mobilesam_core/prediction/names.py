"""Names for the results of several files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from mobilesam_core.errors import UsageError


def distinct_names(paths: Sequence[Path], reserved: Collection[str] = ()) -> list[str]:
    """A short name for each path, all different even where upper and lower case are the same.

    The stem where it will do; else with the suffix (``cat_png``), then with parent folders (``left-cat``).

    Raises:
        UsageError: a path is given twice.
    """
    full = [path.expanduser().resolve() for path in paths]
    if twice := [path for path, count in Counter(full).items() if count > 1]:
        raise UsageError(f"{twice[0]} is given {Counter(full)[twice[0]]} times.", "Name each file once.")
    levels = [0] * len(full)
    while True:
        names = [_name(i, path, level) for i, (path, level) in enumerate(zip(full, levels, strict=True))]
        counts = Counter(name.casefold() for name in [*names, *reserved])
        clashes = [i for i, name in enumerate(names) if counts[name.casefold()] > 1]
        if not clashes:
            return names
        for i in clashes:
            levels[i] += 1


def _name(index: int, path: Path, level: int) -> str:
    """Even levels end in the stem, odd ones in stem and suffix; every second level adds a folder.

    Beyond the root comes the index, for paths that differ only in what a name cannot show.
    """
    last = f"{path.stem}{path.suffix.replace('.', '_')}" if level % 2 else path.stem
    folders, depth = path.parts[1:-1], level // 2
    if depth > len(folders):
        return f"{index}-{last}"
    return "-".join([*folders[len(folders) - depth :], last])
