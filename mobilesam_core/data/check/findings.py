"""What a check finds, and how bad it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mobilesam_core.errors import DataError, DataFault

Severity = Literal["error", "warning"]
Kind = DataFault | Literal["in_both_sets", "duplicate", "covers_all", "no_area", "tiny", "vanishing"]

KINDS: Mapping[Kind, tuple[Severity, str]] = {
    "set": ("error", "a set as a whole cannot be used"),
    "unpaired": ("error", "image without mask, or mask without image"),
    "unusable": ("error", "file that cannot be used"),
    "annotation": ("error", "annotation that cannot be used"),
    "size": ("error", "image and mask differ in size"),
    "empty": ("error", "mask of nothing"),
    "too_small": ("error", "image with no object large enough to train on"),
    "in_both_sets": ("error", "picture of train that is in val too"),
    "duplicate": ("warning", "the same picture more than once in a set"),
    "covers_all": ("warning", "mask that covers the whole image"),
    "no_area": ("warning", "object or box without area"),
    "tiny": ("warning", "tiny objects"),
    "vanishing": ("warning", "objects too small to be trained on"),
}
"""Every kind of finding, worst first: how bad it is, and what it is called.

An error would stop training (or leave the file out, with ``data.on_bad_file: skip``) or make its figures untrue; a
warning is of what is used as it is, or left out of an image that is used.
"""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    sets: ``train``, ``val``, or both. source: the file or record.
    indices: of the samples it is about, ``(set, index)``; none where it is about no sample.
    """

    kind: Kind
    sets: tuple[str, ...]
    source: str
    problem: str
    remedy: str
    indices: tuple[tuple[str, int], ...] = ()

    @staticmethod
    def of(error: DataError, name: str, source: str, *indices: tuple[str, int]) -> Finding:
        """What an error says."""
        return Finding(error.fault, (name,), source, error.message, error.remedy, indices)

    @property
    def severity(self) -> Severity:
        return KINDS[self.kind][0]

    def to_json(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {
            "severity": self.severity,
            "kind": self.kind,
            "sets": list(self.sets),
            "source": self.source,
            "problem": self.problem,
            "remedy": self.remedy,
        }
