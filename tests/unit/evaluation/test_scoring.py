from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from mobilesam_core.checkpoints.loading import open_checkpoint
from mobilesam_core.data.sample import Sample, SampleSource
from mobilesam_core.data.subset import spread
from mobilesam_core.errors import DataError, UsageError
from mobilesam_core.evaluation.scoring import EvalOptions, Observation, evaluate
from mobilesam_core.evaluation.types import size_class
from mobilesam_core.models.mask_decoder import DecoderOutput
from mobilesam_core.models.sam import Sam
from mobilesam_core.ops.masks import DenseMasks
from mobilesam_core.ops.metrics import mask_iou
from mobilesam_core.ops.tiles import Tiling
from mobilesam_core.prompts.tensors import PromptTensors

Truthful = Callable[..., Any]
"""The stand-in of conftest.py that knows the truth."""

ALL = EvalOptions(prompts=("box", "point", "clicks"), clicks=3)


@dataclass
class Listed:
    """A source of given samples; an error in their place is raised."""

    samples: list[Sample | DataError]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[index]
        if isinstance(sample, DataError):
            raise sample
        return sample

    def describe(self, index: int) -> str:
        return f"file {index}"


def samples_of(source: SampleSource) -> list[Sample]:
    return [source[i] for i in range(len(source))]


def block_sample() -> Sample:
    """Objects on the borders of the low-resolution grid, so that a model can be right to the pixel but corners."""
    masks = np.zeros((3, 256, 256), bool)
    masks[0, 16:80, 16:120] = True
    masks[1, 100:228, 20:100] = True
    masks[2, 120:240, 128:248] = True
    rng = np.random.default_rng(0)
    return Sample("blocks", rng.integers(0, 255, (256, 256, 3), np.uint8), DenseMasks(masks), "blocks")


def test_a_model_that_knows_the_truth_scores_one(truthful: Truthful) -> None:
    sample = block_sample()
    result = evaluate(truthful([sample]), Listed([sample]), ALL)
    for kind in ALL.prompts:
        summary = result.summary(kind)
        assert summary.objects == 3
        assert summary.miou > 0.995
        assert summary.miou_oracle == summary.miou
        assert summary.boundary_iou is not None and summary.boundary_iou > 0.98
    assert result.summary("box").fill_box_iou == 1.0
    assert result.summary("clicks").clicks.noc == {85: 1.0, 90: 1.0}


def test_every_object_of_every_image_is_counted(shapes: SampleSource, nano: Sam) -> None:
    result = evaluate(nano, shapes, ALL)
    wanted = [(s.key, i) for s in samples_of(shapes) for i in range(len(s.masks))]
    assert [(r.image, r.object) for r in result.scores] == wanted * 3
    assert [r.kind for r in result.scores] == [kind for kind in ALL.prompts for _ in wanted]
    assert result.images == 3 and result.failures == ()


def test_each_image_is_encoded_once(shapes: SampleSource, truthful: Truthful) -> None:
    model = truthful(samples_of(shapes))
    evaluate(model, shapes, replace(ALL, object_chunk=1))
    assert model.encoded == 3


def test_two_evaluations_are_equal(shapes: SampleSource, nano: Sam) -> None:
    assert evaluate(nano, shapes, ALL).to_json() == evaluate(nano, shapes, ALL).to_json()


def test_figures_do_not_depend_on_the_chunks(shapes: SampleSource, nano: Sam) -> None:
    options = EvalOptions(prompts=("box", "point"))
    together = evaluate(nano, shapes, options)
    one_by_one = evaluate(nano, shapes, replace(options, object_chunk=1))
    assert len(together.scores) == len(one_by_one.scores)
    for a, b in zip(together.scores, one_by_one.scores, strict=True):
        assert (a.image, a.object, a.area, a.kind) == (b.image, b.object, b.area, b.kind)
        # A logit within rounding of the threshold may fall to either side.
        assert a.iou == pytest.approx(b.iou, abs=2e-3)
        assert a.predicted_iou == pytest.approx(b.predicted_iou, abs=1e-5)


def test_clicks_do_not_depend_on_the_chunks(shapes: SampleSource, truthful: Truthful) -> None:
    def clumsy(masks: np.ndarray, tokens: int) -> np.ndarray:
        return np.roll(masks, 12 // tokens, axis=2)

    model = truthful(samples_of(shapes), changes=(clumsy,) * 4)
    options = EvalOptions(prompts=("clicks",), clicks=4)
    assert evaluate(model, shapes, options).scores == evaluate(model, shapes, replace(options, object_chunk=2)).scores


def test_which_of_the_four_masks_counts(truthful: Truthful) -> None:
    """Scores prefer output 2, which is empty; output 3 is right; a box takes output 0, of which half is missing."""
    sample = block_sample()

    def nothing(masks: np.ndarray, tokens: int) -> np.ndarray:
        return np.zeros_like(masks)

    def half(masks: np.ndarray, tokens: int) -> np.ndarray:
        halves = masks.copy()
        halves[:, :, :64], halves[:, :, 100:128], halves[:, :, 188:] = False, False, False
        return halves

    def whole(masks: np.ndarray, tokens: int) -> np.ndarray:
        return masks

    model = truthful([sample], scores=(0.7, 0.1, 0.9, 0.2), changes=(half, nothing, nothing, whole))
    result = evaluate(model, Listed([sample]), EvalOptions(prompts=("box", "point")))
    point, box = result.summary("point"), result.summary("box")
    assert point.miou == 0.0 and point.miou_oracle > 0.99
    assert point.predicted_iou == pytest.approx(0.9)
    assert 0.4 < box.miou < 0.6 and box.miou_oracle > 0.99
    assert box.predicted_iou == pytest.approx(0.7)


def test_clicks_correct_until_nothing_is_wrong(truthful: Truthful) -> None:
    """A model that gets the object right from the third click on (four tokens with the padding one)."""
    full = np.zeros((1, 256, 256), bool)
    full[0] = True  # no corner to round: right to the pixel
    rng = np.random.default_rng(0)
    sample = Sample("full", rng.integers(0, 255, (256, 256, 3), np.uint8), DenseMasks(full), "full")

    def late(masks: np.ndarray, tokens: int) -> np.ndarray:
        known = masks.copy()
        known[:, :, 64 * (tokens - 1) :] = False
        return known if tokens < 4 else masks

    model = truthful([sample], changes=(late,) * 4)
    seen: list[Observation] = []
    result = evaluate(model, Listed([sample]), EvalOptions(prompts=("clicks",), clicks=5), observe=seen.append)
    (score,) = result.scores
    assert score.click_ious == pytest.approx((0.25, 0.5, 1.0, 1.0, 1.0), abs=0.01)
    assert score.iou == 1.0
    assert model.decoded == [1, 1, 1]
    assert seen[0].prompts[0].points.shape == (3, 2)
    assert seen[0].prompts[0].labels.tolist() == [1, 1, 1]
    clicks = result.summary("clicks").clicks
    assert clicks.noc == {85: 3.0, 90: 3.0} and clicks.reached == {85: 1.0, 90: 1.0}


def test_later_clicks_pass_on_the_previous_logits(shapes: SampleSource, nano: Sam) -> None:
    given = []
    decode = nano.decode

    def spy(embedding: torch.Tensor, index: torch.Tensor, prompts: PromptTensors) -> DecoderOutput:
        output = decode(embedding, index, prompts)
        given.append((prompts.masks, DecoderOutput(*(part.clone() for part in output))))
        return output

    nano.decode = spy  # type: ignore[method-assign]
    evaluate(nano, shapes, replace(ALL, prompts=("clicks",), clicks=2, max_images=1))
    (first, answer), (second, _) = given
    assert first is None
    best = 1 + answer.iou_predictions[:, 1:].argmax(dim=1)
    assert torch.equal(second[:, 0], answer.low_res_logits[torch.arange(len(best)), best])


def test_the_threshold_decides_what_is_mask(truthful: Truthful) -> None:
    sample = block_sample()
    model = truthful([sample])
    assert evaluate(model, Listed([sample]), EvalOptions(mask_threshold=11.0)).summary("box").miou == 0.0


def test_an_onlooker_sees_what_was_scored(shapes: SampleSource, nano: Sam) -> None:
    seen: list[Observation] = []
    result = evaluate(nano, shapes, replace(ALL, object_chunk=2), observe=seen.append)
    assert sorted(map(repr, [s for o in seen for s in o.scores])) == sorted(map(repr, result.scores))
    first = seen[0]
    assert first.low_res_logits.shape == (2, 4, 32, 32) and first.iou_predictions.shape == (2, 4)
    assert first.targets.shape == first.masks.shape == (2, 256, 256)
    assert first.targets.dtype == first.masks.dtype == bool
    assert [int(t.sum()) for t in first.targets] == [s.area for s in first.scores]
    assert first.frame.size == 128


def test_agreement_is_the_iou_of_both_models_masks(shapes: SampleSource) -> None:
    ours, other = (open_checkpoint("nano", image_size=size).model for size in (128, 192))
    seen: dict[int, list[Observation]] = {0: [], 1: []}
    for number, model in enumerate((ours, other)):
        evaluate(model, shapes, EvalOptions(boundary=False), observe=seen[number].append)
    expected = [
        pytest.approx(mask_iou(a, b))
        for first, second in zip(seen[0], seen[1], strict=True)
        for a, b in zip(first.masks, second.masks, strict=True)
    ]
    found: list[Observation] = []
    result = evaluate(ours, shapes, EvalOptions(boundary=False), observe=found.append, teacher=other)
    assert [score.agreement for each in found for score in each.scores] == expected
    assert 0.3 < result.summary("box").agreement < 0.98
    assert evaluate(ours, shapes, EvalOptions(boundary=False), teacher=ours).summary("point").agreement == 1
    assert evaluate(ours, shapes, EvalOptions(boundary=False)).summary("point").agreement is None


def wide_sample() -> Sample:
    """Objects in the first, in the last and in all of three tiles of 128 pixels, one in two of them, one in none."""
    masks = np.zeros((5, 128, 320), bool)
    masks[0, 20:50, 10:40] = True
    masks[1, 70:110, 250:300] = True
    masks[2, 60:70] = True
    masks[3, 30:50, 105:120] = True
    masks[4, 5:15, 90:200] = True
    pixels = np.random.default_rng(0).integers(0, 90, (128, 320, 3), np.uint8) + masks.any(0)[..., None] * np.uint8(120)
    return Sample("wide", pixels, DenseMasks(masks), "wide")


def test_objects_are_asked_about_in_the_tile_that_holds_them(nano: Sam) -> None:
    sample, tiling = wide_sample(), Tiling(128, 32)  # from 0, 96 and 192
    seen: list[Observation] = []
    result = evaluate(nano, Listed([sample]), replace(ALL, tiling=tiling), observe=seen.append)
    assert [(score.kind, score.object) for score in result.scores] == [(k, i) for k in ALL.prompts for i in range(5)]
    assert {o.window: list(o.object_indices) for o in seen} == {
        (0, 0, 128, 128): [0],
        (192, 0, 320, 128): [1],
        (0, 0, 320, 128): [2, 4],
        (96, 0, 224, 128): [3],  # nearer to its middle than to the first's
    }
    assert result.to_json()["options"]["tiling"] == {"tile": 128, "overlap": 32}
    alone = {window: sample.part(window) for window in {o.window for o in seen}}
    for observation in seen:
        part = alone[observation.window]
        assert np.array_equal(observation.pixels, part.image)
        expected = evaluate(nano, Listed([part]), replace(ALL, prompts=(observation.kind,)))
        by_area = {score.area: score for score in expected.scores}
        for score in observation.scores:
            same = by_area[score.area]
            assert (score.iou, score.predicted_iou) == pytest.approx((same.iou, same.predicted_iou), abs=1e-5)
            assert score.click_ious == pytest.approx(same.click_ious, abs=1e-5)


def test_boundaries_are_as_wide_in_tiles_as_in_the_image(truthful: Truthful) -> None:
    """A model whose masks are shifted, on an image and, in a tile, on the same in a much larger one."""
    sample = block_sample()
    larger = np.zeros((256, 2048, 3), np.uint8)
    larger[:, :256] = sample.image
    masks = np.zeros((3, 256, 2048), bool)
    masks[:, :, :256] = sample.masks.dense(range(3))
    wide = Sample("wide", larger, DenseMasks(masks), "wide")
    shifted = (lambda masks, tokens: np.roll(masks, 4, axis=2),) * 4
    options = EvalOptions(prompts=("box",), tiling=Tiling(256, 128))
    in_tile = evaluate(truthful([sample], changes=shifted), Listed([wide]), options).summary("box")
    alone = evaluate(truthful([sample], changes=shifted), Listed([sample]), options).summary("box")
    assert in_tile.miou == alone.miou and in_tile.fill_box_iou == alone.fill_box_iou == 1
    assert in_tile.boundary_iou > alone.boundary_iou + 0.05


def test_only_tiles_with_objects_are_encoded(truthful: Truthful) -> None:
    sample = block_sample()
    empty = np.random.default_rng(1).integers(0, 9, (256, 700, 3), np.uint8)
    masks = np.zeros((3, 256, 956), bool)
    masks[:, :, :256] = sample.masks.dense(range(3))
    wide = Sample("wide", np.concatenate([sample.image, empty], axis=1), DenseMasks(masks), "wide")
    model = truthful([sample])
    result = evaluate(model, Listed([wide]), EvalOptions(tiling=Tiling(256, 0), object_chunk=1))
    assert model.encoded == 1 and result.summary("point").miou > 0.995


def test_modes_are_restored_module_by_module_even_after_an_error(shapes: SampleSource, truthful: Truthful) -> None:
    model = truthful(samples_of(shapes)).train()
    model.frozen.eval()

    def stop(observation: Observation) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        evaluate(model, shapes, ALL, observe=stop)
    assert model.training and model.batch_norm.training and not model.frozen.training


def test_bad_images_and_empty_objects_are_listed_and_the_rest_goes_on(truthful: Truthful) -> None:
    sample = block_sample()
    masks = np.concatenate([sample.masks.dense([0, 1, 2]), np.zeros((1, 256, 256), bool)])
    sample = replace(sample, masks=DenseMasks(masks))
    source = Listed([DataError("a.png is empty (0 bytes).", "Replace it."), sample])
    result = evaluate(truthful([sample]), source, EvalOptions())
    assert result.images == 1
    assert result.summary("box").objects == 3
    assert [(f.index, f.source) for f in result.failures] == [(0, "file 0"), (1, "blocks")]
    assert result.failures[0].problem == "a.png is empty (0 bytes)."
    assert "Object 3" in result.failures[1].problem


def test_without_an_object_there_is_nothing_to_sum_up(truthful: Truthful) -> None:
    sample = replace(block_sample(), masks=DenseMasks(np.zeros((0, 256, 256), bool)))
    result = evaluate(truthful([sample]), Listed([sample]), EvalOptions())
    with pytest.raises(DataError, match="no object to evaluate"):
        result.summary("box")


def test_limits_spread_over_images_and_objects(shapes: SampleSource, nano: Sam) -> None:
    result = evaluate(nano, shapes, EvalOptions(prompts=("box",), max_images=2, max_objects=1, boundary=False))
    assert result.images == 2 and len(result.scores) == 2
    assert result.scores[0].boundary_iou is None
    assert result.summary("box").fill_box_boundary_iou is None


def test_spread() -> None:
    assert spread(5, None) == spread(5, 9) == [0, 1, 2, 3, 4]
    assert spread(10, 2) == [2, 7]
    assert spread(100, 4) == [12, 37, 62, 87]
    assert spread(0, 3) == []


def test_sizes_are_coco_s() -> None:
    assert [size_class(area) for area in (1, 1023, 1024, 9215, 9216)] == [
        "small",
        "small",
        "medium",
        "medium",
        "large",
    ]


@pytest.mark.parametrize(
    "wrong", [{"prompts": ("boxes",)}, {"prompts": ()}, {"prompts": ("box", "box")}, {"clicks": 0}]
)
def test_options_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(UsageError):
        EvalOptions(**wrong)
