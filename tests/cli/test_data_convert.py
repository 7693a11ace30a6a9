"""``mobilesam data convert`` as a user meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from mobilesam_core.config.loading import load_train_config
from mobilesam_core.data.build import build_source


def test_what_is_printed_trains_on_the_new_set(run_cli, images: Path, tmp_path: Path) -> None:
    masks = images.parent / "masks"
    ran = run_cli("data", "convert", "--from", "folder", "--images", images, "--masks", masks, "--to", "yolo",
                  "--out", tmp_path / "my set")  # fmt: skip
    assert ran.code == 0 and "3 images" in ran.out
    section = ran.out[ran.out.index("data:") :]
    (tmp_path / "c.yaml").write_text(section)
    data = load_train_config(str(tmp_path / "c.yaml")).data
    source = build_source(data.train, data.root)
    assert len(source) == 3 and len(source[0].masks) > 0
    onward = run_cli(
        "data", "convert", "--config", tmp_path / "c.yaml", "--to", "instances", "--out", tmp_path / "back"
    )
    assert onward.code == 0
    before, after = (build_source(load_train_config(str(path)).data.train, root) for path, root in (
        (tmp_path / "c.yaml", data.root), (write_config(tmp_path, onward.out), tmp_path / "back")))  # fmt: skip
    for index in range(3):
        objects = range(len(before[index].masks))
        assert np.array_equal(before[index].masks.dense(objects), after[index].masks.dense(objects))


def test_names_are_printed_as_they_are(run_cli, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "set[/a] :smile:"
    ran = run_cli("data", "convert", "--from", "folder", "--images", images, "--masks", images.parent / "masks",
                  "--to", "coco", "--out", out)  # fmt: skip
    assert ran.code == 0 and f": {out}\n" in ran.out
    assert yaml.safe_load(ran.out[ran.out.index("data:") :])["data"]["root"] == str(out)


def test_names_that_the_output_cannot_hold(images: Path, tmp_path: Path) -> None:
    command = ["-m", "mobilesam_cli", "data", "convert", "--from", "folder", "--images", images, "--masks",
               images.parent / "masks", "--to", "coco", "--out", tmp_path / "sét"]  # fmt: skip
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "COLUMNS": "200"}
    ran = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0 and r"s\xe9t" in ran.stdout


def write_config(folder: Path, printed: str) -> Path:
    path = folder / "back.yaml"
    path.write_text(printed[printed.index("data:") :])
    assert yaml.safe_load(path.read_text())["data"]["train"]["mask_mode"] == "instances"
    return path


def test_json_and_split(run_cli, tmp_path: Path) -> None:
    ran = run_cli("data", "convert", "--config", "quickstart", "--split", "val", "--set", "data.val.count=2",
                  "--to", "sa1b", "--out", tmp_path / "out", "--json")  # fmt: skip
    assert ran.code == 0
    assert ran.json["images"] == 2 and ran.json["set"] == {"format": "sa1b", "images": "images"}
    documents = sorted((tmp_path / "out/images").glob("*.json"))
    assert sum(len(json.loads(path.read_text())["annotations"]) for path in documents) == ran.json["objects"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "Name the data once: none is given."),
        (["--from", "coco", "--config", "c.yaml"], "both given"),
        (["--from", "coco", "--images", "."], "--from coco needs --annotations."),
        (["--from", "yolo"], "--from yolo needs --images and --labels."),
        (["--from", "sa1b", "--images", ".", "--labels", "."], "--labels does not go with --from sa1b."),
        (["--config", "quickstart", "--mask-mode", "binary"], "--mask-mode goes with --from"),
        (["--from", "sa1b", "--images", ".", "--set", "a=1"], "there is no --config"),
        (["--config", "mix.yaml"], "data.train is a mix"),
        (["--config", "mix.yaml", "--split", "val"], "has no data.val"),
        (["--config", "images.yaml"], "have no labels"),
        (["--config", "quickstart", "--out", "full"], "exists and is not an empty folder"),
    ],
)
def test_wrong_use(
    run_cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    mix = "{format: mix, sets: [{set: {format: shapes}}]}"
    (tmp_path / "mix.yaml").write_text(f"data: {{train: {mix}}}\n")
    only = "distill: {ground_truth: 0, teachers: [{checkpoint: nano}], masks: {}}"
    (tmp_path / "images.yaml").write_text(f"data: {{train: {{format: images, images: a}}}}\n{only}\n")
    (tmp_path / "full/file").mkdir(parents=True)
    ran = run_cli("data", "convert", "--to", "coco", "--out", "new", *arguments)
    assert ran.code == 2 and problem in ran.err and not (tmp_path / "new").exists()


def test_bad_data_is_named(run_cli, images: Path, tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/1.txt").write_text("0 0.1 0.1 1.5 0.1 0.5 0.5\n")
    ran = run_cli("data", "convert", "--from", "yolo", "--images", images, "--labels", tmp_path / "labels",
                  "--to", "coco", "--out", tmp_path / "new")  # fmt: skip
    assert ran.code == 1 and "1.txt: line 1 has the coordinate 1.5" in ran.err and not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".new*"))
