"""``mobilesam config``: configs from data and from MobileSAM_Finetune's JSON, and what editors are told."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mobilesam_core.config.data import ShapesConfig
from mobilesam_core.config.loading import load_train_config
from mobilesam_core.data.convert import convert
from mobilesam_core.training.starter import Hardware, write_starter

Run = Callable[..., Any]
TINY = (
    "model.image_size=64",
    "data.min_object_area=1",
    "data.workers=0",
    "train.validation.max_images=2",
    "train.validation.before=false",
    "train.validation.overlays=0",
    "train.validation.everything=0",
)
"""What makes two steps quick; with smaller views, objects are smaller too."""


def train_two_steps(run_cli: Run, config: Path, *overrides: str) -> dict[str, Any]:
    changes = ("train.max_steps=2", f"train.output_dir={config.parent / 'runs'}", *overrides)
    ran = run_cli("train", config, "--json", *[part for change in changes for part in ("--set", change)])
    assert ran.code == 0, ran.err
    assert ran.json["steps"] == 2 and Path(ran.json["best"]).exists()
    return dict(ran.json)


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """A set with splits, of masks with ids."""
    for split, count, seed in (("train", 6, 1), ("val", 3, 2)):
        shapes = ShapesConfig(format="shapes", domains=("polygons",), count=count, size=64, max_shapes=4, seed=seed)
        convert(shapes, Path(), "instances", tmp_path / "my set" / split, lossy=True)
    return tmp_path / "my set"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("nuclei", "instances"), ("coco", "coco"), ("binary/leaf", "binary"), ("binary/pothole", "components")],
)
def test_real_data_are_told(run_cli: Run, data_root: Path, tmp_path: Path, name: str, kind: str) -> None:
    out = tmp_path / "train.yaml"
    ran = run_cli("config", "init", data_root / name, "--out", out, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["sets"].keys() == {"train", "val"} and ran.json["sets"]["train"]["unusable"] == 0
    config = load_train_config(str(out))
    assert getattr(config.data.train, "mask_mode", config.data.train.format) == kind
    if name == "binary/pothole":  # the others: below
        train_two_steps(run_cli, out, *TINY, "data.verify=false")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nuclei", "coco", "binary/leaf", "binary/pothole"])
def test_a_config_for_real_data_trains_as_it_is(run_cli: Run, data_root: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "train.yaml"
    assert run_cli("config", "init", data_root / name, "--out", out).code == 0
    result = train_two_steps(run_cli, out)
    assert result["metrics"]["miou"] > 0 and result["before"]
    if name == "binary/pothole":
        train_two_steps(run_cli, out)  # the name is taken by then


def test_what_is_written_says_what_was_found_and_what_to_run(run_cli: Run, drawn: Path, tmp_path: Path) -> None:
    out = tmp_path / "a b.yaml"
    ran = run_cli("config", "init", drawn, "--out", out)
    assert ran.code == 0, ran.err
    assert "6 images with " in ran.out and "3 images with " in ran.out and "Next: mobilesam train" in ran.out
    text = out.read_text()
    assert text.startswith(f"# Fine-tune on {drawn}: 6 images with ")
    run = next(line for line in text.splitlines() if line.startswith("# Run:"))
    words = shlex.split(run.removeprefix("# Run:"))
    assert words == ["mobilesam", "train", str(out)]
    assert load_train_config(str(out)).train.project == "my-set"


def test_a_bad_file_is_told_and_passed_over(run_cli: Run, drawn: Path, tmp_path: Path) -> None:
    bad = next((drawn / "train/images").iterdir())
    bad.write_bytes(bad.read_bytes()[:40])
    out = tmp_path / "train.yaml"
    ran = run_cli("config", "init", drawn, "--out", out, "--json")
    assert ran.json["sets"]["train"]["unusable"] == 1 and bad.name in ran.json["remarks"][0]
    assert load_train_config(str(out)).data.on_bad_file == "skip" and "Note: 1 of the images" in out.read_text()
    train_two_steps(run_cli, out, *TINY)


def test_a_config_that_is_there_stays(run_cli: Run, drawn: Path, tmp_path: Path) -> None:
    out = tmp_path / "train.yaml"
    out.write_text("mine")
    ran = run_cli("config", "init", drawn, "--out", out)
    assert ran.code == 2 and "is there already" in ran.err and out.read_text() == "mine"
    assert run_cli("config", "init", drawn, "--out", out, "--overwrite").code == 0
    assert out.read_text() != "mine"


def test_data_that_cannot_be_told_leave_no_config(run_cli: Run, data_root: Path, tmp_path: Path) -> None:
    for place, code, part in (
        (data_root / "photos", 1, "no masks that can be told"),
        (tmp_path / "nothing", 2, "There is no"),
    ):
        ran = run_cli("config", "init", place, "--out", tmp_path / "train.yaml")
        assert ran.code == code and part in ran.err and "Traceback" not in ran.err
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("hardware", "model", "precision", "batch"),
    [
        (Hardware("cuda", 24 * 2**30, bf16=True, official=True), "vit_t", "bf16", 4),
        (Hardware("cuda", 8 * 2**30, bf16=False, official=True), "vit_t", "32", 2),
        (Hardware("cuda", 24 * 2**30, bf16=True, official=False), "vit_nano", "bf16", 4),
        (Hardware("cpu", 4 * 2**30, bf16=False, official=True), "vit_nano", "32", 2),
        (Hardware("cpu", None, bf16=True, official=False), "vit_nano", "bf16", 4),
    ],
)
def test_the_model_is_what_the_machine_can_train(
    drawn: Path,
    tmp_path: Path,
    hardware: Hardware,
    model: str,
    precision: str,
    batch: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Hardware, "describe", lambda self: "a machine")
    config = write_starter(drawn, tmp_path / "train.yaml", hardware=hardware).config
    assert (config.model.name, config.train.precision, config.optim.batch_size) == (model, precision, batch)
    assert config.model.checkpoint == ("official" if model == "vit_t" else "nano")


def test_small_objects_are_magnified(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    mask = np.zeros((600, 800), np.uint8)
    for number in range(20):
        mask[20 + 25 * number : 32 + 25 * number, 30 * number : 30 * number + 12] = number + 1
    for number in range(2):
        Image.fromarray(pixels).save(tmp_path / f"images/{number}.png")
        Image.fromarray(mask).save(tmp_path / f"masks/{number}.png")
    config = write_starter(tmp_path, tmp_path / "train.yaml").config
    crop = config.data.augment.crop
    assert crop is not None and 12 * config.model.image_size / crop >= 24  # type: ignore[operator]
    assert config.data.val is None and config.data.max_objects == 16


def test_a_first_training_on_a_cpu_ends_within_an_epoch_if_need_be(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mobilesam_core.training.starter._MOST_CPU_STEPS", 1)
    monkeypatch.setattr("mobilesam_core.training.starter._CPU_STEPS", 1)
    hardware = Hardware("cpu", None, bf16=False, official=False)
    config = write_starter(drawn, tmp_path / "train.yaml", hardware=hardware).config
    assert (config.train.epochs, config.train.max_steps) == (1, 1)


def test_of_a_large_set_some_images_are_looked_at(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mobilesam_core.training.starter._LOOKED_AT", 3)
    made = write_starter(drawn, tmp_path / "train.yaml")
    assert (made.train.size, made.train.looked_at) == (6, 3) and made.config.data.on_bad_file == "skip"
    assert "6 images with about " in (tmp_path / "train.yaml").read_text()


def test_an_old_config_of_either_layout_becomes_one_that_loads(
    run_cli: Run, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flat = {
        "train_img_dir": str(drawn / "train/images"),
        "train_mask_dir": str(drawn / "train/masks"),
        "num_epochs": 3,
        "mask_threshold": 0.5,
        "colour": "blue",
    }
    Path("flat.json").write_text(json.dumps(flat))
    ran = run_cli("config", "convert", "flat.json")
    assert ran.code == 0, ran.err
    assert "mask_threshold: dropped; " in ran.out and "colour: unknown, left out" in ran.out
    assert "3 keys mapped, 1 dropped, 1 unknown: flat.yaml" in ran.out
    config = load_train_config("flat.yaml")
    assert config.data.train.mask_mode == "instances"  # type: ignore[union-attr]
    ran = run_cli("config", "convert", "flat.json")
    assert ran.code == 2 and "flat.yaml is there already" in ran.err
    train_two_steps(run_cli, Path("flat.yaml").absolute(), *TINY[:3], "model.name=vit_nano", "model.checkpoint=nano")

    Path("nested.json").write_text(
        json.dumps({"dataset": {"train_dataset": "d"}, "train": {"epochs": 4, "resume": True}})
    )
    ran = run_cli("config", "convert", "nested.json", "--out", "new/n.yaml", "--json")
    assert ran.json == {
        "config": "new/n.yaml",
        "mapped": {"dataset.train_dataset": "data.train", "train.epochs": "train.epochs"},
        "dropped": {"train.resume": "mobilesam train --resume goes on with a run"},
        "unknown": [],
    }
    assert load_train_config("new/n.yaml").train.epochs == 4


def test_what_is_no_old_config(run_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    for name, part in (("a.json", "none of the keys"), ("b.json", "No such file")):
        ran = run_cli("config", "convert", tmp_path / name, "--out", tmp_path / "x.yaml")
        assert ran.code == 2 and part in ran.err and not (tmp_path / "x.yaml").exists()
    ran = run_cli("config", "convert", ".")
    assert ran.code == 2 and "Cannot read '.': Is a directory" in ran.err


def test_the_schema_goes_to_stdout_or_a_file(run_cli: Run, tmp_path: Path) -> None:
    ran = run_cli("config", "schema")
    assert ran.json["properties"]["optim"]["$ref"] == "#/$defs/OptimConfig"
    assert run_cli("config", "schema", "--out", tmp_path / "s.json").out == ""
    assert json.loads((tmp_path / "s.json").read_text()) == ran.json
    assert run_cli("config", "schema", "--format", "markdown").out.startswith("# The training config: every key")
