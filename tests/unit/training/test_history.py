from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mobilesam_core.errors import DataError, UsageError
from mobilesam_core.training.history import read_history


def log(path: Path, *records: dict[str, Any], end: str = "") -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + end)
    return path


def val(epoch: int, **values: float) -> dict[str, Any]:
    return {"split": "val", "step": 10 * epoch, "epoch": epoch, **values}


def test_lines_are_sorted_out_and_validations_ranked(tmp_path: Path) -> None:
    train = {"split": "train", "step": 3, "epoch": 1, "total": 0.5}
    scores = [(0, 0.9), (1, 0.2), (2, 0.7), (3, 0.7), (4, float("nan"))]
    records = [val(epoch, miou=miou, loss=1 - miou) for epoch, miou in scores]
    history = read_history(log(tmp_path / "metrics.jsonl", records[0], train, *records[1:]))
    assert [record.values for record in history.train] == [{"total": 0.5}]
    assert history.before is not None and history.before.epoch == 0
    # The start weights are no epoch, the earlier of equals comes first, and no number is no rank.
    assert [record.epoch for record in history.ranked("miou")] == [2, 3, 1]
    assert [record.epoch for record in history.ranked("loss")] == [2, 3, 1], "less is better"
    assert history.ranked("box_miou") == []


def test_half_a_line_at_the_end_does_not_count(tmp_path: Path) -> None:
    path = log(tmp_path / "metrics.jsonl", val(1, miou=0.5), end='{"split": "val", "st')
    assert len(read_history(path).val) == 1


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        "[1]",
        "5",
        '{"split": "val", "epoch": 1}',
        '{"split":"val","step":1,"epoch":1,"a":"b"}',
        f'{{"split":"val","step":1,"epoch":1,"a":1{"0" * 400}}}',
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    path = log(tmp_path / "metrics.jsonl", val(1, miou=0.5), end=f"{line}\n")
    with pytest.raises(DataError, match=r"^Line 2 of .*metrics\.jsonl is not a line of a training log\."):
        read_history(path)


def test_a_folder_without_a_log_is_none_of_a_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"not the folder of a training run: it has no metrics\.jsonl"):
        read_history(tmp_path / "metrics.jsonl")
