from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mobilesam_core.config.data import FolderConfig
from mobilesam_core.data.build import build_source
from mobilesam_core.data.sample import BadFile
from mobilesam_core.evaluation.summary import Evaluation
from mobilesam_core.evaluation.types import EvalOptions, ObjectScore
from mobilesam_core.ops.metrics import fill_box_iou

SCORE = ObjectScore(
    image="a.png",
    object=0,
    label=7,
    area=100,
    size="small",
    kind="box",
    predicted_iou=0.5,
    iou=0.5,
    iou_oracle=0.6,
    dice=2 / 3,
    boundary_iou=0.3,
    fill_box_iou=0.25,
    fill_box_boundary_iou=0.1,
)


def evaluation(*scores: ObjectScore, clicks: int = 3) -> Evaluation:
    kinds = tuple(dict.fromkeys(score.kind for score in scores))
    return Evaluation(EvalOptions(prompts=kinds, clicks=clicks), 2, scores, (BadFile(4, "b.png", "b.png is empty."),))


def test_means_are_over_objects_and_by_size() -> None:
    large = replace(SCORE, size="large", iou=1.0, dice=1.0, fill_box_iou=1.0, boundary_iou=0.9)
    summary = evaluation(SCORE, SCORE, large).summary("box")
    assert summary.objects == 3
    assert summary.miou == pytest.approx(2 / 3)
    assert summary.boundary_iou == pytest.approx(0.5)
    assert summary.fill_box_iou == pytest.approx(0.5)
    assert summary.fill_box_dice == pytest.approx((0.4 + 0.4 + 1) / 3)
    assert list(summary.by_size) == ["small", "large"]
    assert summary.by_size["small"].objects == 2 and summary.by_size["large"].miou == 1.0
    assert summary.clicks is None


def test_clicks_are_counted_up_to_the_first_that_suffices() -> None:
    curves = [(0.5, 0.86, 0.91), (0.9, 0.7, 0.7), (0.1, 0.2, 0.3), (0.84, 0.85, 0.8999)]
    scores = [replace(SCORE, kind="clicks", click_ious=curve) for curve in curves]
    clicks = evaluation(*scores).summary("clicks").clicks
    assert clicks.noc == {85: (2 + 1 + 3 + 2) / 4, 90: (3 + 1 + 3 + 3) / 4}
    assert clicks.reached == {85: 0.75, 90: 0.5}
    assert clicks.iou_after == pytest.approx((2.34 / 4, 2.61 / 4, 2.8099 / 4))


def test_json_is_plain_and_the_same_each_time() -> None:
    result = evaluation(SCORE, replace(SCORE, kind="clicks", click_ious=(0.1, 0.2, 0.3)))
    document = result.to_json()
    assert json.loads(json.dumps(document)) == document == result.to_json()
    assert document["options"]["prompts"] == ["box", "clicks"]
    assert document["prompts"]["box"]["dice"] == 0.666667
    assert document["prompts"]["clicks"]["clicks"]["noc"] == {"85": 3.0, "90": 3.0}
    assert document["failures"] == [{"index": 4, "source": "b.png", "problem": "b.png is empty."}]


def test_csv_has_a_row_for_each_object_and_kind(tmp_path: Path) -> None:
    scores = (SCORE, replace(SCORE, kind="clicks", image='odd, "name"', click_ious=(0.1, 0.2, 0.3)))
    evaluation(*scores).write_csv(tmp_path / "objects.csv")
    with (tmp_path / "objects.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == ["box", "clicks"]
    assert rows[0]["dice"] == "0.666667" and rows[0]["iou_click_1"] == ""
    assert rows[1]["image"] == 'odd, "name"' and rows[1]["iou_click_3"] == "0.3"
    assert list(tmp_path.iterdir()) == [tmp_path / "objects.csv"]


def test_filling_the_box_of_real_nuclei(data_root: Path) -> None:
    config = FolderConfig(format="folder", images=Path("images"), masks=Path("masks"), mask_mode="instances")
    source = build_source(config, data_root / "nuclei" / "val")
    samples = [source[i] for i in range(len(source))]
    ious = np.concatenate([fill_box_iou(sample.masks.areas, sample.masks.boxes) for sample in samples])
    assert len(ious) == 924
    assert ious.mean() == pytest.approx(0.755, abs=5e-4)
