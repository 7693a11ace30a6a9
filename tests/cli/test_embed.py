from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from mobilesam_core.stores.features import FeatureStore

Run = Callable[..., Any]
NANO = ("--checkpoint", "nano", "--device", "cpu")


@pytest.fixture
def store(run_cli: Run, images: Path, tmp_path: Path) -> Path:
    ran = run_cli("embed", images, "--out", tmp_path / "store", *NANO, "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["images"], ran.json["skipped"], ran.json["failures"]) == (3, 0, [])
    return tmp_path / "store"


def test_amg_predict_and_eval_say_the_same_with_and_without(
    run_cli: Run, images: Path, store: Path, tmp_path: Path
) -> None:
    amg = ("amg", images, *NANO, "--points-per-side", "4", "--pred-iou-thresh", "0.5", "--format", "coco-rle")
    amg = (*amg, "--stability-score-thresh", "0.5")
    predict = ("predict", images, "--box", "10,10,60,60", *NANO, "--no-overlay")
    for number, given in enumerate(((), ("--embeddings", store))):
        for command in (amg, predict):
            ran = run_cli(*command, *given, "--out", tmp_path / f"{command[0]}{number}")
            assert ran.code == 0, ran.err
    for command in ("amg", "predict"):
        for name in ("0.json", "1.json", "2.json"):
            plain, stored = (json.loads((tmp_path / f"{command}{n}" / name).read_text()) for n in (0, 1))
            # Stored in float16, so a score that is just enough may become one that is not.
            assert len(plain) > 0 and abs(len(plain) - len(stored)) <= 1
            ious = coco_mask.iou(
                *[[each["segmentation"] for each in found] for found in (plain, stored)], [0] * len(stored)
            )
            assert ious.max(axis=1).mean() > (0.99 if command == "predict" else 0.9)
    evaluate = ("eval", "nano", "--images", images, "--masks", tmp_path / "masks", "--device", "cpu", "--json")
    plain, stored = (run_cli(*evaluate, *given) for given in ((), ("--embeddings", store)))
    assert plain.code == stored.code == 0, stored.err
    figures = [ran.json["checkpoints"][0]["prompts"]["box"]["miou"] for ran in (plain, stored)]
    assert figures[0] == pytest.approx(figures[1], abs=5e-3)
    everything = (*evaluate, "--amg", "--amg-set", "points_per_side=4", "--amg-set", "pred_iou_thresh=0.5")
    plain, stored = (run_cli(*everything, *given) for given in ((), ("--embeddings", store)))
    found = [ran.json["checkpoints"][0]["everything"]["masks_per_image"] for ran in (plain, stored)]
    assert found[0] > 0 and found[0] == pytest.approx(found[1], abs=1)


def test_a_second_run_adds_what_is_new(run_cli: Run, images: Path, store: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in store.glob("*.safetensors")}
    (images / "renamed.png").write_bytes((images / "0.png").read_bytes())
    Image.new("RGB", (50, 40), "red").save(images / "new.png")
    ran = run_cli("embed", images, "--out", store, *NANO, "--json")
    assert (ran.json["images"], ran.json["skipped"]) == (1, 4)
    after = {path.name: path.stat().st_mtime_ns for path in store.glob("*.safetensors")}
    assert before.items() < after.items() and len(FeatureStore(store)) == 4


def test_embeddings_of_other_weights_or_sizes_are_refused(
    run_cli: Run, images: Path, store: Path, nano_checkpoint: Path, tmp_path: Path
) -> None:
    given = ("--embeddings", store, "--device", "cpu")
    ran = run_cli("amg", images, *given, "--checkpoint", nano_checkpoint, "--out", tmp_path / "out")
    assert ran.code == 2 and "other weights" in ran.err and not (tmp_path / "out").exists()
    ran = run_cli("predict", images / "0.png", "--point", "9,9", *given, "--checkpoint", "nano", "--image-size", "128")
    assert ran.code == 2 and "image_size" in ran.err
    ran = run_cli("eval", nano_checkpoint, "--images", images, "--masks", tmp_path / "masks", *given)
    assert ran.code == 2 and "other weights" in ran.err
    ran = run_cli("embed", images, "--out", store, "--checkpoint", nano_checkpoint)
    assert ran.code == 2 and "other weights" in ran.err
    ran = run_cli("amg", images, *NANO, "--embeddings", tmp_path / "nowhere")
    assert ran.code == 2 and "no stored features" in ran.err


def test_an_image_that_changed_fails_alone(run_cli: Run, images: Path, store: Path, tmp_path: Path) -> None:
    Image.new("RGB", (96, 96), "red").save(images / "1.png")
    amg = ("amg", images, *NANO, "--points-per-side", "2", "--embeddings", store, "--out", tmp_path / "out")
    ran = run_cli(*amg, "--json")
    assert ran.code == 1 and ran.json["images"] == 2
    (failure,) = ran.json["failures"]
    assert failure["image"].endswith("1.png") and "has changed" in failure["problem"]
    evaluate = ("eval", "nano", "--images", images, "--masks", tmp_path / "masks", "--embeddings", store, "--json")
    ran = run_cli(*evaluate)
    assert ran.code == 1 and "has changed" in ran.err and ran.json["checkpoints"][0]["images"] == 2


def test_shares_bad_files_and_wrong_use(run_cli: Run, images: Path, tmp_path: Path) -> None:
    (images / "bad.png").write_bytes(b"no image")
    codes = []
    for number in (1, 2):
        codes.append(run_cli("embed", images, "--out", tmp_path / "out", *NANO, "--shard", f"{number}/2").code)
    assert sorted(codes) == [0, 1] and len(FeatureStore(tmp_path / "out")) == 3
    listed = [path for path in (tmp_path / "out").glob("failures*.jsonl") if "bad.png" in path.read_text()]
    assert len(listed) == 1
    assert run_cli("embed", images, "--out", tmp_path / "out", *NANO, "--shard", "3/2").code == 2
    assert run_cli("embed", tmp_path / "*.tif", *NANO).code == 2
    ran = run_cli("embed", images, "--out", images / "0.png", *NANO)
    assert ran.code == 1 and "is a file" in ran.err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize("command", [("embed",), ("distill", "extract", "--levels", "stages.2,neck")])
def test_a_killed_run_goes_on(run_cli: Run, images: Path, tmp_path: Path, command: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    for index in range(90):
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(images / f"noise{index}.png")
    out = tmp_path / "out"
    # Of other sizes the frame would be too small for a file of the store to fill up.
    given = (*command, images, "--out", out, *NANO, "--image-size", "1024")
    running = subprocess.Popen(
        [sys.executable, "-m", "mobilesam_cli", *map(str, given)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    while not list(out.glob("features*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    done = len(FeatureStore(out))
    assert 0 < done < 93
    ran = run_cli(*given, "--json")
    assert ran.code == 0 and ran.json["skipped"] == done
    assert not list(out.glob(".*"))
    named = {entry.key for entry in FeatureStore(out).entries.values()}
    assert {path.stem for path in images.glob("*.png")} == named
    # The same features as those of a run that nobody killed.
    whole = tmp_path / "whole"
    assert run_cli(*command, images, "--out", whole, *NANO, "--image-size", "1024").code == 0
    checksums = [
        {
            (sha256, name): level.crc32
            for sha256, entry in FeatureStore(folder).entries.items()
            for name, level in entry.levels.items()
        }
        for folder in (out, whole)
    ]
    assert checksums[0] == checksums[1]
