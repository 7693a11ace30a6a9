from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mobilesam_core.checkpoints.weights import save_weights
from mobilesam_core.config.loading import apply_overrides, validate
from mobilesam_core.config.model import ModelConfig
from mobilesam_core.config.train import TrainConfig
from mobilesam_core.models.registry import build_sam
from mobilesam_core.models.sam import Sam

MakeConfig = Callable[..., TrainConfig]

SMALL: dict[str, Any] = {
    "model": {"name": "vit_nano", "checkpoint": None, "image_size": 64},
    "data": {
        "train": {"format": "shapes", "count": 6, "size": 64, "max_shapes": 4},
        "val": {"format": "shapes", "count": 2, "size": 64, "max_shapes": 4, "seed": 9},
        "max_objects": 3,
        "workers": 0,
        "augment": {"horizontal_flip": 0.5, "brightness": 0.2},
    },
    "loss": {"focal": 0.0, "bce": 1.0},
    "optim": {"lr": 1e-3, "batch_size": 2, "warmup_steps": 2},
    "train": {"epochs": 2, "threads": 1, "validation": {"overlays": 1, "everything": 0}},
}


@pytest.fixture(scope="module")
def start_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the architecture that the runs here train."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("start") / "start.safetensors"
    save_weights(build_sam(ModelConfig(name="vit_nano", checkpoint=None, image_size=64)), path, {})
    return path


@pytest.fixture
def make_config(tmp_path: Path) -> MakeConfig:
    """A config of seconds, writing under ``tmp_path``; overrides as ``--set`` takes them."""

    def make(*overrides: str) -> TrainConfig:
        tree = apply_overrides(SMALL, [f"train.output_dir={tmp_path}", *overrides])
        return validate(TrainConfig, tree, "the test's config")

    return make


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each pass of an encoder had."""
    passes: list[int] = []
    encode = Sam.encode

    def count(self: Sam, images: torch.Tensor) -> torch.Tensor:
        passes.append(len(images))
        return encode(self, images)

    monkeypatch.setattr(Sam, "encode", count)
    return passes
