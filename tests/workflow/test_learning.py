"""That training learns, not only runs."""

from __future__ import annotations

import pytest

from mobilesam_core.training.workflow import train

from .conftest import MakeConfig

FOUR = "{format: shapes, domains: [large], count: 4, size: 128, max_shapes: 2, seed: 3}"


@pytest.mark.slow
def test_four_images_can_be_learnt_by_heart(make_config: MakeConfig) -> None:
    result = train(
        make_config(
            f"data.train={FOUR}",
            f"data.val={FOUR}",
            "data.augment={}",
            "model.image_size=128",
            "prompts={box: 1.0, point: 0.0, box_noise: 0.0}",
            "optim.batch_size=4",
            "optim.lr=1e-3",
            "optim.warmup_steps=50",
            "train.epochs=600",
            "train.validation={every: 600}",
            "train.threads=2",
        )
    )
    assert result.metrics["box_miou"] >= 0.9
