from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mobilesam_core.checkpoints.thresholds import suggest_thresholds
from mobilesam_core.config.amg import AmgThresholds
from mobilesam_core.config.data import ShapesConfig
from mobilesam_core.data.shapes import ShapesSource
from mobilesam_core.ops.rle import decode_rle

Run = Callable[..., Any]

CONFIG = """
model: {name: vit_nano, checkpoint: null}
data:
  train: {format: shapes, count: 1, size: 64}
  val: {format: shapes, domains: [polygons], count: 4, size: 128, seed: 5}
"""
SETTINGS = "points_per_side: 8\npred_iou_thresh: 0.5\nstability_score_thresh: 0.9\n"


@pytest.fixture
def config(tmp_path: Path) -> tuple[object, ...]:
    """Drawn images, and the settings of amg."""
    (tmp_path / "train.yaml").write_text(CONFIG)
    (tmp_path / "amg.yaml").write_text(SETTINGS)
    given = ("--config", tmp_path / "train.yaml", "--max-images", 2, "--device", "cpu")
    return "--amg", "--amg-config", tmp_path / "amg.yaml", *given


def test_checkpoints_stand_side_by_side(run_cli: Run, nano_checkpoint: Path, config: tuple, tmp_path: Path) -> None:
    shutil.copy(nano_checkpoint, tmp_path / "random.safetensors")
    ran = run_cli("eval", "nano", tmp_path / "random.safetensors", *config)
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert "objects in 2 images" in lines[0]
    header = "\n".join(lines[1:5])
    for column in ("AR", "@100", "@1000", "AP50", "AP75", "found", "@0.5", "@0.7", "masks", "sec."):
        assert column in header
    assert [line.split("│")[0].strip() for line in lines[-2:]] == ["nano", "random"]


def test_json_and_files_say_the_same(run_process: Run, config: tuple, tmp_path: Path) -> None:
    out = tmp_path / "report"
    ran = run_process("eval", "nano", *config, "--amg-set", "pred_iou_thresh=0.6", "--out", out, "--json")
    assert ran.code == 0, ran.err
    assert json.loads((out / "metrics.json").read_text("utf-8")) == ran.json
    (entry,) = ran.json["checkpoints"]
    settings = entry["options"]["amg"]
    assert (settings["points_per_side"], settings["pred_iou_thresh"], settings["box_nms_thresh"]) == (8, 0.6, 0.7)
    assert entry["name"] == "nano" and entry["images"] == 2 and entry["failures"] == []
    figures = entry["everything"]
    assert 0 < figures["ap"] <= figures["ap_50"] and 0 < figures["ar_100"] == figures["ar_1000"]
    assert figures["found"]["0.5"] >= figures["found"]["0.7"] > 0 and figures["seconds_per_image"] > 0
    detections = json.loads((out / "nano" / "detections.json").read_text("utf-8"))
    truth = json.loads((out / "nano" / "ground_truth.json").read_text("utf-8"))
    assert len(detections) == 2 * figures["masks_per_image"] and len(truth["annotations"]) == figures["objects"]
    assert {image["id"] for image in truth["images"]} == {1, 2}
    for each in detections:
        assert each["score"] > 0.6 and each["image_id"] in (1, 2) and each["category_id"] == 1
        assert decode_rle(each["segmentation"]).shape == (128, 128)
    refused = run_process("eval", "nano", *config, "--out", out)
    assert refused.code == 2 and "already holds" in refused.err


def test_each_checkpoint_has_its_own_thresholds(run_cli: Run, nano_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(CONFIG)
    names = ("a.safetensors", "b.safetensors")
    for name in names:
        shutil.copy(nano_checkpoint, tmp_path / name)
    suggest_thresholds(tmp_path / "b.safetensors", AmgThresholds(pred_iou_thresh=0.5, stability_score_thresh=0.6))
    given = ("--config", tmp_path / "train.yaml", "--amg", "--amg-set", "points_per_side=2", "--max-images", 1)
    ran = run_cli("eval", *(tmp_path / name for name in names), *given, "--json")
    used = [each["options"]["amg"] for each in ran.json["checkpoints"]]
    assert [(each["pred_iou_thresh"], each["stability_score_thresh"]) for each in used] == [(0.88, 0.95), (0.5, 0.6)]
    assert "(the default)" in ran.err and "(b.safetensors)" in ran.err


def test_tiles(run_cli: Run, config: tuple, tmp_path: Path) -> None:
    given = ("eval", "nano", *config, "--image-size", 128, "--max-images", 1, "--json")
    (entry,) = run_cli(*given, "--tile", 96, "--overlap", 48).json["checkpoints"]
    assert (entry["options"]["amg"]["tile"], entry["options"]["amg"]["overlap"]) == (96, 48)
    (plain,) = run_cli(*given).json["checkpoints"]
    assert plain["options"]["amg"]["tile"] is None and plain["everything"] != entry["everything"]


def test_a_bad_file_costs_itself_alone(run_cli: Run, config: tuple, tmp_path: Path) -> None:
    source = ShapesSource(ShapesConfig(format="shapes", domains=("polygons",), count=2, size=128, seed=5))
    for name in ("images", "masks"):
        (tmp_path / "set" / name).mkdir(parents=True)
    for i in range(2):
        drawn = source[i]
        ids = np.zeros((128, 128), np.uint8)
        for number, mask in enumerate(drawn.masks.dense(range(len(drawn.masks))), 1):
            ids[mask] = number
        Image.fromarray(drawn.image).save(tmp_path / "set" / "images" / f"{i}.png")
        Image.fromarray(ids).save(tmp_path / "set" / "masks" / f"{i}.png")
    (tmp_path / "set" / "images" / "0.png").write_bytes(b"")
    data = ("--images", tmp_path / "set" / "images", "--masks", tmp_path / "set" / "masks", "--device", "cpu")
    ran = run_cli("eval", "nano", *config[:3], *data, "--json")
    assert ran.code == 1 and "0.png is empty" in ran.err
    (entry,) = ran.json["checkpoints"]
    assert entry["images"] == 1 and len(entry["failures"]) == 1 and entry["everything"]["objects"] > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--amg", "--prompts", "box"), "--prompts goes without --amg"),
        (("--amg", "--clicks", "3"), "--clicks goes without --amg"),
        (("--amg", "--mask-threshold", "0.5"), "--mask-threshold goes without --amg"),
        (("--amg", "--worst", "3"), "--worst goes without --amg"),
        (("--amg-set", "points_per_side=8"), "--amg-set goes only with --amg"),
        (("--amg-config", "amg.yaml"), "--amg-config goes only with --amg"),
        (("--amg", "--amg-set", "points_per_sid=8"), "did you mean 'points_per_side'"),
        (("--amg", "--amg-set", "points_per_side"), "'--amg-set points_per_side' has no value"),
        (("--amg", "--amg-config", "missing.yaml"), "missing.yaml"),
    ],
)
def test_wrong_use_is_one_sentence(run_cli: Run, arguments: tuple[str, ...], said: str) -> None:
    ran = run_cli("eval", "nano", "--config", "quickstart", *arguments)
    assert ran.code == 2 and said in ran.err and "Traceback" not in ran.err
    assert ran.out == ""
