from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mobilesam_core.config.model import ModelConfig
from mobilesam_core.errors import DataError, OutputError, PromptError, UsageError
from mobilesam_core.models.registry import build_sam
from mobilesam_core.ops.drawing import write_png
from mobilesam_core.ops.rle import decode_rle
from mobilesam_core.prediction import segment as segment_module
from mobilesam_core.prediction.predictor import SamPredictor
from mobilesam_core.prediction.requests import ImageRequest, ObjectRequest
from mobilesam_core.prediction.segment import segment
from mobilesam_core.prediction.workflow import PredictOptions, predict
from mobilesam_core.runtime.torch_runtime import TorchRuntime

POINT = ObjectRequest(((30.0, 20.0),), (1,))
POINTS = ObjectRequest(((30.0, 20.0), (5.0, 40.0)), (1, 0))
BOX = ObjectRequest(box=(10.0, 5.0, 60.0, 45.0))


@pytest.fixture(scope="module")
def runtime() -> TorchRuntime:
    torch.manual_seed(0)
    model = build_sam(ModelConfig(name="vit_nano", checkpoint=None, image_size=64)).eval()
    return TorchRuntime(model, Path("nano.safetensors"), "0" * 64)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (48, 80, 3), np.uint8)


@pytest.fixture
def photo(tmp_path: Path, image: np.ndarray) -> Path:
    write_png(tmp_path / "photo.png", image)
    return tmp_path / "photo.png"


@pytest.mark.parametrize("wanted", [POINT, POINTS, BOX])
@pytest.mark.parametrize("multimask", [True, False])
def test_masks_are_those_of_sam_predictor(
    runtime: TorchRuntime, image: np.ndarray, wanted: ObjectRequest, multimask: bool
) -> None:
    predictor = SamPredictor(runtime.torch_model)
    predictor.set_image(image)
    masks, scores, _ = predictor.predict(
        np.array(wanted.points) if wanted.points else None,
        np.array(wanted.labels) if wanted.points else None,
        None if wanted.box is None else np.array(wanted.box),
        multimask_output=multimask,
    )
    output = "multimask" if multimask else "single"
    found = (
        list(segment(runtime, image, [POINTS, wanted, POINT], output))[-6:-3]
        if multimask
        else [list(segment(runtime, image, [POINTS, wanted, POINT], output))[1]]
    )
    assert [f.object for f in found] == [1] * len(masks)
    assert [f.candidate for f in found] == ([0, 1, 2] if multimask else [None])
    assert np.allclose([f.predicted_iou for f in found], scores, atol=1e-5)
    for ours, theirs in zip(found, masks, strict=True):
        assert (ours.mask == theirs).mean() > 0.999
    assert [f.best for f in found] == [score == scores.max() for score in scores]


def test_the_best_answer_to_a_point_is_the_best_scored_of_three(runtime: TorchRuntime, image: np.ndarray) -> None:
    best = next(found for found in segment(runtime, image, [POINT], "multimask") if found.best)
    (answer,) = segment(runtime, image, [POINT])
    assert answer.predicted_iou == best.predicted_iou and np.array_equal(answer.mask, best.mask)
    (of_box,) = segment(runtime, image, [BOX])
    (single,) = segment(runtime, image, [BOX], "single")
    assert of_box.predicted_iou == single.predicted_iou


def test_objects_in_chunks_are_the_same(
    runtime: TorchRuntime, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = [POINT, BOX, POINTS, BOX, POINT]
    together = list(segment(runtime, image, objects))
    monkeypatch.setattr(segment_module, "objects_at_once", lambda runtime, frame: 2)
    chunked = list(segment(runtime, image, objects))
    assert [f.object for f in chunked] == [0, 1, 2, 3, 4]
    for a, b in zip(together, chunked, strict=True):
        assert a.predicted_iou == pytest.approx(b.predicted_iou, abs=1e-5)


def test_a_mask_changes_the_answer(runtime: TorchRuntime, image: np.ndarray, tmp_path: Path) -> None:
    write_png(tmp_path / "mask.png", np.arange(80) < np.full((48, 1), 40))
    masked = ObjectRequest(POINTS.points, POINTS.labels, mask=tmp_path / "mask.png")
    alone = ObjectRequest(mask=tmp_path / "mask.png")
    plain, with_mask, only_mask = segment(runtime, image, [POINTS, masked, alone])
    assert len({plain.predicted_iou, with_mask.predicted_iou, only_mask.predicted_iou}) == 3


def test_what_is_written(runtime: TorchRuntime, photo: Path, tmp_path: Path) -> None:
    options = PredictOptions(tmp_path / "out")
    result = predict([ImageRequest(photo, (POINT, BOX))], runtime, options)
    (written,) = result.images
    records = json.loads((tmp_path / "out" / "photo.json").read_text("utf-8"))
    assert records == list(written.records) and len(records) == 2
    for number, record in enumerate(records):
        mask = decode_rle(record["segmentation"])
        assert record["file"] == f"photo/{number}.png" and record["object"] == number
        assert record["area"] == mask.sum()
        x, y, width, height = record["bbox"]
        assert mask[y : y + height, x : x + width].sum() == mask.sum()
        with Image.open(tmp_path / "out" / record["file"]) as picture:
            assert np.array_equal(np.asarray(picture) == 255, mask)
    assert records[0]["model"] == "vit_nano" and records[0]["checkpoint_sha256"] == "0" * 64
    assert written.overlay is not None and written.overlay.exists()
    assert result.failures == () and result.failures_file is None


def test_prompts_are_in_the_upright_image(runtime: TorchRuntime, image: np.ndarray, tmp_path: Path) -> None:
    """A photo taken sideways gives the mask of the same photo turned upright beforehand."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image).save(tmp_path / "sideways.png", exif=exif)
    write_png(tmp_path / "upright.png", np.rot90(image, -1).copy())
    tall = ObjectRequest(((20.0, 70.0),), (1,))
    requests = [ImageRequest(tmp_path / name, (tall,)) for name in ("sideways.png", "upright.png")]
    sideways, upright = predict(requests, runtime, PredictOptions(tmp_path / "out")).images
    assert sideways.records[0]["segmentation"]["size"] == [80, 48]
    assert sideways.records[0]["segmentation"] == upright.records[0]["segmentation"]


def test_images_of_one_stem_do_not_clobber_each_other(runtime: TorchRuntime, image: np.ndarray, tmp_path: Path) -> None:
    for folder in ("left", "right"):
        write_png(tmp_path / folder / "a.png", image)
    requests = [ImageRequest(tmp_path / folder / "a.png", (POINT,)) for folder in ("left", "right")]
    result = predict(requests, runtime, PredictOptions(tmp_path / "out"))
    assert [written.json.name for written in result.images] == ["left-a.json", "right-a.json"]


def test_nothing_is_overwritten_unasked_and_nothing_stale_stays(
    runtime: TorchRuntime, photo: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    predict([ImageRequest(photo, (POINT, BOX))], runtime, PredictOptions(out, "multimask"))
    (out / "photo" / "notes.png").write_bytes(b"mine")
    with pytest.raises(UsageError, match="already holds results of photo"):
        predict([ImageRequest(photo, (POINT,))], runtime, PredictOptions(out))
    assert len(list((out / "photo").iterdir())) == 7
    predict([ImageRequest(photo, (POINT,))], runtime, PredictOptions(out, overlay=False, overwrite=True))
    assert sorted(path.name for path in (out / "photo").iterdir()) == ["0.png", "notes.png"]
    assert not (out / "photo_overlay.png").exists()


def test_a_bad_image_is_raised_alone_and_listed_among_others(
    runtime: TorchRuntime, photo: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    far = ObjectRequest(((81.0, 1.0),), (1,))
    with pytest.raises(DataError, match=r"none\.png"):
        predict([ImageRequest(tmp_path / "none.png", (POINT,))], runtime, PredictOptions(out))
    with pytest.raises(PromptError, match="81,1"):
        predict([ImageRequest(photo, (far,))], runtime, PredictOptions(out))
    assert not out.exists()
    requests = [ImageRequest(tmp_path / "none.png", (POINT,)), ImageRequest(photo, (POINT,))]
    result = predict(requests, runtime, PredictOptions(out))
    assert [written.image for written in result.images] == [photo]
    assert result.failures_file == out / "failures.json"
    assert json.loads((out / "failures.json").read_text("utf-8"))[0]["source"] == str(tmp_path / "none.png")
    requests[0] = ImageRequest(photo, (POINT,))
    predict(requests[:1], runtime, PredictOptions(out, overwrite=True))
    assert not (out / "failures.json").exists()


def test_a_folder_that_cannot_be_written(runtime: TorchRuntime, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        predict([ImageRequest(photo, (POINT,))], runtime, PredictOptions(tmp_path / "file" / "out"))
