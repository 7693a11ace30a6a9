"""``mobilesam eval``: one or several checkpoints on one data set, and the files that tell of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mobilesam_core.checkpoints.loading import OpenedCheckpoint, open_checkpoint
from mobilesam_core.config.data import SetConfig
from mobilesam_core.data.build import build_source
from mobilesam_core.errors import UsageError
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
class CheckpointResult:
    """One checkpoint's evaluation under a short name of its own."""

    name: str
    opened: OpenedCheckpoint
    evaluation: Evaluation
    worst: WorstCases

    def to_json(self) -> dict[str, Any]:
        """Plain types for JSON."""
        config = self.opened.model.config
        worst = {
            kind: [{"image": s.image, "object": s.object, "iou": round(s.iou, 6)} for s in self.worst.scores(kind)]
            for kind in self.evaluation.options.prompts
        }
        return {
            "name": self.name,
            "checkpoint": str(self.opened.path),
            "sha256": self.opened.sha256,
            "model": config.name,
            "image_size": config.image_size,
            **self.evaluation.to_json(),
            "worst": worst,
        }


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
) -> list[CheckpointResult]:
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
    names = distinct_names([Path(checkpoint) for checkpoint in checkpoints])
    opened = [open_checkpoint(checkpoint, model_name, reporter, image_size) for checkpoint in checkpoints]
    stored = [None if embeddings is None else StoredEmbeddings(embeddings, each.model) for each in opened]
    results = []
    for name, each, known in zip(names, opened, stored, strict=True):
        source = build_source(data, root, channels=len(each.model.pixel_mean))
        if len(opened) > 1:
            reporter.info(f"Checkpoint {name}")
        cases = WorstCases(worst)
        each.model.to(device)
        evaluation = evaluate(each.model, source, options, reporter, cases if worst else None, known)
        each.model.cpu()
        for kind in options.prompts:
            evaluation.summary(kind)  # without an object there is nothing to report
        results.append(CheckpointResult(name, each, evaluation, cases))
    return results


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
    """Write ``<name>/objects.csv`` and ``<name>/worst/*.png`` for each checkpoint, then ``metrics.json``.

    Raises:
        OutputError: a file cannot be written.
    """
    for result in results:
        result.evaluation.write_csv(folder / result.name / "objects.csv")
        result.worst.write(folder / result.name / "worst")
    write_json(folder / _METRICS, results_json(results))
