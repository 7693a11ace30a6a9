"""The report of runs that end early, have nothing to validate, or cannot write it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mobilesam_core.errors import Interrupted
from mobilesam_core.progress import NullReporter
from mobilesam_core.training import loop
from mobilesam_core.training.report import read_report, write_report
from mobilesam_core.training.run_folder import RunFolder
from mobilesam_core.training.validation import Validation
from mobilesam_core.training.workflow import train

from .conftest import MakeConfig


class Warned(NullReporter):
    """Remembers warnings."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def warning(self, message: str) -> None:
        self.said.append(message)


def test_an_interrupted_run_has_a_report_of_what_was_done(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loop.optimizer_step

    def step(run: Any, batches: Any) -> Any:
        if run.position.step + 1 == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return real(run, batches)

    config = make_config("train.log_every=1")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(loop, "optimizer_step", step)
        train(config)
    folder = RunFolder(config.train.output_dir / "mobilesam" / "run")
    interrupted = folder.report.read_text()
    assert "step 2 in epoch 1 of 2. No epoch has been validated yet." in interrupted
    assert "Training losses" in interrupted and "Validation: masks" not in interrupted
    train(config, resume=True)
    resumed = folder.report.read_text()
    assert "step 6 in epoch 2 of 2. Best epoch: " in resumed
    # Random weights are not measured: the first epoch is what the best is compared with.
    assert ("after epoch 1 → best epoch" in resumed) == ("Best epoch: 2" in resumed)


def test_without_a_validation_set_there_are_losses_alone(make_config: MakeConfig) -> None:
    result = train(make_config("data.val=null", "train.log_every=1"))
    page = result.report.read_text()
    assert "Without a validation set, best.safetensors is the last checkpoint." in page
    assert page.count("<svg") == 2 and "<img" not in page and "training loss" in page
    write_report(read_report(RunFolder(result.folder)))
    assert result.report.read_text() == page


def test_pictures_can_be_switched_off(make_config: MakeConfig) -> None:
    result = train(make_config("train.validation.overlays=0", "train.epochs=1"))
    assert not list(result.folder.rglob("*.png"))
    page = result.report.read_text()
    assert "<img" not in page and "True IoU over predicted IoU" in page


@pytest.mark.parametrize(("bias", "warned"), [(0.3, 1), (0.05, 0)])
def test_scores_that_are_off_are_warned_of_once(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, bias: float, warned: int
) -> None:
    names = ("miou", "loss", "box_miou", "point_miou", "box_dice", "point_dice", "fill_box_miou")
    values = {**dict.fromkeys(names, 0.5), "box_bias": bias, "point_bias": 0.0}
    monkeypatch.setattr(loop, "validate", lambda *_: Validation(values, 0.5))
    reporter = Warned()
    result = train(make_config(), reporter=reporter)
    said = [sentence for sentence in reporter.said if "0.30 too high (box)" in sentence]
    assert len(said) == warned == result.report.read_text().count("0.30 too high (box)")


def test_a_report_that_cannot_be_written_does_not_end_the_training(make_config: MakeConfig) -> None:
    config = make_config("train.epochs=1")
    (config.train.output_dir / "mobilesam" / "run" / "report.html").mkdir(parents=True)
    reporter = Warned()
    result = train(config, reporter=reporter)
    assert result.best.exists() and result.last.exists()
    assert [sentence for sentence in reporter.said if sentence.startswith("There is no report of this run: ")]


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take no such names")
def test_names_that_are_no_text_are_shown_as_far_as_they_are(make_config: MakeConfig, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    square = np.zeros((40, 40), np.uint8)
    square[5:25, 5:25] = 255
    for kind, pixels in (("images", square[..., None].repeat(3, axis=2)), ("masks", square)):
        (tmp_path / kind).mkdir()
        Image.fromarray(pixels).save(tmp_path / kind / name)
    data = "{format: folder, images: images, masks: masks, mask_mode: binary}"
    result = train(make_config(f"data.root={tmp_path}", f"data.val={data}", "train.epochs=1"))
    assert "caf?.png, object 0: IoU " in result.report.read_text()
    moved = result.folder.rename(result.folder.with_name(os.fsdecode(b"\xe9t\xe9")))
    assert "mobilesam/?t?" in write_report(read_report(RunFolder(moved))).read_text()
