"""``mobilesam distill``: the store of a teacher's features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mobilesam_core.checkpoints.loading import open_checkpoint
from mobilesam_core.models.features import FeatureHookManager
from mobilesam_core.ops.frame import Frame, resize_image
from mobilesam_core.ops.resize import to_tensor
from mobilesam_core.stores.features import FeatureStore

Run = Callable[..., Any]
NANO = ("--checkpoint", "nano", "--device", "cpu")


@pytest.fixture
def store(run_cli: Run, images: Path, tmp_path: Path) -> Path:
    ran = run_cli(
        "distill", "extract", images, *NANO, "--levels", "stages.2,neck", "--out", tmp_path / "store", "--json"
    )
    assert ran.code == 0, ran.err
    assert (ran.json["images"], ran.json["skipped"], ran.json["failures"]) == (3, 0, [])
    assert "3 images x 0.44 MiB = 1.3 MiB" in ran.err  # told before the start
    return tmp_path / "store"


@torch.no_grad()
def test_what_is_stored_is_what_the_encoder_makes(run_cli: Run, images: Path, store: Path) -> None:
    model = open_checkpoint("nano").model
    held = FeatureStore(store)
    by_key = {entry.key: sha256 for sha256, entry in held.entries.items()}
    pixels = np.asarray(Image.open(images / "1.png").convert("RGB"))
    scaled = to_tensor(resize_image(pixels, Frame.of(*pixels.shape[:2], model.image_size)))
    with FeatureHookManager(model.image_encoder, ["stages.2", "neck"]) as features:
        model.encode(model.preprocess(scaled[None]))
        for level in ("stages.2", "neck"):
            expected = features[level][0].numpy()
            found = held.read(by_key["1"], level).astype(np.float32)
            assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()
    described = run_cli("distill", "info", store, "--json").json
    assert described["images"] == 3 and described["producer"]["model"] == "vit_nano"
    assert described["levels"]["neck"] == {"images": 3, "shape": [128, 32, 32], "layout": "CHW", "bytes": 3 * 2**18}
    assert "stages.2" in run_cli("distill", "info", store).out


def test_levels_are_added_to_what_embed_stored(run_cli: Run, images: Path, tmp_path: Path) -> None:
    store = tmp_path / "both"
    assert run_cli("embed", images, *NANO, "--out", store).code == 0
    before = {entry.key: entry.levels["neck"] for entry in FeatureStore(store).entries.values()}
    extract = ("distill", "extract", images, *NANO, "--levels", "stages.0,neck", "--out", store, "--json")
    ran = run_cli(*extract)
    assert ran.code == 0 and (ran.json["images"], ran.json["skipped"]) == (3, 0), ran.err
    entries = FeatureStore(store).entries.values()
    assert {entry.key: entry.levels["neck"] for entry in entries} == before
    assert all(set(entry.levels) == {"neck", "stages.0"} for entry in entries)
    assert run_cli(*extract).json["skipped"] == 3
    amg = ("amg", images, *NANO, "--points-per-side", "2", "--embeddings", store, "--out", tmp_path / "masks")
    assert run_cli(*amg).code == 0


def test_verify_finds_nothing_wrong(run_cli: Run, images: Path, store: Path) -> None:
    ran = run_cli("distill", "verify", store, images, *NANO)
    assert ran.code == 0 and "6 features are whole; 3 images are as the teacher makes them" in ran.out, ran.err
    assert run_cli("distill", "verify", store, "--json").json["passed"]


def test_verify_names_every_image_that_is_missing_or_has_changed(run_cli: Run, images: Path, store: Path) -> None:
    Image.new("RGB", (96, 96), "red").save(images / "1.png")
    Image.new("RGB", (50, 40), "blue").save(images / "new.png")
    ran = run_cli("distill", "verify", store, images, "--json")
    assert ran.code == 1 and "1.png" in ran.err and "new.png" in ran.err and "2.png" not in ran.err
    assert len(ran.json["missing"]) == 2 and not ran.json["passed"]


def test_a_broken_file_is_named_and_only_its_features_are_made_again(run_cli: Run, images: Path, store: Path) -> None:
    extract = ("distill", "extract", images, *NANO, "--levels", "stages.2,neck", "--out", store, "--json")
    Image.new("RGB", (50, 40), "blue").save(images / "new.png")
    assert run_cli(*extract).json["images"] == 1
    first = store / "features-00000.safetensors"
    data = bytearray(first.read_bytes())
    data[-100] ^= 0xFF
    first.write_bytes(data)
    ran = run_cli("distill", "verify", store)
    assert ran.code == 1 and "features-00000.safetensors is broken" in ran.err and "00001" not in ran.err
    first.unlink()
    ran = run_cli(*extract)
    assert ran.code == 0 and (ran.json["images"], ran.json["skipped"]) == (3, 1)
    assert run_cli("distill", "verify", store, images, *NANO).code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--levels", "blocks.8"), "It has stages.0, stages.1, stages.2, stages.3, neck"),
        (("--levels", "neck,,stages.1"), "no list of levels"),
        (("--image-size", "128"), "image_size 512"),
        (("--precision", "bf16"), "precision 32"),
        (("--shard", "5/3"), "no share of the work"),
    ],
)
def test_bad_input(run_cli: Run, images: Path, store: Path, arguments: tuple[str, ...], said: str) -> None:
    ran = run_cli("distill", "extract", images, *NANO, "--out", store, *arguments)
    assert ran.code == 2 and said in ran.err


def test_other_teachers_full_memory_and_full_disks(
    run_cli: Run, images: Path, store: Path, nano_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ("--checkpoint", nano_checkpoint, "--device", "cpu")
    ran = run_cli("distill", "extract", images, *other, "--out", store)
    assert ran.code == 2 and "other weights" in ran.err
    ran = run_cli("distill", "verify", store, images, *other)
    assert ran.code == 2 and "other weights" in ran.err
    ran = run_cli("distill", "verify", store, *NANO)
    assert ran.code == 2 and "Name IMAGES" in ran.err
    ran = run_cli("distill", "info", tmp_path / "nowhere")
    assert ran.code == 2 and "no stored features" in ran.err
    with monkeypatch.context() as scarce:
        scarce.setattr("mobilesam_core.distillation.teacher._available_memory", lambda: 1000)
        ran = run_cli("distill", "extract", images, *NANO, "--out", tmp_path / "new")
    assert ran.code == 2 and "of memory are free" in ran.err
    with monkeypatch.context() as full:
        full.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
        ran = run_cli("distill", "extract", images, *NANO, "--out", tmp_path / "new")
    assert ran.code == 1 and "The features need" in ran.err and not list((tmp_path / "new").glob("features*"))


def test_shares_make_the_same_store(run_cli: Run, images: Path, store: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        extract = ("distill", "extract", images, *NANO, "--levels", "stages.2,neck", "--out", tmp_path / "shares")
        assert run_cli(*extract, "--shard", f"{number}/2").code == 0
    whole, shares = (
        {
            (sha256, name): (level.shape, level.layout, level.crc32)
            for sha256, entry in FeatureStore(folder).entries.items()
            for name, level in entry.levels.items()
        }
        for folder in (store, tmp_path / "shares")
    )
    assert whole == shares and len(whole) == 6


CONFIG = """
model: {{name: vit_nano, checkpoint: null, image_size: 64}}
data:
  root: {root}
  train: {{format: images, images: images}}
  val: {{format: folder, images: images, masks: masks, mask_mode: instances}}
  workers: 0
distill:
  teachers: [{{checkpoint: nano, image_size: 64, features: [{{loss: cosine}}], store: {root}/features}}]
  copy_decoder: true
  ground_truth: 0
train: {{epochs: 1, output_dir: {root}/runs, device: cpu, validation: {{overlays: 0}}}}
"""


@pytest.fixture
def config(images: Path) -> Path:
    path = images.parent / "distill.yaml"
    path.write_text(CONFIG.format(root=images.parent))
    return path


def test_a_config_says_what_to_extract_and_train_reads_it(run_cli: Run, config: Path) -> None:
    ran = run_cli("train", config)
    assert ran.code == 2 and "holds no stored features" in ran.err and "distill extract" in ran.err
    ran = run_cli("distill", "extract", config, "--device", "cpu", "--json")
    assert ran.code == 0 and [(each["teacher"], each["images"]) for each in ran.json] == [("teacher", 3)], ran.err
    shared = ("--set", f"distill.teachers.store={config.parent}/x")
    assert run_cli("distill", "extract", config, *shared).code == 2  # a list has no such key
    ran = run_cli("train", config)
    assert ran.code == 0 and "agreement with the teacher" in ran.err, ran.err
    assert "agreement" in ran.out
    ran = run_cli("eval", "nano", "--config", config, "--split", "train")
    assert ran.code == 2 and "no labels" in ran.err


def test_what_does_not_go_with_a_config(run_cli: Run, images: Path, config: Path) -> None:
    ran = run_cli("distill", "extract", config, "--levels", "neck")
    assert ran.code == 2 and "--levels does not go with a config" in ran.err
    ran = run_cli("distill", "extract", images, *NANO, "--set", "train.epochs=2")
    assert ran.code == 2 and "--set changes a config" in ran.err
    ran = run_cli("distill", "extract", config, "--set", "distill=null", "--set", "data.train.format=folder")
    assert ran.code == 2 and "data.train.masks: required" in ran.err
    plain = config.with_name("plain.yaml")
    plain.write_text("model: {name: vit_nano}\ndata: {train: {format: shapes}}\n")
    ran = run_cli("distill", "extract", plain)
    assert ran.code == 2 and "no teacher whose features are to be stored" in ran.err
