from __future__ import annotations

import torch

from mobilesam_core.config.model import ModelConfig
from mobilesam_core.models.registry import build_sam
from mobilesam_core.models.sam import Sam
from mobilesam_core.stores.producer import Producer


def _model(seed: int = 0, **config: object) -> Sam:
    torch.manual_seed(seed)
    return build_sam(ModelConfig(**{"name": "vit_nano", "checkpoint": None, "image_size": 64, **config}))


def test_a_new_decoder_keeps_its_encoders_features() -> None:
    model, tuned = _model(), _model()
    assert Producer.of(model).difference(Producer.of(tuned)) is None
    with torch.no_grad():
        tuned.mask_decoder.iou_token.weight += 1
    assert Producer.of(model) == Producer.of(tuned)


def test_whatever_moves_features_shows() -> None:
    model = Producer.of(_model())
    assert "other weights" in str(model.difference(Producer.of(_model(seed=1))))
    assert "image_size 128" in str(model.difference(Producer.of(_model(image_size=128))))
    moved = _model()
    statistics = next(name for name in moved.image_encoder.state_dict() if name.endswith("running_mean"))
    moved.image_encoder.state_dict()[statistics].add_(1)
    assert "other weights" in str(model.difference(Producer.of(moved)))
    scaled = _model()
    scaled.pixel_std *= 2
    assert "preprocessing" in str(model.difference(Producer.of(scaled)))


def test_precision_is_told_apart_but_no_hindrance() -> None:
    exact, quick = Producer.of(_model()), Producer.of(_model(), "bf16")
    assert exact != quick and exact.difference(quick) is None
