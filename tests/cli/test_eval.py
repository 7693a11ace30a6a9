from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

Run = Callable[..., Any]

CONFIG = """
model: {name: vit_nano, checkpoint: null}
data:
  train: {format: shapes, count: 2, size: 64}
"""


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """Three images of round cells, with instance-id PNGs."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / "cells" / name).mkdir(parents=True)
    for stem in ("a", "b", "c"):
        labels = np.zeros((60, 80), np.uint16)
        cv2.circle(labels, (20, 25), 12, 1, -1)
        cv2.circle(labels, (55, 35), 20, 300, -1)
        image = rng.integers(0, 60, (60, 80, 3), np.uint8) + (labels > 0)[..., None] * np.uint8(120)
        Image.fromarray(image).save(tmp_path / "cells" / "images" / f"{stem}.png")
        Image.fromarray(labels).save(tmp_path / "cells" / "masks" / f"{stem}.png")
    return tmp_path / "cells"


def data_options(cells: Path) -> tuple[object, ...]:
    return "--images", cells / "images", "--masks", cells / "masks", "--device", "cpu"


def test_the_table_has_every_prompt_and_the_baseline(run_cli: Run, nano_checkpoint: Path, cells: Path) -> None:
    ran = run_cli("eval", nano_checkpoint, *data_options(cells), "--prompts", "box,point,clicks", "--clicks", 2)
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert lines[0].strip() == "6 objects in 3 images"
    header = next(line for line in lines if "mIoU" in line)
    for column in ("checkpoint", "prompt", "oracle", "Dice", "boundary", "small (3)", "medium (3)"):
        assert column in header
    for kind in ("box", "point", "clicks"):
        assert any("nano " in line and f" {kind} " in line for line in lines)
    baseline = next(line for line in lines if "fill the box" in line)
    assert "0.7" in baseline
    assert any("NoC@85" in line for line in lines)


def test_json_and_files_say_the_same(run_cli: Run, nano_checkpoint: Path, cells: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    ran = run_cli("eval", nano_checkpoint, *data_options(cells), "--out", out, "--worst", 2, "--json")
    assert ran.code == 0, ran.err
    assert json.loads((out / "metrics.json").read_text("utf-8")) == ran.json
    (entry,) = ran.json["checkpoints"]
    assert entry["name"] == "nano" and entry["model"] == "vit_nano" and len(entry["sha256"]) == 64
    with (out / "nano" / "objects.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * entry["prompts"]["box"]["objects"] == 12
    assert {row["label"] for row in rows} == {"1", "300"}
    pictures = sorted(path.name for path in (out / "nano" / "worst").iterdir())
    assert pictures == ["box_01.png", "box_02.png", "point_01.png", "point_02.png"]


def test_several_checkpoints_stand_side_by_side(
    run_cli: Run, nano_checkpoint: Path, cells: Path, tmp_path: Path
) -> None:
    for run in ("one", "two"):
        (tmp_path / run).mkdir()
        shutil.copy(nano_checkpoint, tmp_path / run / "best.safetensors")
    both = [tmp_path / run / "best.safetensors" for run in ("one", "two")]
    ran = run_cli("eval", *both, *data_options(cells), "--prompts", "box", "--json")
    one, two = ran.json["checkpoints"]
    assert (one["name"], two["name"]) == ("one-best", "two-best")
    assert one["prompts"] == two["prompts"]


def test_data_of_a_config_and_its_overrides(run_cli: Run, nano_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(CONFIG)
    config = ("--config", tmp_path / "train.yaml", "--prompts", "box", "--json")
    ran = run_cli("eval", nano_checkpoint, *config, "--split", "train", "--set", "data.train.count=3")
    assert ran.json["checkpoints"][0]["images"] == 3
    missing = run_cli("eval", nano_checkpoint, *config)
    assert missing.code == 2 and "no data.val" in missing.err


def test_bad_files_are_all_listed_and_the_rest_is_evaluated(
    run_process: Run, nano_checkpoint: Path, cells: Path
) -> None:
    (cells / "images" / "a.png").write_bytes(b"")
    whole = (cells / "images" / "b.png").read_bytes()
    (cells / "images" / "b.png").write_bytes(whole[: len(whole) // 2])
    ran = run_process("eval", nano_checkpoint, *data_options(cells), "--json")
    assert ran.code == 1
    assert ran.json["checkpoints"][0]["images"] == 1
    assert len(ran.json["checkpoints"][0]["failures"]) == 2
    assert "2 files or objects" in ran.err and "a.png is empty" in ran.err and "b.png" in ran.err
    assert "Traceback" not in ran.err


def test_results_are_not_overwritten_unasked(run_cli: Run, nano_checkpoint: Path, cells: Path, tmp_path: Path) -> None:
    command = ("eval", nano_checkpoint, *data_options(cells), "--prompts", "box", "--out", tmp_path / "report")
    assert run_cli(*command).code == 0
    refused = run_cli(*command)
    assert refused.code == 2 and "already holds" in refused.err and "--overwrite" in refused.err
    assert run_cli(*command, "--overwrite").code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "none is given"),
        (("--config", "quickstart", "--images", "x"), "both given"),
        (("--images", "x"), "--masks or --annotations"),
        (("--images", "x", "--masks", "y", "--annotations", "z"), "--masks or --annotations"),
        (("--config", "quickstart", "--masks", "y"), "go with --images"),
        (("--images", "x", "--masks", "y", "--set", "data.root=z"), "no --config"),
        (("--config", "quickstart", "--prompts", "boxes"), "boxes"),
    ],
)
def test_wrong_use_is_one_sentence(run_cli: Run, nano_checkpoint: Path, arguments: tuple[str, ...], said: str) -> None:
    ran = run_cli("eval", nano_checkpoint, *arguments)
    assert ran.code == 2
    assert said in ran.err and "Traceback" not in ran.err
    assert ran.out == ""


def test_a_folder_or_checkpoint_that_is_not_there(
    run_cli: Run, nano_checkpoint: Path, cells: Path, tmp_path: Path
) -> None:
    nowhere = run_cli("eval", nano_checkpoint, "--images", tmp_path / "nowhere", "--masks", cells / "masks")
    assert nowhere.code == 1 and "nowhere" in nowhere.err
    missing = run_cli("eval", tmp_path / "missing.pt", *data_options(cells))
    assert missing.code == 1 and "missing.pt" in missing.err


def test_real_photographs_with_coco_annotations(run_cli: Run, nano_checkpoint: Path, data_root: Path) -> None:
    data = ("--images", data_root / "coco" / "images", "--annotations", data_root / "coco" / "val.json")
    ran = run_cli("eval", nano_checkpoint, *data, "--max-images", 2, "--prompts", "box,clicks", "--clicks", 2, "--json")
    assert ran.code == 0, ran.err
    (entry,) = ran.json["checkpoints"]
    assert entry["images"] == 2 and entry["failures"] == []
    assert entry["prompts"]["box"]["objects"] == entry["prompts"]["clicks"]["objects"] > 2
    assert len(entry["prompts"]["clicks"]["clicks"]["iou_after"]) == 2


def test_another_image_size(run_cli: Run, nano_checkpoint: Path, cells: Path) -> None:
    ran = run_cli("eval", nano_checkpoint, *data_options(cells), "--image-size", 128, "--json")
    assert ran.code == 0 and ran.json["checkpoints"][0]["image_size"] == 128
    ran = run_cli("eval", nano_checkpoint, *data_options(cells), "--image-size", 100)
    assert ran.code == 2 and "multiple of 64" in ran.err


def test_tiles_by_option_and_of_a_config(run_cli: Run, cells: Path, tmp_path: Path) -> None:
    nano = ("eval", "nano", "--image-size", 128, "--prompts", "box", "--json")
    data = ("--images", cells / "images", "--masks", cells / "masks")
    ran = run_cli(*nano, *data, "--tile", 64, "--overlap", 40, "--out", tmp_path / "report")
    assert ran.code == 0, ran.err
    (tiled,) = ran.json["checkpoints"]
    assert tiled["options"]["tiling"] == {"tile": 64, "overlap": 40} and tiled["prompts"]["box"]["objects"] == 6
    assert len(list((tmp_path / "report" / "nano" / "worst").iterdir())) == 6
    folders = "{format: folder, images: images, masks: masks, mask_mode: instances}"
    (tmp_path / "train.yaml").write_text(f"data: {{root: {cells}, tile: 64, overlap: 40, train: {folders}}}\n")
    of_config = (*nano, "--config", tmp_path / "train.yaml", "--split", "train")
    assert run_cli(*of_config).json["checkpoints"][0]["prompts"] == tiled["prompts"]
    (whole,) = run_cli(*of_config, "--set", "data.tile=null").json["checkpoints"]
    assert whole["options"]["tiling"] is None and whole["prompts"] != tiled["prompts"]
    (other,) = run_cli(*of_config, "--tile", 72).json["checkpoints"]
    assert other["options"]["tiling"] == {"tile": 72, "overlap": 40}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--tile", "32"), "tile is 32 pixels"),
        (("--tile", "64"), "overlap is 64 pixels"),
        (("--overlap", "64"), "--overlap is of tiles"),
        (("--amg", "--overlap", "64"), "--overlap is of tiles"),
        (("--amg", "--tile", "128", "--amg-set", "crop_n_layers=1"), "both say where to crop"),
        (("--tile", "64", "--overlap", "0", "--embeddings"), "embeddings are of whole images"),
        (("--amg", "--tile", "64", "--overlap", "0", "--embeddings"), "embeddings are of whole images"),
    ],
)
def test_tiles_that_cannot_be(run_cli: Run, cells: Path, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    if arguments[-1] == "--embeddings":
        assert run_cli("embed", cells / "images", "--checkpoint", "nano", "--out", tmp_path / "store").code == 0
        arguments = (*arguments, str(tmp_path / "store"))
    ran = run_cli("eval", "nano", *data_options(cells), *arguments)
    assert ran.code == 2 and said in ran.err and "Traceback" not in ran.err


def test_eval_refuses_a_mix(run_cli, tmp_path: Path) -> None:
    (tmp_path / "mix.yaml").write_text("data: {train: {format: mix, sets: [{set: {format: shapes}}]}}\n")
    ran = run_cli("eval", "nano", "--config", tmp_path / "mix.yaml", "--split", "train")
    assert ran.code == 2 and "data.train is a mix" in ran.err
