"""That training learns, not only runs."""

from __future__ import annotations

import pytest

from mobilesam_core.training.workflow import train

from .conftest import MakeConfig

FOUR = "format: shapes, domains: [large], count: 4, size: 64, max_shapes: 2, seed: 3"


@pytest.mark.slow
def test_four_images_can_be_learnt_by_heart(make_config: MakeConfig) -> None:
    result = train(
        make_config(
            # Each of them many times an epoch: at the end of one, files are written.
            f"data.train={{format: mix, count: 1200, sets: [{{set: {{{FOUR}}}}}]}}",
            f"data.val={{{FOUR}}}",
            "data.augment={}",
            "prompts={box: 1.0, point: 0.0, box_noise: 0.0}",
            "optim.batch_size=4",
            "optim.warmup_steps=30",
            "train.epochs=1",
        )
    )
    assert result.metrics["box_miou"] >= 0.9
