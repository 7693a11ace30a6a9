"""What a run logged, read back."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilesam_core.errors import DataError, UsageError
from mobilesam_core.evaluation.thresholds import ThresholdChoice
from mobilesam_core.training.validation import score


@dataclass(frozen=True)
class Record:
    """One line of the log: means since the line before (``train``), a validation (``val``), or thresholds that were
    tried (``everything``).

    step: optimizer steps done. epoch: counted from 1; of validations, 0 are the start weights.
    """

    split: str
    step: int
    epoch: int
    values: dict[str, float]


@dataclass(frozen=True)
class History:
    """The lines of each split, in the order they were written. everything: the last choice of thresholds."""

    train: tuple[Record, ...]
    val: tuple[Record, ...]
    everything: ThresholdChoice | None

    @property
    def before(self) -> Record | None:
        """The validation of the start weights."""
        return next((record for record in self.val if record.epoch == 0), None)

    def ranked(self, metric: str) -> list[Record]:
        """The validations of trained weights by ``metric`` (see ``train.validation.metric``), the best first; of
        equals the earlier."""
        known = [r for r in self.val if r.epoch > 0 and math.isfinite(r.values.get(metric, math.nan))]
        return sorted(known, key=lambda record: -score(metric, record.values))


def read_history(path: Path) -> History:
    """Read a ``metrics.jsonl``; half a line at its end, as a killed run may leave it, does not count.

    Raises:
        UsageError: there is no such file.
        DataError: it cannot be read, or another line is none of the log's.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise UsageError(
            f"{path.parent} is not the folder of a training run: it has no {path.name}.",
            "Name the folder that holds its config.yaml (output_dir/project/run).",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.", "Check the file and its permissions.") from error
    records = list(_records(text, path))
    train, val, everything = (
        tuple(record for record in records if record.split == split) for split in ("train", "val", "everything")
    )
    return History(train, val, _choice(everything[-1], path) if everything else None)


def _choice(record: Record, path: Path) -> ThresholdChoice:
    try:
        return ThresholdChoice.from_values(record.values)
    except KeyError as error:
        raise DataError(f"A line of {path} on 'everything' lacks {error}.", "Remove it.") from error


def _records(text: str, path: Path) -> Iterator[Record]:
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            return
        try:
            yield _record(dict(json.loads(line)))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise DataError(
                f"Line {number} of {path} is not a line of a training log.",
                "Remove it; or go on with the run (--resume), which drops broken lines.",
            ) from error


def _record(fields: dict[str, Any]) -> Record:
    split, step, epoch = fields.pop("split"), int(fields.pop("step")), int(fields.pop("epoch"))
    return Record(split, step, epoch, {str(name): float(value) for name, value in fields.items()})
