"""Pictures of the objects that came out worst."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from mobilesam_core.evaluation.types import ObjectScore, Observation, PromptKind
from mobilesam_core.ops.drawing import Closeup, draw_comparison, write_png


@dataclass(order=True)
class _Case:
    """Ordered so that the one to drop first, of the highest IoU and seen last, is least."""

    goodness: float
    age: int
    score: ObjectScore = field(compare=False)
    picture: np.ndarray = field(compare=False)


class WorstCases:
    """Keeps pictures of the ``count`` lowest IoUs of each kind of prompt.

    An onlooker (``observe``) of :func:`~mobilesam_core.evaluation.scoring.evaluate`. The truth is outlined in
    green, the prediction tinted blue, and the prompts are drawn.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._cases: dict[PromptKind, list[_Case]] = {}
        self._seen = 0

    def __call__(self, observation: Observation) -> None:
        for i, score in enumerate(observation.scores):
            self._offer(observation.kind, score, partial(_draw, observation, i))

    def take(self, other: WorstCases) -> None:
        """Consider those that ``other`` kept, as if they had been seen now."""
        for kind in other._cases:
            for case in other._sorted(kind):
                self._offer(kind, case.score, partial(getattr, case, "picture"))

    def _offer(self, kind: PromptKind, score: ObjectScore, draw: Callable[[], np.ndarray]) -> None:
        kept = self._cases.setdefault(kind, [])
        self._seen += 1
        key = (-score.iou, -self._seen)
        if len(kept) == self._count and (self._count == 0 or key < (kept[0].goodness, kept[0].age)):
            return
        heapq.heappush(kept, _Case(*key, score, draw()))
        if len(kept) > self._count:
            heapq.heappop(kept)

    def scores(self, kind: PromptKind) -> list[ObjectScore]:
        """The objects kept, worst first."""
        return [case.score for case in self._sorted(kind)]

    def write(self, folder: Path) -> dict[PromptKind, list[str]]:
        """Write ``<kind>_01.png`` (the worst), ``<kind>_02.png``, …; the names of each kind.

        Raises:
            OutputError: a file cannot be written.
        """
        names: dict[PromptKind, list[str]] = {}
        for kind in self._cases:
            names[kind] = []
            for rank, case in enumerate(self._sorted(kind), 1):
                names[kind].append(f"{kind}_{rank:02d}.png")
                write_png(folder / names[kind][-1], case.picture)
        return names

    def _sorted(self, kind: PromptKind) -> list[_Case]:
        return sorted(self._cases.get(kind, []), reverse=True)


def _draw(observation: Observation, i: int) -> np.ndarray:
    target, mask = observation.targets[i], observation.masks[i]
    prompt = observation.prompts[i]
    view = Closeup.around(target | mask)
    return draw_comparison(
        view.image(observation.pixels),
        [view.mask(target)],
        [view.mask(mask)],
        view.points(prompt.points),
        prompt.labels,
        [] if prompt.box is None else [view.box(prompt.box)],
    )
