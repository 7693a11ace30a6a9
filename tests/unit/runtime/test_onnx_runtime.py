"""ONNX Runtime in torch's place: the same masks from prompts and without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mobilesam_core.amg.generator import SamAutomaticMaskGenerator
from mobilesam_core.checkpoints.loading import OpenedCheckpoint, open_checkpoint
from mobilesam_core.config.amg import AmgThresholds
from mobilesam_core.config.data import ShapesConfig
from mobilesam_core.data.sample import Sample
from mobilesam_core.data.shapes import ShapesSource
from mobilesam_core.errors import UsageError
from mobilesam_core.evaluation.scoring import evaluate
from mobilesam_core.evaluation.types import EvalOptions
from mobilesam_core.export.workflow import ExportOptions, export_onnx
from mobilesam_core.ops.rle import rle_ious
from mobilesam_core.prediction.requests import ObjectRequest
from mobilesam_core.prediction.segment import segment
from mobilesam_core.runtime.opening import open_onnx
from mobilesam_core.runtime.protocol import Runtime
from mobilesam_core.runtime.torch_runtime import TorchRuntime

STYLES = ("batched", "official", "low-res")
SUGGESTED = AmgThresholds(pred_iou_thresh=0.55, stability_score_thresh=0.7)


@pytest.fixture(scope="module")
def nano() -> OpenedCheckpoint:
    opened = open_checkpoint("nano", image_size=256)
    return replace(opened, metadata={**opened.metadata, "amg_thresholds": SUGGESTED.model_dump_json()})


@pytest.fixture(scope="module")
def files(nano: OpenedCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("onnx")
    found = {}
    for style in STYLES:
        parts = ("encoder", "decoder") if style == "batched" else ("decoder",)
        for each in export_onnx(nano, ExportOptions(folder, parts=parts, style=style)):  # type: ignore[arg-type]
            found["encoder" if each.facts.part == "encoder" else style] = each.path
    return found


@pytest.fixture(scope="module")
def torch_runtime(nano: OpenedCheckpoint) -> Runtime:
    return TorchRuntime(nano.model, nano.path, nano.sha256)


@pytest.fixture(params=STYLES)
def exported(files: dict[str, Path], request: pytest.FixtureRequest) -> Runtime:
    return open_onnx(files["encoder"], files[request.param])


@pytest.fixture(scope="module")
def source() -> ShapesSource:
    return ShapesSource(ShapesConfig(format="shapes", domains=("heap",), count=2, size=200, seed=3))


@pytest.fixture(scope="module")
def scene(source: ShapesSource) -> Sample:
    return source[0]


def test_they_are_the_same_model(exported: Runtime, torch_runtime: Runtime) -> None:
    for name in ("model", "image_size", "channels", "embed_dim", "mask_threshold", "sha256", "producer"):
        assert getattr(exported, name) == getattr(torch_runtime, name), name


def test_prompts_of_every_kind_give_the_same_masks(
    exported: Runtime, torch_runtime: Runtime, scene: Sample, tmp_path: Path
) -> None:
    image = np.ascontiguousarray(scene.image[:150])
    logits = np.random.default_rng(0).normal(0, 3, (64, 64)).astype(np.float32)
    np.save(tmp_path / "logits.npy", logits)
    objects = [
        ObjectRequest(((30.0, 20.0),), (1,)),
        ObjectRequest(((30.0, 20.0), (90.0, 100.0), (5.0, 5.0)), (1, 1, 0)),
        ObjectRequest(box=(20.0, 30.0, 120.0, 140.0)),
        ObjectRequest(((50.0, 50.0),), (0,), (20.0, 30.0, 120.0, 140.0)),
        ObjectRequest(((30.0, 20.0),), (1,), mask=tmp_path / "logits.npy"),
        ObjectRequest(mask=tmp_path / "logits.npy"),
    ]
    expected = list(segment(torch_runtime, image, objects, "multimask"))
    found = list(segment(exported, image, objects, "multimask"))
    assert len(found) == len(expected) == 18
    assert any(each.mask.any() and not each.mask.all() for each in expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.object, ours.candidate, ours.best) == (theirs.object, theirs.candidate, theirs.best)
        assert ours.predicted_iou == pytest.approx(theirs.predicted_iou, abs=1e-4)
        assert (ours.mask == theirs.mask).mean() >= 0.9999


@pytest.mark.parametrize("strategy", ["grid", "coarse-to-fine"])
def test_everything_found_is_the_same(
    files: dict[str, Path], torch_runtime: Runtime, scene: Sample, strategy: str
) -> None:
    settings = {"points_per_side": 12, "pred_iou_thresh": 0.7, "stability_score_thresh": 0.7, "strategy": strategy}
    runtime = open_onnx(files["encoder"], files["batched"])
    expected, found = (
        SamAutomaticMaskGenerator(each, **settings).find(scene.image)  # type: ignore[arg-type]
        for each in (torch_runtime, runtime)
    )
    assert len(found) == len(expected) > 3
    ious = rle_ious([each.rle for each in found], [each.rle for each in expected])
    assert ious.max(axis=0).mean() >= 0.999 and ious.max(axis=1).mean() >= 0.999
    assert np.allclose([e.predicted_iou for e in found], [e.predicted_iou for e in expected], atol=1e-3)


def test_evaluation_gives_the_same_figures(
    files: dict[str, Path], torch_runtime: Runtime, source: ShapesSource
) -> None:
    options = EvalOptions(prompts=("box", "point", "clicks"), clicks=3, boundary=False)
    runtime = open_onnx(files["encoder"], files["batched"])
    expected, found = (evaluate(each, source, options).scores for each in (torch_runtime, runtime))
    assert len(found) == len(expected) > 10
    assert np.abs([a.iou - b.iou for a, b in zip(found, expected, strict=True)]).mean() < 1e-3


def test_embeddings_are_stored_and_restored(exported: Runtime, torch_runtime: Runtime, scene: Sample) -> None:
    with torch_runtime.running():
        ours, theirs = (each.store(each.encode(scene.image).embedding) for each in (exported, torch_runtime))
    assert ours.dtype == np.float16 and ours.shape == (128, 16, 16)
    assert np.abs(ours.astype(np.float32) - theirs.astype(np.float32)).max() < 0.02
    assert exported.restore(ours).shape == (1, 128, 16, 16)


def test_files_that_do_not_fit_together(files: dict[str, Path], exported_nano: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is the decoder of a model, not its encoder"):
        open_onnx(files["batched"], files["batched"])
    with pytest.raises(UsageError, match="image_size"):
        open_onnx(files["encoder"], exported_nano / "nano_decoder_batched.onnx")
    stranger = OpenedCheckpoint(open_checkpoint("nano", image_size=256).model, Path("x.pt"), "f" * 64, {})
    (foreign,) = export_onnx(stranger, ExportOptions(tmp_path, parts=["decoder"], style="batched"))
    with pytest.raises(UsageError, match="different checkpoints"):
        open_onnx(files["encoder"], foreign.path)
    assert open_onnx(files["encoder"], foreign.path, force=True).sha256.endswith("+" + "f" * 64)
    (single,) = export_onnx(stranger, ExportOptions(tmp_path / "single", parts=["decoder"], single_mask=True))
    with pytest.raises(UsageError, match="one mask"):
        open_onnx(files["encoder"], single.path)


def test_thresholds_that_the_weights_suggest_are_handed_on(exported: Runtime) -> None:
    assert exported.amg_thresholds == SUGGESTED
