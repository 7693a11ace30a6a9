"""What quantising a model cost, and what it gained."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mobilesam_core.data.sample import SampleSource
from mobilesam_core.evaluation.scoring import evaluate
from mobilesam_core.evaluation.types import EvalOptions
from mobilesam_core.ops.metrics import cosine
from mobilesam_core.progress import Reporter
from mobilesam_core.runtime.exported import ExportedModel
from mobilesam_core.runtime.onnx_runtime import OnnxRuntime

_TIMED = 9


@dataclass(frozen=True)
class BeforeAfter:
    """A figure of the model as it was, and quantised."""

    before: float
    after: float


@dataclass(frozen=True)
class Sensitivity:
    """How much one node matters: 1 - cosine of the embedding when it alone is quantised."""

    node: str
    operator: str
    loss: float


@dataclass(frozen=True)
class QuantizationReport:
    """The figures of a quantised model.

    path: where it is: under its own name, or as ``*.rejected.onnx``. mode: how it was made. size: bytes. latency:
    milliseconds of one run, medians of runs that alternate. cosine: mean over images, of embeddings (of a decoder, of
    low-resolution logits). miou: of the masks a user would get, by kind of prompt, in points of 100. objects: how many
    those are means of. excluded: nodes that were left in float32. sensitivity: of every node, the worst first; empty if
    it was not measured. max_drop: points of mIoU that may be lost.
    """

    path: Path
    mode: str
    size: BeforeAfter
    latency: BeforeAfter
    cosine: float
    miou: dict[str, BeforeAfter]
    objects: int
    excluded: tuple[str, ...]
    sensitivity: tuple[Sensitivity, ...]
    max_drop: float

    @property
    def drop(self) -> float:
        """Points of mIoU that were lost, of the kind of prompt that lost most."""
        return max(each.before - each.after for each in self.miou.values())

    @property
    def passed(self) -> bool:
        return self.drop <= self.max_drop

    @property
    def speedup(self) -> float:
        return self.latency.before / self.latency.after

    def to_json(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {
            **asdict(self),
            "path": str(self.path),
            "drop": self.drop,
            "speedup": self.speedup,
            "passed": self.passed,
        }

    def rows(self) -> list[tuple[str, str, str, str]]:
        """What, before, after, and the difference, for a table."""
        size, latency = self.size, self.latency
        rows = [
            ("size", f"{size.before / 1e6:.1f} MB", f"{size.after / 1e6:.1f} MB", f"{size.after / size.before:.2f}x"),
            ("latency", f"{latency.before:.1f} ms", f"{latency.after:.1f} ms", f"{self.speedup:.2f}x as fast"),
            ("cosine", "", f"{self.cosine:.5f}", ""),
        ]
        for kind, each in self.miou.items():
            rows.append(
                (f"mIoU, {kind}", f"{each.before:.2f}", f"{each.after:.2f}", f"{each.after - each.before:+.2f}")
            )
        return rows

    def to_markdown(self) -> str:
        """The report as a Markdown document."""
        lines = [
            f"# {self.path.name}",
            "",
            f"{self.mode}; {self.objects} objects; at most {self.max_drop:g} points of mIoU may be lost: "
            f"{'passed' if self.passed else 'REJECTED'}.",
            "",
            "| | before | after | |",
            "|---|---|---|---|",
            *(f"| {' | '.join(row)} |" for row in self.rows()),
        ]
        if self.excluded:
            lines += ["", f"Left in float32: {', '.join(self.excluded)}."]
        if self.sensitivity:
            lines += ["", "| node | operator | 1 - cosine, quantised alone |", "|---|---|---|"]
            lines += [f"| {each.node} | {each.operator} | {each.loss:.2e} |" for each in self.sensitivity]
        return "\n".join(lines) + "\n"


def miou_of(
    runtime: OnnxRuntime, labelled: SampleSource, max_images: int, reporter: Reporter
) -> tuple[dict[str, float], int]:
    """mIoU in points of 100 by kind of prompt, and the number of objects; images that cannot be read are warned of."""
    options = EvalOptions(prompts=("box", "point"), boundary=False, max_images=max_images)
    evaluation = evaluate(runtime, labelled, options, reporter)
    summaries = {kind: evaluation.summary(kind) for kind in options.prompts}
    return {kind: 100 * each.miou for kind, each in summaries.items()}, summaries["box"].objects


def mean_cosine(
    before: ExportedModel, after: ExportedModel, feeds: Iterable[dict[str, np.ndarray]], output: str
) -> float:
    """Of what the two say of the same inputs."""
    return float(np.mean([cosine(before.run(feed)[output], after.run(feed)[output]) for feed in feeds]))


def alternating_latency(
    models: Sequence[ExportedModel], feed: dict[str, np.ndarray], runs: int = _TIMED
) -> list[float]:
    """Median milliseconds of each, taking turns, so that what else the machine does falls on all alike."""
    taken: list[list[float]] = [[] for _ in models]
    for number in range(runs + 1):
        for each, times in zip(models, taken, strict=True):
            start = time.perf_counter()
            each.run(feed)
            if number:  # the first warms up
                times.append(1000 * (time.perf_counter() - start))
    return [statistics.median(times) for times in taken]
