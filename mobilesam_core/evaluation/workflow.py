"""``mobilesam eval``: one or several checkpoints on one data set, and the files that tell of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mobilesam_core.amg.workflow import build_generator
from mobilesam_core.checkpoints.loading import OpenedCheckpoint, open_checkpoint
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
from mobilesam_core.prediction.stored import StoredEmbeddings
from mobilesam_core.progress import NullReporter, Reporter

_METRICS = "metrics.json"


@dataclass(frozen=True)
class CheckpointResult(ABC):
    """One checkpoint's evaluation under a short name of its own."""

    name: str
    opened: OpenedCheckpoint
    evaluation: Evaluation | EverythingEvaluation

    def to_json(self) -> dict[str, Any]:
        """Plain types for JSON."""
        config = self.opened.model.config
        return {
            "name": self.name,
            "checkpoint": str(self.opened.path),
            "sha256": self.opened.sha256,
            "model": config.name,
            "image_size": config.image_size,
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


def evaluate_checkpoints(
    checkpoints: Sequence[str],
    data: SetConfig,
    root: Path,
    options: EvalOptions,
    *,
    device: torch.device,
    model_name: str | None = None,
    image_size: int | None = None,
    worst: int = 0,
    embeddings: Path | None = None,
    reporter: Reporter | None = None,
) -> list[PromptsResult]:
    """Evaluate each checkpoint (a file, ``official`` or ``nano``) on the same data.

    model_name: the architecture of files that do not tell theirs. image_size: side of the models' input frame in
    pixels; None keeps each one's own. worst: pictures kept for each kind of prompt. embeddings: a feature store to take
    embeddings from.

    Raises:
        UsageError: a checkpoint is given twice, or the embeddings are of another encoder.
        CheckpointError: one cannot be used; all are opened before the first is evaluated.
        DataError: the data set as a whole cannot be used, or holds no object.
    """
    reporter = reporter or NullReporter()
    results = []
    turns = _by_turns(checkpoints, data, root, device, model_name, image_size, embeddings, reporter)
    for name, opened, source, stored in turns:
        cases = WorstCases(worst)
        evaluation = evaluate(opened.model, source, options, reporter, cases if worst else None, stored)
        for kind in options.prompts:
            evaluation.summary(kind)  # without an object there is nothing to report
        results.append(PromptsResult(name, opened, evaluation, cases))
    return results


def evaluate_amg(
    checkpoints: Sequence[str],
    data: SetConfig,
    root: Path,
    settings: AmgConfig,
    *,
    device: torch.device,
    max_images: int | None = None,
    model_name: str | None = None,
    image_size: int | None = None,
    embeddings: Path | None = None,
    reporter: Reporter | None = None,
) -> list[EverythingResult]:
    """Evaluate what each checkpoint finds without a prompt; arguments and errors are :func:`evaluate_checkpoints`'.

    max_images: at most so many, evenly spread.
    """
    reporter = reporter or NullReporter()
    results = []
    turns = _by_turns(checkpoints, data, root, device, model_name, image_size, embeddings, reporter)
    for name, opened, source, stored in turns:
        generator = build_generator(opened, settings)
        evaluation = evaluate_everything(generator, settings, source, max_images, stored, reporter)
        results.append(EverythingResult(name, opened, evaluation))
    return results


def _by_turns(
    checkpoints: Sequence[str],
    data: SetConfig,
    root: Path,
    device: torch.device,
    model_name: str | None,
    image_size: int | None,
    embeddings: Path | None,
    reporter: Reporter,
) -> Iterator[tuple[str, OpenedCheckpoint, SampleSource, StoredEmbeddings | None]]:
    """Each checkpoint's name, itself, its data and stored embeddings.

    All are opened before the first, which alone is on ``device``.
    """
    names = distinct_names([Path(checkpoint) for checkpoint in checkpoints])
    opened = [open_checkpoint(checkpoint, model_name, reporter, image_size) for checkpoint in checkpoints]
    stored = [None if embeddings is None else StoredEmbeddings(embeddings, each.model) for each in opened]
    for name, each, known in zip(names, opened, stored, strict=True):
        source = build_source(data, root, channels=len(each.model.pixel_mean))
        if len(opened) > 1:
            reporter.info(f"Checkpoint {name}")
        each.model.to(device)
        yield name, each, source, known
        each.model.cpu()


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
