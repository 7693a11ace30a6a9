"""``mobilesam eval``: one or several checkpoints on one data set, and the files that tell of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilesam_core.amg.workflow import build_generator, settle_thresholds
from mobilesam_core.config.amg import AmgConfig
from mobilesam_core.config.data import SetConfig
from mobilesam_core.data.build import build_source
from mobilesam_core.data.sample import SampleSource
from mobilesam_core.errors import UsageError
from mobilesam_core.evaluation.everything import EverythingEvaluation, evaluate_everything
from mobilesam_core.evaluation.scoring import evaluate
from mobilesam_core.evaluation.summary import Evaluation
from mobilesam_core.evaluation.types import EvalOptions
from mobilesam_core.evaluation.worst import WorstCases
from mobilesam_core.files import write_json
from mobilesam_core.jobs.names import distinct_names
from mobilesam_core.prediction.stored import StoredEmbeddings, refuse_tiles
from mobilesam_core.progress import NullReporter, Reporter
from mobilesam_core.runtime.protocol import Runtime

_METRICS = "metrics.json"


@dataclass(frozen=True)
class CheckpointResult(ABC):
    """One model's evaluation under a short name of its own."""

    name: str
    runtime: Runtime
    evaluation: Evaluation | EverythingEvaluation

    def to_json(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {
            "name": self.name,
            "checkpoint": str(self.runtime.source),
            "sha256": self.runtime.sha256,
            "model": self.runtime.model,
            "image_size": self.runtime.image_size,
            **self.evaluation.to_json(),
        }

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write what there is besides :meth:`to_json`.

        Raises:
            OutputError: a file cannot be written.
        """


@dataclass(frozen=True)
class PromptsResult(CheckpointResult):
    """How well it segments the objects it is asked for: ``objects.csv`` and ``worst/*.png``."""

    evaluation: Evaluation
    worst: WorstCases

    def to_json(self) -> dict[str, Any]:
        worst = {
            kind: [{"image": s.image, "object": s.object, "iou": round(s.iou, 6)} for s in self.worst.scores(kind)]
            for kind in self.evaluation.options.prompts
        }
        return {**super().to_json(), "worst": worst}

    def write(self, folder: Path) -> None:
        self.evaluation.write_csv(folder / "objects.csv")
        self.worst.write(folder / "worst")


@dataclass(frozen=True)
class EverythingResult(CheckpointResult):
    """How much of all there is it finds without a prompt: ``detections.json`` and ``ground_truth.json``."""

    evaluation: EverythingEvaluation

    def write(self, folder: Path) -> None:
        self.evaluation.write(folder)


def evaluate_prompts(
    runtimes: Sequence[Runtime],
    data: SetConfig,
    root: Path,
    options: EvalOptions,
    *,
    worst: int = 0,
    embeddings: Path | None = None,
    teacher: Runtime | None = None,
    reporter: Reporter | None = None,
) -> list[PromptsResult]:
    """Evaluate each model on the same data.

    worst: pictures kept for each kind of prompt. embeddings: a feature store to take embeddings from.
    teacher: whose masks each model's are compared with.

    Raises:
        UsageError: a model is given twice, or the embeddings are of another encoder or given with tiles.
        DataError: the data set as a whole cannot be used, or holds no object.
    """
    reporter = reporter or NullReporter()
    results = []
    for name, runtime, source, stored in _by_turns(runtimes, data, root, embeddings, reporter):
        cases = WorstCases(worst)
        evaluation = evaluate(runtime, source, options, reporter, cases if worst else None, stored, teacher)
        for kind in options.prompts:
            evaluation.summary(kind)  # without an object there is nothing to report
        results.append(PromptsResult(name, runtime, evaluation, cases))
    return results


def evaluate_amg(
    runtimes: Sequence[Runtime],
    data: SetConfig,
    root: Path,
    settings: AmgConfig,
    *,
    max_images: int | None = None,
    embeddings: Path | None = None,
    reporter: Reporter | None = None,
) -> list[EverythingResult]:
    """Evaluate what each model finds without a prompt; arguments and errors are :func:`evaluate_prompts`'.

    settings: a threshold that they leave open is each model's own. max_images: at most so many, evenly spread.
    """
    refuse_tiles(embeddings, settings.tile is not None)
    reporter = reporter or NullReporter()
    results = []
    for name, runtime, source, stored in _by_turns(runtimes, data, root, embeddings, reporter):
        settled = settle_thresholds(settings, runtime, reporter)
        generator = build_generator(runtime, settled)
        evaluation = evaluate_everything(generator, settled, source, max_images, stored, reporter)
        results.append(EverythingResult(name, runtime, evaluation))
    return results


def _by_turns(
    runtimes: Sequence[Runtime], data: SetConfig, root: Path, embeddings: Path | None, reporter: Reporter
) -> Iterator[tuple[str, Runtime, SampleSource, StoredEmbeddings | None]]:
    """Each model's name, itself, its data and stored embeddings."""
    names = distinct_names([runtime.source for runtime in runtimes])
    stored = [None if embeddings is None else StoredEmbeddings(embeddings, each) for each in runtimes]
    for name, runtime, known in zip(names, runtimes, stored, strict=True):
        source = build_source(data, root, channels=runtime.channels)
        if len(runtimes) > 1:
            reporter.info(f"Checkpoint {name}")
        yield name, runtime, source, known


def check_output_folder(folder: Path, overwrite: bool) -> None:
    """Check, before any work, that results may be written to ``folder``.

    Raises:
        UsageError: it holds results already and ``overwrite`` is off.
    """
    if (folder / _METRICS).exists() and not overwrite:
        raise UsageError(
            f"{folder} already holds an evaluation.",
            "Choose another folder with --out, or replace it with --overwrite.",
        )


def results_json(results: Sequence[CheckpointResult]) -> dict[str, Any]:
    """The document of ``metrics.json``."""
    return {"checkpoints": [result.to_json() for result in results]}


def write_results(results: Sequence[CheckpointResult], folder: Path) -> None:
    """Write each checkpoint's own files into ``<name>/``, then ``metrics.json``.

    Raises:
        OutputError: a file cannot be written.
    """
    for result in results:
        result.write(folder / result.name)
    write_json(folder / _METRICS, results_json(results))
