"""Training from stored embeddings is training from images, and never from others'."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mobilesam_core.checkpoints.loading import open_checkpoint
from mobilesam_core.checkpoints.weights import save_weights
from mobilesam_core.config.train import TrainConfig
from mobilesam_core.embedding.workflow import EmbeddingExtractor, store_features
from mobilesam_core.errors import ConfigError, Interrupted, OutputError, UsageError
from mobilesam_core.jobs.inputs import ImageFile
from mobilesam_core.runtime.torch_runtime import TorchRuntime
from mobilesam_core.training.workflow import train

from .conftest import MakeConfig
from .test_distilling import shapes_as_files
from .test_training import interrupt_after, lines

FROZEN = ("model.checkpoint=nano", "train.freeze.image_encoder=true", "train.log_every=1")
MakeFrozen = Callable[..., TrainConfig]


@pytest.fixture
def make_frozen(make_config: MakeConfig, tmp_path: Path) -> MakeFrozen:
    """A config of files, whose decoder alone learns."""
    data = shapes_as_files(tmp_path / "data")
    sets = '{"format": "folder", "images": "images", "masks": "masks", "mask_mode": "instances"}'

    def make(*overrides: str) -> TrainConfig:
        given = (f"data.root={data}", f"data.train={sets}", f"data.val={sets}", "data.augment={}", *FROZEN)
        return make_config(*given, *overrides)

    return make


def totals(folder: Path) -> list[float]:
    return [record["total"] for record in lines(folder / "metrics.jsonl", "train")]


def test_every_epoch_reads_what_was_encoded_once(make_frozen: MakeFrozen, encoded: list[int]) -> None:
    cached = train(make_frozen("train.epochs=3", "train.run=cached"))
    assert sum(encoded) == 6  # training and validation images are the same six files
    encoded.clear()
    plain = train(make_frozen("train.epochs=3", "train.run=plain", "train.cache.use=never"))
    assert sum(encoded) == (3 + 4) * 6
    assert totals(cached.folder) == pytest.approx(totals(plain.folder), rel=2e-3)
    assert cached.metrics["miou"] == pytest.approx(plain.metrics["miou"], abs=5e-3)
    assert not (cached.folder / "embeddings").exists()


def test_drawn_views_come_again_with_other_prompts(make_frozen: MakeFrozen, encoded: list[int], tmp_path: Path) -> None:
    moves = "data.augment={horizontal_flip: 0.5, transpose: 0.5, scale: [0.8, 1.4], brightness: 0.3}"
    overrides = (moves, "train.cache.views=2", "train.epochs=4", "data.val={format: shapes, count: 2, size: 64}")
    cached = train(make_frozen(*overrides, "train.run=cached", f"train.cache.folder={tmp_path / 'kept'}"))
    validations = 2 * 5  # of drawn images, which are no files: encoded each time
    assert sum(encoded) == 2 * 6 + validations
    plain = train(make_frozen(*overrides, "train.run=plain", "train.cache.use=never"))
    # The store rounds to float16, and what that changes grows from step to step; other views would differ by tenths.
    assert totals(cached.folder) == pytest.approx(totals(plain.folder), rel=3e-2)
    encoded.clear()
    train(make_frozen(*overrides, "train.run=again", f"train.cache.folder={tmp_path / 'kept'}"))
    assert sum(encoded) == validations


def test_what_embed_stored_is_used(make_frozen: MakeFrozen, encoded: list[int], tmp_path: Path) -> None:
    images = [ImageFile(path, path.name) for path in sorted((tmp_path / "data/images").iterdir())]
    model = open_checkpoint("nano", image_size=64).model
    store_features(images, EmbeddingExtractor(TorchRuntime(model)), tmp_path / "kept")
    encoded.clear()
    train(make_frozen(f"train.cache.folder={tmp_path / 'kept'}", "train.epochs=1"))
    assert not encoded and (tmp_path / "kept").exists()
    with pytest.raises(UsageError, match="precision 32") as refused:
        train(make_frozen(f"train.cache.folder={tmp_path / 'kept'}", "train.precision=bf16", "train.run=other"))
    assert "train.cache.folder" in refused.value.remedy


def test_an_interrupted_run_reads_on(make_frozen: MakeFrozen, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = ("prompts.rounds=2", "prompts.rounds_without_click=1", "train.ema=0.9")
    whole = train(make_frozen("train.run=whole", *rounds))
    config = make_frozen("train.run=cut", *rounds)
    with monkeypatch.context() as patched:
        interrupt_after(patched, 2)
        with pytest.raises(Interrupted):
            train(config)
    resumed = train(config, resume=True)
    a, b = (open_checkpoint(result.last).model.state_dict() for result in (whole, resumed))
    assert all(torch.equal(a[key], b[key]) for key in a)
    start = open_checkpoint("nano").model.state_dict()
    assert all(torch.equal(a[key], start[key]) for key in a if key.startswith("image_encoder."))


def test_a_resumed_run_reads_what_its_own_encoder_made(
    make_frozen: MakeFrozen, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    start = tmp_path / "start.safetensors"
    save_weights(open_checkpoint("nano").model, start, {})
    whole = train(make_frozen(f"model.checkpoint={start}", "train.run=whole"))
    config = make_frozen(f"model.checkpoint={start}", "train.run=cut")
    with monkeypatch.context() as patched:
        interrupt_after(patched, 2)
        with pytest.raises(Interrupted):
            train(config)
    other = open_checkpoint("nano").model
    other.image_encoder.neck[0].weight.data.mul_(2)
    save_weights(other, start, {})
    shutil.rmtree(tmp_path / "mobilesam" / "cut" / "embeddings")
    resumed = train(config, resume=True)
    a, b = (open_checkpoint(result.last).model.state_dict() for result in (whole, resumed))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_leftovers_of_other_weights_make_way(make_frozen: MakeFrozen, tmp_path: Path, encoded: list[int]) -> None:
    folder = tmp_path / "mobilesam" / "run" / "embeddings"
    other = open_checkpoint("nano", image_size=128).model
    images = [ImageFile(path, path.name) for path in sorted((tmp_path / "data/images").iterdir())]
    store_features(images, EmbeddingExtractor(TorchRuntime(other)), folder)
    encoded.clear()
    train(make_frozen())
    assert sum(encoded) == 6


def test_what_is_published_names_no_folder(make_frozen: MakeFrozen, tmp_path: Path) -> None:
    result = train(make_frozen(f"train.cache.folder={tmp_path / 'kept'}", "train.validation.max_images=1"))
    assert str(tmp_path) not in str(open_checkpoint(result.last).metadata)


def test_a_run_that_reads_nothing_twice_keeps_nothing(make_frozen: MakeFrozen, encoded: list[int]) -> None:
    train(make_frozen("train.epochs=1"))
    assert sum(encoded) == 3 * 6


def test_a_full_disk(make_frozen: MakeFrozen, encoded: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path, size: int) -> None:
        raise OutputError(f"The features need {size} bytes.")

    monkeypatch.setattr("mobilesam_core.training.cache.require_space", full)
    assert train(make_frozen("train.run=auto")).steps == 6
    assert sum(encoded) == (2 + 3) * 6
    with pytest.raises(OutputError, match=r"need \d+ bytes") as refused:
        train(make_frozen("train.cache.use=always", "train.run=always"))
    assert "train.cache.folder" in refused.value.remedy


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (("train.freeze.image_encoder=false", "train.cache.use=always"), "the image encoder learns"),
        (("data.augment.brightness=0.2", "train.cache.use=always"), "train.cache.views would keep"),
        (("train.cache.views=2",), "needs augmentation"),
        (
            ("train.cache.views=2", "train.freeze.image_encoder=false", "data.augment.hue=0.1"),
            "not possible: the image",
        ),
        (("distill.masks={}", "distill.teachers=[{checkpoint: nano}]", "train.cache.use=always"), "teachers look"),
        (("distill.masks={}", "distill.teachers=[{checkpoint: nano}]", "prompts.rounds=2"), "distill.masks.rounds"),
        (("prompts.rounds_without_click=1", "prompts.mask_prompt=0"), "would ask the same again"),
    ],
)
def test_configs_that_contradict_themselves(make_frozen: MakeFrozen, overrides: tuple[Any, ...], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        make_frozen(*overrides)
