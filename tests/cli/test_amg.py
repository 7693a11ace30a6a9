from __future__ import annotations

import csv
import json
import os
import shutil
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
from pycocotools.coco import COCO

from mobilesam_core.checkpoints.loading import embedded_weights
from mobilesam_core.checkpoints.thresholds import suggest_thresholds
from mobilesam_core.config.amg import AmgThresholds
from mobilesam_core.config.data import ShapesConfig
from mobilesam_core.data.shapes import ShapesSource
from mobilesam_core.ops.rle import decode_rle

Run = Callable[..., Any]
SETTINGS = ("--points-per-side", "8", "--pred-iou-thresh", "0.5", "--stability-score-thresh", "0.5")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    source = ShapesSource(ShapesConfig(format="shapes", domains=("polygons",), count=4, size=128, seed=5))
    for index, name in enumerate(("one.png", "two.jpg", "sub/one.png", "sub/three.png")):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(source[index].image).save(path)
    return tmp_path / "images"


@pytest.fixture
def options(tmp_path: Path) -> tuple[object, ...]:
    return "--checkpoint", "nano", "--image-size", "256", "--out", tmp_path / "out", "--device", "cpu", *SETTINGS


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_no_mask_at_all_says_what_to_do(run_cli: Run, images: Path, options: tuple) -> None:
    ran = run_cli("amg", images / "one.png", *options, "--pred-iou-thresh", "1", "--json")
    assert ran.code == 0 and ran.json["masks"] == 0
    assert "No mask passed the thresholds (pred_iou_thresh 1, stability_score_thresh 0.5)" in ran.err
    again = run_cli("amg", images / "one.png", *options, "--pred-iou-thresh", "1")
    assert again.code == 0 and "No mask passed" not in again.err  # nothing was done


def test_png_and_overlay(run_process: Run, images: Path, options: tuple, tmp_path: Path) -> None:
    ran = run_process("amg", images, *options, "--overlay")
    assert ran.code == 0, ran.err
    assert "4 images" in ran.out and "images/s" in ran.out
    for name in ("one", "two", "sub/one", "sub/three"):
        with (tmp_path / "out" / name / "metadata.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) >= 1
        for row in rows:
            with Image.open(tmp_path / "out" / name / f"{row['id']}.png") as mask:
                pixels = np.asarray(mask)
            assert pixels.shape == (128, 128) and set(np.unique(pixels)) <= {0, 255}
            assert (pixels > 0).sum() == int(row["area"])
            assert (pixels > 0).any(0).sum() <= int(row["bbox_w"])
        assert (tmp_path / "out" / f"{name}_overlay.png").exists()


def test_json_formats_hold_the_same_masks(run_cli: Run, images: Path, options: tuple, tmp_path: Path) -> None:
    folders = {}
    for form in ("coco-rle", "sa1b", "coco", "labels"):
        folders[form] = tmp_path / form
        ran = run_cli("amg", images, *options, "--out", folders[form], "--format", form, "--json")
        assert ran.code == 0, ran.err
        assert ran.json["images"] == 4 and ran.json["failures"] == []
    listed = json.loads((folders["coco-rle"] / "sub/one.json").read_text())
    document = json.loads((folders["sa1b"] / "sub/one.json").read_text())
    assert document["image"] == {"image_id": "sub/one", "file_name": "sub/one.png", "width": 128, "height": 128}
    assert [{k: v for k, v in each.items() if k != "id"} for each in document["annotations"]] == listed
    coco = COCO(folders["coco"] / "annotations.json")
    names = sorted(image["file_name"] for image in coco.imgs.values())
    assert names == ["one.png", "sub/one.png", "sub/three.png", "two.jpg"]
    for annotation in coco.anns.values():
        mask = decode_rle(annotation["segmentation"])
        assert mask.sum() == annotation["area"] and annotation["score"] > 0
        x, y, width, height = annotation["bbox"]
        assert mask.any(1).nonzero()[0][-1] + 1 == y + height and mask.any(0).nonzero()[0][-1] + 1 == x + width
    with Image.open(folders["labels"] / "sub/one.png") as image:
        labels = np.asarray(image)
    smallest = min(range(len(listed)), key=lambda i: listed[i]["area"])
    assert labels.dtype == np.uint16 and (labels[decode_rle(listed[smallest]["segmentation"])] == smallest + 1).all()


def test_it_goes_on_where_it_stopped(run_cli: Run, images: Path, options: tuple, tmp_path: Path) -> None:
    assert run_cli("amg", images, *options).code == 0
    whole = _tree(tmp_path / "out")
    (tmp_path / "out/.amg/two.json").unlink()  # half-written
    (tmp_path / "out/two/metadata.csv").unlink()
    (tmp_path / "out/two/.1.abcd1234.part.png").touch()
    Image.new("L", (9, 9)).save(tmp_path / "out/two/0.png")
    before = (tmp_path / "out/one/0.png").stat().st_mtime_ns
    ran = run_cli("amg", images, *options, "--json")
    assert ran.code == 0 and ran.json["images"] == 1 and ran.json["skipped"] == 3
    assert _tree(tmp_path / "out") == whole
    assert (tmp_path / "out/one/0.png").stat().st_mtime_ns == before
    assert run_cli("amg", images, *options, "--overwrite", "--json").json["images"] == 4
    ran = run_cli("amg", images, *options, "--overlay", "--json")
    assert ran.json["images"] == 4 and (tmp_path / "out/sub/three_overlay.png").exists()


def test_other_images_of_the_same_names_are_not_taken_for_done(
    run_cli: Run, images: Path, options: tuple, tmp_path: Path
) -> None:
    assert run_cli("amg", images / "one.png", *options).code == 0
    before = _tree(tmp_path / "out")
    ran = run_cli("amg", images / "sub/one.png", *options)
    assert ran.code == 2 and "another image called one" in ran.err
    assert _tree(tmp_path / "out") == before


def test_what_a_share_did_with_other_settings_is_not_taken_for_done(run_cli: Run, images: Path, options: tuple) -> None:
    assert run_cli("amg", images, *options).code == 0
    assert run_cli("amg", images, *options, "--min-area", "9", "--overwrite", "--shard", "1/2").code == 0
    ran = run_cli("amg", images, *options, "--min-area", "9", "--shard", "2/2")
    assert ran.code == 2 and "another min_area" in ran.err


def test_tiles(run_cli: Run, images: Path, options: tuple, tmp_path: Path) -> None:
    tiles = ("--tile", "96", "--overlap", "48", "--format", "coco-rle")
    ran = run_cli("amg", images / "one.png", *options, *tiles)
    assert ran.code == 0, ran.err
    crops = {tuple(each["crop_box"]) for each in json.loads((tmp_path / "out/one.json").read_text())}
    assert crops <= {(0, 0, 128, 128), *((x, y, 96, 96) for x in (0, 32) for y in (0, 32))} and len(crops) > 1
    assert run_cli("amg", images / "one.png", *options, *tiles, "--json").json["skipped"] == 1
    ran = run_cli("amg", images / "one.png", *options, "--format", "coco-rle")
    assert ran.code == 2 and "another tile (96, not None)" in ran.err
    (tmp_path / "amg.yaml").write_text("overlap: 32\n")  # which counts with tiles alone
    plain = ("amg", images / "one.png", *options, "--format", "coco-rle", "--out", tmp_path / "plain")
    assert run_cli(*plain).code == 0
    assert run_cli(*plain, "--config", tmp_path / "amg.yaml", "--json").json["skipped"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--tile", "32"), "tile is 32 pixels, the least is 64"),
        (("--tile", "128", "--overlap", "128"), "overlap is 128 pixels"),
        (("--tile", "128", "--crop-n-layers", "1"), "tile and crop_n_layers both say where to crop"),
        (("--overlap", "32"), "--overlap is of tiles"),
        (("--tile", "128", "--embeddings", "store"), "embeddings are of whole images"),
    ],
)
def test_tiles_that_cannot_be(run_cli: Run, images: Path, tmp_path: Path, arguments: tuple, said: str) -> None:
    ran = run_cli("amg", images, "--checkpoint", "nano", "--out", tmp_path / "out", *arguments)
    assert ran.code == 2 and said in ran.err and "Traceback" not in ran.err
    assert not (tmp_path / "out").exists()


def test_shards_together_are_the_whole(run_cli: Run, images: Path, options: tuple, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        ran = run_cli("amg", images, *options, "--shard", f"{number}/3", "--format", "sa1b")
        assert ran.code == 0, ran.err
    shared = _tree(tmp_path / "out")
    assert run_cli("amg", images, *options, "--out", tmp_path / "whole", "--format", "sa1b").code == 0
    assert _tree(tmp_path / "whole") == shared and len(shared) == 8


def test_a_bad_file_costs_itself_alone(run_cli: Run, images: Path, options: tuple, tmp_path: Path) -> None:
    data = (images / "two.jpg").read_bytes()
    (images / "two.jpg").write_bytes(data[: len(data) // 3])
    ran = run_cli("amg", images, *options, "--json")
    assert ran.code == 1 and "1 of 4 images" in ran.err
    (failure,) = [json.loads(line) for line in (tmp_path / "out/failures.jsonl").read_text().splitlines()]
    assert failure["source"].endswith("two.jpg") and ran.json["images"] == 3
    again = run_cli("amg", images, *options, "--json")
    assert again.code == 1 and again.json["skipped"] == 3 and (tmp_path / "out/failures.jsonl").exists()
    (images / "two.jpg").write_bytes(data)
    assert run_cli("amg", images, *options).code == 0
    assert not (tmp_path / "out/failures.jsonl").exists() and (tmp_path / "out/two/metadata.csv").exists()


def test_settings_come_from_a_file_and_options_win(run_cli: Run, images: Path, tmp_path: Path) -> None:
    (tmp_path / "amg.yaml").write_text("points_per_side: 4\npred_iou_thresh: 0.5\nstability_score_thresh: 0.5\n")
    given = (
        "--checkpoint",
        "nano",
        "--image-size",
        "256",
        "--out",
        tmp_path / "out",
        "--device",
        "cpu",
        "--config",
        tmp_path / "amg.yaml",
    )
    assert run_cli("amg", images / "one.png", *given, "--pred-iou-thresh", "0.6").code == 0
    settings = json.loads((tmp_path / "out/.amg/one.json").read_text())["settings"]
    assert (settings["points_per_side"], settings["pred_iou_thresh"], settings["box_nms_thresh"]) == (4, 0.6, 0.7)
    ran = run_cli("amg", images / "one.png", *given)
    assert ran.code == 2 and "another pred_iou_thresh" in ran.err


def test_thresholds_are_those_the_weights_suggest_unless_given(run_cli: Run, images: Path, tmp_path: Path) -> None:
    weights, config = tmp_path / "mine.safetensors", tmp_path / "amg.yaml"
    shutil.copy(embedded_weights(), weights)
    suggest_thresholds(weights, AmgThresholds(pred_iou_thresh=0.4, stability_score_thresh=0.3))
    config.write_text("stability_score_thresh: 0.2\n")
    given = (images / "one.png", "--checkpoint", weights, "--image-size", "128", "--points-per-side", "2", "--json")
    suggested = run_cli("amg", *given, "--out", tmp_path / "a")
    assert (suggested.json["pred_iou_thresh"], suggested.json["stability_score_thresh"]) == (0.4, 0.3)
    assert "pred_iou_thresh 0.4 (mine.safetensors), stability_score_thresh 0.3 (mine.safetensors)" in suggested.err
    chosen = run_cli("amg", *given, "--out", tmp_path / "b", "--config", config, "--pred-iou-thresh", "0.88")
    assert (chosen.json["pred_iou_thresh"], chosen.json["stability_score_thresh"]) == (0.88, 0.2)
    assert "pred_iou_thresh 0.88 (given), stability_score_thresh 0.2 (given)" in chosen.err
    # What was done by other thresholds is not taken for done.
    suggest_thresholds(weights, AmgThresholds(pred_iou_thresh=0.5, stability_score_thresh=0.3))
    refused = run_cli("amg", *given, "--out", tmp_path / "a")
    assert refused.code == 2 and "made with another" in refused.err
    unnamed = run_cli("amg", *given[:1], "--checkpoint", "nano", *given[3:], "--out", tmp_path / "c")
    assert "pred_iou_thresh 0.88 (the default), stability_score_thresh 0.95 (the default)" in unnamed.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--shard", "5/3"), "5/3"),
        (("--pred-iou-thresh", "1.5"), "pred_iou_thresh"),
        (("--points-per-side", "0"), "points_per_side"),
    ],
)
def test_wrong_use_is_one_sentence(run_cli: Run, images: Path, options: tuple, arguments: tuple, said: str) -> None:
    ran = run_cli("amg", images, *options, *arguments)
    assert ran.code == 2 and said in ran.err and "Traceback" not in ran.err


def test_no_image_and_a_folder_that_is_a_file(run_cli: Run, images: Path, options: tuple, tmp_path: Path) -> None:
    assert run_cli("amg", images / "*.tif", *options).code == 2
    (tmp_path / "out").touch()
    ran = run_cli("amg", images, *options)
    assert ran.code == 1 and "is a file" in ran.err


def test_unusual_images(run_cli: Run, options: tuple, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "odd"
    folder.mkdir()
    Image.fromarray(rng.integers(0, 255, (40, 60), np.uint8)).save(folder / "grey.png")
    Image.fromarray(rng.integers(0, 255, (40, 60, 4), np.uint8)).save(folder / "rgba.png")
    Image.fromarray(rng.integers(0, 60000, (40, 60)).astype(np.uint16)).save(folder / "deep.png")
    Image.fromarray(rng.integers(0, 255, (1, 1, 3), np.uint8)).save(folder / "dot.png")
    Image.fromarray(rng.integers(0, 255, (1, 5000, 3), np.uint8)).save(folder / "line.png")
    ran = run_cli("amg", folder, *options, "--pred-iou-thresh", "0", "--stability-score-thresh", "0", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["images"] == 5


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_run_leaves_nothing_that_a_rerun_does_not_mend(
    run_cli: Run, images: Path, options: tuple, tmp_path: Path
) -> None:
    for index in range(12):
        (images / f"copy{index}.png").write_bytes((images / "one.png").read_bytes())
    command = [sys.executable, "-m", "mobilesam_cli", "amg", images, *options, "--overlay"]
    running = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out/.amg").rglob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert 0 < len(list((tmp_path / "out/.amg").rglob("*.json"))) < 16
    assert run_cli("amg", images, *options, "--overlay").code == 0
    assert run_cli("amg", images, *options, "--overlay", "--out", tmp_path / "whole").code == 0
    assert _tree(tmp_path / "out") == _tree(tmp_path / "whole")
