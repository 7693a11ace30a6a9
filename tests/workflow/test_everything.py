"""Whether finding everything works is looked at when a training ends, once."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from mobilesam_core.checkpoints.loading import open_checkpoint
from mobilesam_core.config.amg import AmgThresholds
from mobilesam_core.errors import DataError, Interrupted
from mobilesam_core.evaluation import thresholds
from mobilesam_core.evaluation.thresholds import ThresholdChoice
from mobilesam_core.progress import NullReporter
from mobilesam_core.training import everything
from mobilesam_core.training.report import read_report, write_report
from mobilesam_core.training.run_folder import RunFolder
from mobilesam_core.training.workflow import train

from .conftest import MakeConfig

ON = ("train.validation.everything=2", "train.epochs=1")


class Listener(NullReporter):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []

    def info(self, message: str) -> None:
        self.said.append(message)

    def warning(self, message: str) -> None:
        self.warned.append(message)


def choices(folder: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if record["split"] == "everything"]


def test_both_checkpoints_suggest_what_was_found_once(make_config: MakeConfig) -> None:
    listener = Listener()
    result = train(make_config(*ON), reporter=listener)
    (logged,) = choices(result.folder)
    best = open_checkpoint(result.best)
    wanted = {name: logged[name] for name in AmgThresholds.model_fields}
    assert best.amg_thresholds == open_checkpoint(result.last).amg_thresholds == AmgThresholds(**wanted)
    assert {"training_config", "val_miou", "step"} <= best.metadata.keys()
    assert (logged["images"], logged["epoch"], logged["step"]) == (2, 1, 3) and logged["objects"] > 0
    assert [said for said in listener.said if said.startswith("Everything in 2 validation images")]
    page = result.report.read_text()
    assert "Everything, without prompts" in page and f"with {logged['objects']} objects" in page

    before = {path: path.read_bytes() for path in result.folder.iterdir() if path.suffix in (".safetensors", ".jsonl")}
    train(make_config(*ON), resume=True)
    assert {path: path.read_bytes() for path in before} == before


def test_it_can_be_switched_off_and_asked_for_later(make_config: MakeConfig) -> None:
    result = train(make_config("train.epochs=1"))
    assert open_checkpoint(result.best).amg_thresholds is None and not choices(result.folder)
    assert "Everything, without prompts" not in result.report.read_text()
    train(make_config(*ON), resume=True)
    assert open_checkpoint(result.best).amg_thresholds is not None and len(choices(result.folder)) == 1


def test_without_a_validation_set_nothing_is_suggested(make_config: MakeConfig) -> None:
    result = train(make_config(*ON, "data.val=null"))
    assert open_checkpoint(result.best).amg_thresholds is None


def test_weights_that_find_few_by_the_usual_thresholds_are_warned_of(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = thresholds.Yield(0.88, 0.95, 0.1, 0.0, 1.0, 0.1)
    choice = ThresholdChoice(2, 8, usual, thresholds.Yield(0.5, 0.6, 0.75, 0.5, 20.0, 0.4))
    monkeypatch.setattr(everything, "choose_thresholds", lambda *_: choice)
    listener = Listener()
    result = train(make_config(*ON), reporter=listener)
    (warned,) = [said for said in listener.warned if "few objects" in said]
    assert "pred_iou_thresh 0.5, stability_score_thresh 0.6: found@0.5 0.750" in warned
    page = result.report.read_text()
    assert "few objects" in page
    write_report(read_report(RunFolder(result.folder)))
    assert result.report.read_text() == page
    # Said again to whoever resumes the finished run.
    again = Listener()
    train(make_config(*ON), resume=True, reporter=again)
    assert warned in again.warned


def test_an_interruption_keeps_the_weights_and_resuming_looks_again(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = thresholds.find_masks

    def find(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments)

    config = make_config(*ON)
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="suggest no thresholds for amg yet"):
        patch.setattr(thresholds, "find_masks", find)
        train(config)
    folder = config.train.output_dir / "mobilesam" / "run"
    weights = open_checkpoint(folder / "best.safetensors")
    assert weights.amg_thresholds is None and weights.metadata["step"] == "3" and not choices(folder)
    result = train(config, resume=True)
    assert open_checkpoint(result.best).amg_thresholds is not None and len(choices(folder)) == 1


def test_a_broken_line_of_the_log_is_named(make_config: MakeConfig) -> None:
    result = train(make_config("train.epochs=1"))
    with (result.folder / "metrics.jsonl").open("a") as log:
        log.write('{"split": "everything", "step": 3, "epoch": 1, "images": 2}\n')
    with pytest.raises(DataError, match="'everything' lacks 'usual_pred_iou_thresh'"):
        read_report(RunFolder(result.folder))
