from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilesam_core.amg.formats import mask_record
from mobilesam_core.amg.workflow import build_generator, find_masks
from mobilesam_core.app.models import Models
from mobilesam_core.app.pictures import coco_file, file_name, layer, mask_file, overlay_file, photo
from mobilesam_core.app.session import Click, Session
from mobilesam_core.app.uploads import NamedImage
from mobilesam_core.app.visitors import Visitors
from mobilesam_core.checkpoints.loading import open_checkpoint
from mobilesam_core.config.amg import AmgConfig
from mobilesam_core.config.data import ShapesConfig
from mobilesam_core.data.shapes import ShapesSource
from mobilesam_core.errors import CheckpointError, PromptError, UsageError
from mobilesam_core.ops.rle import decode_rle
from mobilesam_core.prediction.requests import ImageRequest, ObjectRequest
from mobilesam_core.prediction.workflow import PredictOptions, predict
from mobilesam_core.runtime.torch_runtime import TorchRuntime

LOOSE = AmgConfig(points_per_side=4, pred_iou_thresh=0, stability_score_thresh=0)


def nano(image_size: int = 128) -> TorchRuntime:
    return TorchRuntime(open_checkpoint("nano", image_size=image_size).model)


@pytest.fixture(scope="module")
def runtime() -> TorchRuntime:
    return nano()


@pytest.fixture
def image() -> NamedImage:
    drawn = ShapesSource(ShapesConfig(format="shapes", domains=("polygons",), count=1, size=80))[0].image
    return NamedImage("a dog.png", np.ascontiguousarray(drawn[:48]))


@pytest.fixture
def session(runtime: TorchRuntime, image: NamedImage) -> Session:
    session = Session(runtime)
    session.open(image)
    return session


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as opened:
        return np.asarray(opened)


def opacity(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as opened:
        return np.asarray(opened.convert("RGBA"))[..., 3]


def test_files_are_those_of_predict(session: Session, image: NamedImage, tmp_path: Path) -> None:
    session.add(Click((5, 5), False))
    session.add((10, 8, 60, 40))
    session.add(Click((30, 20), True))
    Image.fromarray(image.pixels).save(tmp_path / "a dog.png")
    wanted = ObjectRequest(((30, 20), (5, 5)), (1, 0), (10, 8, 60, 40))
    result = predict(
        [ImageRequest(tmp_path / "a dog.png", (wanted,))], session.runtime, PredictOptions(tmp_path / "out")
    )
    assert np.array_equal(pixels(mask_file(session)), pixels((tmp_path / "out/a dog/0.png").read_bytes()))
    assert np.array_equal(pixels(overlay_file(session)), pixels((tmp_path / "out/a dog_overlay.png").read_bytes()))
    document = json.loads(coco_file(session))
    assert document["images"] == [{"id": 1, "file_name": "a dog.png", "width": 80, "height": 48}]
    (annotation,) = document["annotations"]
    (record,) = json.loads(result.images[0].json.read_text("utf-8"))
    del record["file"]
    assert (
        annotation
        == {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "score": record["predicted_iou"]} | record
    )
    assert file_name(session, "mask.png") == "a dog_mask.png"


@pytest.mark.parametrize("output, suffix", [(1, "_0"), (3, "_2")])
def test_a_chosen_mask_is_that_of_multimask(
    session: Session, image: NamedImage, tmp_path: Path, output: int, suffix: str
) -> None:
    session.add(Click((30, 20), True))
    assert session.chosen == 1 + int(np.argmax(session.answer.scores[1:]))
    session.choose(output)
    Image.fromarray(image.pixels).save(tmp_path / "dog.png")
    request = ImageRequest(tmp_path / "dog.png", (ObjectRequest(((30, 20),), (1,)),))
    predict([request], session.runtime, PredictOptions(tmp_path / "out", "multimask"))
    assert np.array_equal(pixels(mask_file(session)), pixels((tmp_path / f"out/dog/0{suffix}.png").read_bytes()))
    session.add(Click((31, 20), True))
    assert session.output is None


def test_undo_and_clear(session: Session) -> None:
    session.add(Click((30, 20), True))
    first = session.mask()
    session.add((10, 8, 60, 40))
    session.add((0, 0, 20, 20))
    assert session.answer.request.box == (0, 0, 20, 20)
    session.undo()
    assert session.answer.request.box == (10, 8, 60, 40)
    session.undo()
    assert np.array_equal(session.mask(), first)
    revision = session.revision
    session.undo()
    session.undo()
    assert session.steps == () and session.mask() is None and session.revision > revision
    session.add(Click((30, 20), True))
    session.clear()
    assert session.steps == () and session.mask() is None and session.image is not None


def test_a_step_that_cannot_be_changes_nothing(session: Session) -> None:
    session.add(Click((30, 20), True))
    before = (session.steps, session.answer)
    with pytest.raises(PromptError, match="outside the image"):
        session.add(Click((81, 20), True))
    with pytest.raises(PromptError, match="x1 < x2"):
        session.add((10, 10, 10, 20))
    assert (session.steps, session.answer) == before


def test_everything_is_that_of_amg(session: Session, image: NamedImage) -> None:
    session.add(Click((30, 20), True))
    session.find_everything(LOOSE)
    expected = find_masks(build_generator(session.runtime, LOOSE), LOOSE, image.pixels)
    assert expected and [each.rle for each in session.found] == [each.rle for each in expected]
    annotations = json.loads(coco_file(session))["annotations"]
    assert [each["segmentation"] for each in annotations] == [mask_record(each)["segmentation"] for each in expected]
    assert [each["id"] for each in annotations] == list(range(1, len(expected) + 1))
    ids = pixels(mask_file(session))
    smallest = min(range(len(expected)), key=lambda number: expected[number].area)
    assert (ids[decode_rle(expected[smallest].rle)] == smallest + 1).all()
    session.undo()
    assert session.found is None and len(session.steps) == 1 and session.answer is not None


def test_what_the_page_shows(runtime: TorchRuntime) -> None:
    session = Session(runtime)
    session.open(NamedImage("wide.png", np.full((600, 3000, 3), 9, np.uint8)))
    assert pixels(photo(session)).shape == (256, 1280, 3)
    assert not opacity(layer(session)).any()
    session.add((500, 100, 2500, 500))
    alpha = opacity(layer(session))
    shown = session.mask((256, 1280))
    assert shown.any() and (alpha[shown] > 0).all()
    session.find_everything(LOOSE)
    assert opacity(layer(session)).shape == (256, 1280)


def test_before_an_image(runtime: TorchRuntime) -> None:
    session = Session(runtime)
    for act in (
        lambda: session.add(Click((1, 1), True)),
        lambda: session.find_everything(LOOSE),
        lambda: photo(session),
    ):
        with pytest.raises(UsageError, match="no image yet"):
            act()
    session.undo()
    session.clear()
    assert session.size_in_bytes == 0


def test_another_model_answers_the_same_prompts(session: Session) -> None:
    session.add(Click((30, 20), True))
    before = session.answer.scores
    session.use(nano(64))
    assert session.steps == (Click((30, 20), True),) and session.answer.scores != before


def test_those_who_came_last_stay(runtime: TorchRuntime, image: NamedImage) -> None:
    visitors = Visitors(max_bytes=40_000, max_sessions=3)
    sessions = [Session(runtime) for _ in range(4)]
    for each in sessions:
        visitors.add(each)
    assert len(visitors) == 3
    with pytest.raises(UsageError, match="no longer has the image"):
        visitors.get(sessions[0].token)
    for each in sessions[1:]:
        each.open(image)
    visitors.get(sessions[1].token)
    visitors.make_room()
    assert visitors.get(sessions[1].token) is sessions[1] and len(visitors) < 3


def test_models_are_opened_when_they_are_wanted(runtime: TorchRuntime) -> None:
    gone = [CheckpointError("x.pt does not exist.")]

    def open_second() -> TorchRuntime:
        if gone:
            raise gone.pop()
        return runtime

    models = Models({"first": lambda: runtime, "second": open_second})
    with pytest.raises(CheckpointError, match="does not exist"):
        models.get("second")
    assert models.get("second") is runtime
    with pytest.raises(UsageError, match="no model"):
        models.get("/etc/passwd")
