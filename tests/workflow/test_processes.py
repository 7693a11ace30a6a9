"""Several processes that train together, on the CPU: they compute what one computes, and none waits for ever."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from .conftest import SMALL

# Five images in batches of four: of the last batch, one process gets nothing. One accumulates over two batches.
SETTINGS = (
    *("data.train.count=5", "data.val.count=3", "optim.batch_size=4"),
    *("train.epochs=2", "train.log_every=1", "train.batch_norm=frozen"),
)

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts ``mobilesam train`` on a config of seconds, writing under ``tmp_path``."""
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({**SMALL, "train": {**SMALL["train"], "output_dir": str(tmp_path / "runs")}}))

    def begin(
        *arguments: str, through: tuple[str, ...] = (sys.executable, "-m", "mobilesam_cli")
    ) -> subprocess.Popen[str]:
        settings = [part for each in SETTINGS for part in ("--set", each)]
        return subprocess.Popen(
            [*through, "train", str(config), *settings, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "COLUMNS": "200"},
        )

    return begin


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out, err


def log(run: Path, split: str) -> list[dict[str, Any]]:
    volatile = {"images_per_s", "objects_per_s", "memory_mb"}
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in record.items() if k not in volatile and k != "split"}
        for record in records
        if record["split"] == split
    ]


def assert_same_run(one: Path, other: Path) -> None:
    """The same losses, validation and weights, but for the order in which numbers were added up."""
    for split in ("train", "val"):
        expected, got = log(one, split), log(other, split)
        assert len(expected) == len(got)
        for first, second in zip(expected, got, strict=True):
            assert second == pytest.approx(first, rel=2e-3, abs=2e-4)
    first_weights, second_weights = (load_file(run / "last.safetensors") for run in (one, other))
    for name, value in first_weights.items():
        torch.testing.assert_close(second_weights[name], value, rtol=1e-2, atol=2e-4)


def test_two_processes_train_as_one_does(start: Start, tmp_path: Path) -> None:
    finish(start("--set", "train.run=one"))
    out, err = finish(start("--set", "train.run=two", "--devices", "2", "--strategy", "ddp", "--json"))
    runs = tmp_path / "runs" / "mobilesam"
    assert_same_run(runs / "one", runs / "two")
    assert "on 2 x cpu" in err and err.count("Epoch 1/2: val loss") == 1, "each process told"
    assert json.loads(out)["process"] == 0, "not one document"
    # Of three images each process has evaluated others: else there would be more objects than one process counts.
    assert log(runs / "two", "val")[-1]["objects"] == log(runs / "one", "val")[-1]["objects"]
    pictures = [sorted(each.name for each in (runs / run).rglob("*.png")) for run in ("one", "two")]
    assert pictures[0] == pictures[1]


def test_torchrun_starts_the_processes_and_a_cache_is_shared(start: Start, tmp_path: Path) -> None:
    settings = ("train.freeze.image_encoder=true", "data.augment={}", "train.cache.use=always")
    settings = (*settings, "prompts.rounds=1", "prompts.click_mode=center")
    frozen = [part for each in settings for part in ("--set", each)]
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "mobilesam_cli")
    finish(start("--set", "train.run=one", *frozen))
    _, err = finish(start("--set", "train.run=two", *frozen, through=torchrun))
    runs = tmp_path / "runs" / "mobilesam"
    assert_same_run(runs / "one", runs / "two")
    assert err.count("The image encoder is frozen: its embeddings") == 1


def wait_for(run: Path, steps: int) -> None:
    """Until so many steps are logged."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if (run / "metrics.jsonl").exists() and len(log(run, "train")) >= steps:
            return
        time.sleep(0.02)
    raise AssertionError("the run did not begin")


@pytest.mark.slow
def test_an_interrupted_run_goes_on_with_another_number_of_processes(start: Start, tmp_path: Path) -> None:
    long = ("--set", "train.epochs=12", "--set", "train.validation.every=12")
    finish(start("--set", "train.run=one", *long))
    runs = tmp_path / "runs" / "mobilesam"
    begun = start("--set", "train.run=two", "--devices", "2", *long)
    wait_for(runs / "two", 3)
    begun.send_signal(signal.SIGINT)  # to one of the processes alone
    _, err = begun.communicate(timeout=60)
    assert begun.returncode == 130 and err.count("Training was interrupted at step") == 1, err
    finish(start("--set", "train.run=two", "--resume", *long))
    assert_same_run(runs / "one", runs / "two")


def other_process(pid: int) -> int:
    """The one that process ``pid`` of a run of two has started."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = stat.read_text().rpartition(")")[2].split()[1]
            if int(parent) == pid and "--devices" in (stat.parent / "cmdline").read_text():
                return int(stat.parent.name)
    raise AssertionError(f"{pid} has started no process")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("which", ["first", "other"])
def test_when_a_process_dies_the_others_stop_and_what_was_saved_stands(
    start: Start, tmp_path: Path, which: str
) -> None:
    long = ("--set", "train.epochs=40", "--set", "train.validation.every=40")
    begun = start("--set", "train.run=two", "--devices", "2", *long)
    run = tmp_path / "runs" / "mobilesam" / "two"
    wait_for(run, 5)
    other = other_process(begun.pid)
    os.kill(begun.pid if which == "first" else other, signal.SIGKILL)
    _, err = begun.communicate(timeout=60)  # standard error ends with the last of them
    assert begun.returncode != 0
    assert f"Another of the 2 processes of this run has ended, so process {int(which == 'first')} ends too" in err, err
    finish(start("--set", "train.run=two", "--devices", "2", "--resume", *long))
    assert log(run, "train")[-1]["step"] == 80


def test_more_processes_than_images_of_a_batch_are_refused(start: Start) -> None:
    begun = start("--devices", "2", "--set", "optim.batch_size=1")
    _, err = begun.communicate(timeout=60)
    assert begun.returncode == 2 and err.count("too few images for 2 processes") == 1, err


def test_what_goes_wrong_in_all_is_told_once(start: Start) -> None:
    missing = "data.train={format: folder, images: nowhere, masks: nowhere, mask_mode: binary}"
    begun = start("--devices", "2", "--set", missing)
    _, err = begun.communicate(timeout=120)
    assert begun.returncode == 1 and err.count("nowhere") == 1 and "Another of the" not in err, err
