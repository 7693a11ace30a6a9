"""What a step of the demo leaves to be shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilesam_core.evaluation.types import PromptKind
from mobilesam_core.pages.charts import Series

KINDS: tuple[PromptKind, ...] = ("box", "point")
"""What objects are asked by."""


@dataclass(frozen=True)
class Picture:
    """An image file and what is to be said of it."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Outcome:
    """What came of a step.

    commands: what a user types to do the same. sentence: what came of it. figures: the same for machines.
    head, rows: of a table. comparison: pictures in rows of three: before, after, truth. curves: over optimizer steps.
    files: worth opening.
    """

    commands: tuple[str, ...]
    sentence: str
    figures: Mapping[str, float]
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    pictures: tuple[Picture, ...] = ()
    comparison: tuple[Picture, ...] = ()
    curves: tuple[Series, ...] = ()
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class StepResult:
    """A step that was done. name: short, of its own. title, about: what it does, for a reader."""

    name: str
    title: str
    about: str
    seconds: float
    outcome: Outcome

    def to_json(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {
            "name": self.name,
            "title": self.title,
            "seconds": round(self.seconds, 2),
            "commands": list(self.outcome.commands),
            "figures": dict(self.outcome.figures),
        }


@dataclass(frozen=True)
class DemoResult:
    """The steps that were done, of ``planned`` ones, and the seconds since the demo was asked for."""

    page: Path
    planned: tuple[str, ...]
    steps: tuple[StepResult, ...]
    seconds: float

    def of(self, name: str) -> Outcome | None:
        """What came of a step; None if it has not been done."""
        return next((step.outcome for step in self.steps if step.name == name), None)

    def gain(self, kind: PromptKind) -> tuple[float, float] | None:
        """mIoU before and after training; None unless both were measured."""
        before, after = self.of("before"), self.of("after")
        if before is None or after is None:
            return None
        return before.figures[f"{kind}_miou"], after.figures[f"{kind}_miou"]

    def to_json(self) -> dict[str, Any]:
        """Plain types for JSON."""
        gains = {f"{kind}_miou": self.gain(kind) for kind in KINDS}
        return {
            "page": str(self.page),
            "seconds": round(self.seconds, 2),
            **{name: {"before": gain[0], "after": gain[1]} for name, gain in gains.items() if gain is not None},
            "steps": [step.to_json() for step in self.steps],
        }
