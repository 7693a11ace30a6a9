"""Some of what there is, evenly spread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from mobilesam_core.data.sample import Sample, SampleSource

Item = TypeVar("Item")


def spread(total: int, limit: int | None) -> list[int]:
    """At most ``limit`` of the indices ``0 .. total - 1``, evenly spread; all of them without a limit."""
    if limit is None or limit >= total:
        return list(range(total))
    return [(2 * i + 1) * total // (2 * limit) for i in range(limit)]


def some_of(items: Sequence[Item], limit: int) -> list[Item]:
    """At most ``limit`` of ``items``, evenly spread."""
    return [items[i] for i in spread(len(items), limit)]


class Subset:
    """The samples of ``source`` at ``indices``, as a source of its own."""

    def __init__(self, source: SampleSource, indices: Sequence[int]) -> None:
        self._source = source
        self._indices = list(indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        return self._source[self._indices[index]]

    def describe(self, index: int) -> str:
        return self._source.describe(self._indices[index])
