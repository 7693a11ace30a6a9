"""Training and validation in tiles of large images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilesam_core.config.train import TrainConfig
from mobilesam_core.data.preview import first_views
from mobilesam_core.errors import ConfigError, DataError, Interrupted
from mobilesam_core.training.workflow import train

from .conftest import MakeConfig
from .test_cache import FROZEN, totals
from .test_training import Listener, interrupt_after


@pytest.fixture
def tiled(make_config: MakeConfig, tmp_path: Path) -> MakeConfig:
    """A config of two images of ``(64, 160)``, each of three tiles, of which two hold small squares."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for number in range(2):
        mask = np.zeros((64, 160), np.uint8)
        for label, (x, y) in enumerate(((5, 8), (30, 30), (125, 20), (140, 44)), 1):
            mask[y : y + 12, x + number : x + number + 10] = label
        pixels = np.where(mask[..., None] > 0, 200, rng.integers(0, 80, (64, 160, 3))).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data/images" / f"{number}.png")
        Image.fromarray(mask).save(tmp_path / "data/masks" / f"{number}.png")
    sets = '{"format": "folder", "images": "images", "masks": "masks", "mask_mode": "instances"}'

    def make(*overrides: str) -> TrainConfig:
        given = (f"data.root={tmp_path / 'data'}", f"data.train={sets}", f"data.val={sets}", "data.augment={}")
        return make_config(*given, "data.tile=64", "data.overlap=16", "train.log_every=1", *overrides)

    return make


def test_an_epoch_is_the_tiles_with_objects_and_so_is_validation(tiled: MakeConfig, encoded: list[int]) -> None:
    listener = Listener()
    everything = "train.validation.everything=2"
    result = train(tiled("train.epochs=1", "model.checkpoint=nano", everything), reporter=listener)
    assert result.steps == 2  # four tiles, two at a time
    assert any("4 tiles of 2 images" in said for said in listener.said)
    assert any("Everything in a tile of each of 2 validation images (4 objects)" in said for said in listener.said)
    assert encoded == [1] * 4 + [2, 2] + [1] * 4 + [1] * 2  # before, an epoch, validation, and everything in two tiles
    assert result.metrics["objects"] == 8
    with Image.open(next(result.folder.glob("overlays/*/*.png"))) as overlay:
        assert overlay.size == (3 * 160 + 8, 64)


def test_each_tile_is_encoded_once_by_a_frozen_encoder(tiled: MakeConfig, encoded: list[int]) -> None:
    cached = train(tiled(*FROZEN, "train.epochs=3", "train.run=cached", "train.validation.every=9"))
    assert sum(encoded) == 4 + 2 * 4  # and those of two validations
    plain = train(tiled(*FROZEN, "train.epochs=3", "train.run=plain", "train.cache.use=never"))
    assert totals(cached.folder) == pytest.approx(totals(plain.folder), rel=2e-3)


def test_an_interrupted_run_goes_on(tiled: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(tiled("train.run=whole"))
    config = tiled("train.run=cut")
    with monkeypatch.context() as patched:
        interrupt_after(patched, 3)
        with pytest.raises(Interrupted):
            train(config)
    assert train(config, resume=True).metrics == whole.metrics


def test_a_bad_image_stops_or_costs_its_tiles(tiled: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "data/images/0.png").write_bytes(b"")
    for preview in (False, True):
        config = tiled(f"train.run=stop{preview}")
        with pytest.raises(DataError, match=r"0\.png is empty"):
            list(first_views(config, 2)) if preview else train(config)
    skipping = tiled("data.on_bad_file=skip", "train.epochs=1", "data.val=null")
    assert train(skipping).steps == 1
    views = list(first_views(skipping, 3))
    assert {view.view.window for view in views} == {(0, 0, 64, 64), (96, 0, 160, 64)}


def test_stored_features_need_to_be_cut_too(tiled: MakeConfig) -> None:
    teacher = "distill.teachers=[{checkpoint: nano, store: s, features: [{}]}]"
    with pytest.raises(ConfigError, match=r"data\.tile cuts"):
        tiled("distill.ground_truth=0", teacher)
