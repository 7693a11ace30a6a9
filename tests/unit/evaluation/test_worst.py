from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mobilesam_core.data.sample import SampleSource
from mobilesam_core.evaluation.scoring import EvalOptions, evaluate
from mobilesam_core.evaluation.worst import WorstCases
from mobilesam_core.models.sam import Sam


def test_the_worst_are_kept_and_drawn_in_order(shapes: SampleSource, nano: Sam, tmp_path: Path) -> None:
    worst = WorstCases(3)
    result = evaluate(nano, shapes, EvalOptions(prompts=("box", "point")), observe=worst)
    for kind in ("box", "point"):
        ious = sorted(score.iou for score in result.scores if score.kind == kind)
        assert [score.iou for score in worst.scores(kind)] == ious[:3]
    names = worst.write(tmp_path)
    assert names["box"] == ["box_01.png", "box_02.png", "box_03.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names["box"] + names["point"]


def test_fewer_objects_than_wanted_and_none_wanted(shapes: SampleSource, nano: Sam) -> None:
    many, none = WorstCases(1000), WorstCases(0)
    result = evaluate(nano, shapes, EvalOptions(prompts=("box",)), observe=many)
    evaluate(nano, shapes, EvalOptions(prompts=("box",)), observe=none)
    assert len(many.scores("box")) == len(result.scores)
    assert none.scores("box") == []


def test_a_picture_is_a_closeup(shapes: SampleSource, truthful: Callable[..., Any], tmp_path: Path) -> None:
    worst = WorstCases(1)
    samples = [shapes[i] for i in range(len(shapes))]
    evaluate(truthful(samples), shapes, EvalOptions(prompts=("clicks",), clicks=2), observe=worst)
    worst.write(tmp_path)
    with Image.open(tmp_path / "clicks_01.png") as picture:
        assert max(picture.size) == 512
        # The click's green dot is there.
        assert (np.asarray(picture) == (60, 220, 90)).all(axis=2).sum() > 12
