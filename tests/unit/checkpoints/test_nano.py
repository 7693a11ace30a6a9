"""The weights that come with the package."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from mobilesam_core.checkpoints import loading
from mobilesam_core.checkpoints.loading import load_model, open_checkpoint
from mobilesam_core.checkpoints.weights import read_weights
from mobilesam_core.config.data import ShapesConfig
from mobilesam_core.config.model import ModelConfig
from mobilesam_core.data.shapes import ShapesSource
from mobilesam_core.errors import UsageError
from mobilesam_core.evaluation.scoring import EvalOptions, evaluate

EMBEDDED = Path(loading.__file__).parent / "embedded"


def test_the_file_is_small_and_says_what_made_it() -> None:
    file = EMBEDDED / "nano.safetensors"
    assert file.stat().st_size <= 4_000_000
    weights = read_weights(file)
    assert {value.dtype for value in weights.state.values() if value.is_floating_point()} == {torch.float16}
    assert {"model", "training_config", "step", "val_box_miou"} <= weights.metadata.keys()
    assert '"format":"shapes"' in weights.metadata["training_config"]


def test_the_card_is_about_this_file() -> None:
    card = (EMBEDDED / "nano.md").read_text()
    assert read_weights(EMBEDDED / "nano.safetensors").sha256 in card
    for needed in ("mobilesam train examples/configs/pretrain_shapes.yaml", "seed", "hours", "Limits"):
        assert re.search(needed, card), needed


def test_it_goes_by_name_and_is_what_vit_nano_starts_from(reporter: Any) -> None:
    opened = open_checkpoint("nano")
    assert opened.model.config.name == "vit_nano" and opened.model.image_size == 512
    default = load_model(ModelConfig(name="vit_nano"), reporter)
    assert not reporter.messages
    for name, value in opened.model.state_dict().items():
        assert torch.equal(value, default.state_dict()[name]), name


def test_another_image_size() -> None:
    assert open_checkpoint("nano", image_size=256).model.image_size == 256
    for impossible in (500, 0, -64):
        with pytest.raises(UsageError, match=f"image size of {impossible} cannot be"):
            open_checkpoint("nano", image_size=impossible)


def test_its_masks_mean_something() -> None:
    """Above filling the box, on a few images of a seed of their own, the held-out domain too."""
    model = open_checkpoint("nano").model
    for domains in (("polygons", "heap", "thin", "holes"), ("symbols",)):
        source = ShapesSource(ShapesConfig(format="shapes", domains=domains, count=12, seed=77))  # type: ignore[arg-type]
        evaluation = evaluate(model, source, EvalOptions(boundary=False))
        box, point = evaluation.summary("box"), evaluation.summary("point")
        assert box.miou > 0.65 and box.miou > box.fill_box_iou + 0.1
        assert point.miou > 0.55
        assert abs(box.predicted_iou - box.miou) < 0.1
