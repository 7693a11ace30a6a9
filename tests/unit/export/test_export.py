from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from PIL import Image

from mobilesam_core.checkpoints.loading import OpenedCheckpoint, open_checkpoint
from mobilesam_core.checkpoints.weights import save_weights
from mobilesam_core.config.model import ModelConfig, ModelName
from mobilesam_core.errors import CheckpointError, UsageError
from mobilesam_core.export import verify as verify_module
from mobilesam_core.export.onnx_graph import Freedom
from mobilesam_core.export.parts import CombinedPart, DecoderPart
from mobilesam_core.export.workflow import ExportedPart, ExportOptions, export_onnx, verify_onnx
from mobilesam_core.models.registry import build_sam
from mobilesam_core.models.sam import Sam
from mobilesam_core.ops.frame import Frame
from mobilesam_core.prediction.predictor import SamPredictor
from mobilesam_core.runtime.facts import ModelFacts, Part
from mobilesam_core.runtime.onnx_session import OnnxModel

Exported = Callable[[Part], ExportedPart]
rarely = pytest.mark.slow  # an export takes seconds, and one of its kind is among the quick tests


def _open(folder: Path, name: ModelName = "vit_nano", image_size: int = 64) -> OpenedCheckpoint:
    torch.manual_seed(0)
    path = folder / f"{name}.safetensors"
    save_weights(build_sam(ModelConfig(name=name, checkpoint=None, image_size=image_size)), path, {})
    return open_checkpoint(path)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> OpenedCheckpoint:
    return _open(tmp_path_factory.mktemp("weights"))


def _session(opened: OpenedCheckpoint, options: ExportOptions) -> ort.InferenceSession:
    (exported,) = export_onnx(opened, options)
    assert exported.verification.passed, exported.verification
    return ort.InferenceSession(str(exported.path))


def _assert_same(found: Sequence[np.ndarray], expected: Sequence[torch.Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs.numpy()).max() <= 1e-4 * theirs.abs().max()


@pytest.fixture(scope="module")
def photo(data_root: Path) -> np.ndarray:
    return np.asarray(Image.open(data_root / "photos/mobilesam_picture2.jpg").convert("RGB"))


@pytest.fixture(scope="module")
def exported(opened: OpenedCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A part as it is exported without options, once for all tests: not to be written to."""

    @cache
    def export(part: Part) -> ExportedPart:
        (made,) = export_onnx(opened, ExportOptions(tmp_path_factory.mktemp(part), parts=[part]))
        assert made.verification.passed, made.verification
        return made

    return export


@torch.no_grad()
@pytest.mark.parametrize("opset", [pytest.param(18, marks=rarely), 20, pytest.param(23, marks=rarely)])
def test_an_encoder_takes_any_number_of_images(opened: OpenedCheckpoint, tmp_path: Path, opset: int) -> None:
    options = ExportOptions(tmp_path, parts=["encoder"], freedom=Freedom(dynamic_batch=True), opset=opset)
    session = _session(opened, options)
    for count in (1, 2, 5):
        images = torch.randn(count, 3, 64, 64)
        _assert_same(session.run(None, {"input_image": images.numpy()}), [opened.model.encode(images)])


def test_an_encoder_has_its_norms_fused_and_no_trace_of_its_sources(exported: Exported) -> None:
    path = exported("encoder").path
    graph = onnx.load(path)
    operators = {node.op_type for node in graph.graph.node}
    assert "BatchNormalization" not in operators
    assert {"Gelu", "LayerNormalization"} <= operators
    assert {"Conv_1", "MatMul_1"} < {node.name for node in graph.graph.node}
    assert str(Path(__file__).parents[3]).encode() not in path.read_bytes()


def _prompts(count: int, points: int, mask: bool = False) -> dict[str, torch.Tensor]:
    torch.manual_seed(count + points)
    return {
        "point_coords": 64 * torch.rand(count, points, 2),
        "point_labels": torch.randint(-1, 4, (count, points)).float(),
        "mask_input": 4 * torch.randn(count, 1, 16, 16),
        "has_mask_input": torch.full((count,), float(mask)),
    }


def _numpy(inputs: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in inputs.items()}


@torch.no_grad()
@pytest.mark.parametrize("single", [False, True])
def test_a_batched_decoder_takes_any_number_of_prompts_of_any_length(
    opened: OpenedCheckpoint, tmp_path: Path, single: bool
) -> None:
    options = ExportOptions(tmp_path, parts=["decoder"], style="batched", single_mask=single)
    session = _session(opened, options)
    for count, points, mask in ((1, 1, False), (4, 2, False), (3, 5, True), (1, 3, True)):
        inputs = {"image_embeddings": torch.randn(1, 128, 4, 4), **_prompts(count, points, mask)}
        _assert_same(session.run(None, _numpy(inputs)), DecoderPart(opened.model, single)(*inputs.values()))


@torch.no_grad()
@pytest.mark.parametrize("points", [pytest.param(1, marks=rarely), 2, pytest.param(6, marks=rarely)])
def test_a_low_res_decoder_can_have_no_free_size(opened: OpenedCheckpoint, tmp_path: Path, points: int) -> None:
    options = ExportOptions(tmp_path, parts=["decoder"], style="low-res", freedom=Freedom(num_points=points))
    (exported,) = export_onnx(opened, options)
    assert exported.verification.passed and exported.verification.comparisons
    session = ort.InferenceSession(str(exported.path))
    assert all(isinstance(size, int) for each in session.get_inputs() + session.get_outputs() for size in each.shape)
    inputs = {"image_embeddings": torch.randn(1, 128, 4, 4), **_prompts(1, points)}
    _assert_same(session.run(None, _numpy(inputs)), DecoderPart(opened.model, False)(*inputs.values()))


@pytest.fixture(scope="module")
def combined(exported: Exported) -> ort.InferenceSession:
    return ort.InferenceSession(str(exported("combined").path))


@torch.no_grad()
@pytest.mark.parametrize("size", [(50, 64), (300, 200), (1, 700)])
def test_a_combined_model_answers_in_pixels_of_the_image(
    opened: OpenedCheckpoint, combined: ort.InferenceSession, size: tuple[int, int]
) -> None:
    model = opened.model
    pixels = torch.randint(0, 256, (3, *Frame.of(*size, 64).scaled)).float()
    inputs = {"input_image": model.preprocess(pixels[None]), **_prompts(1, 3)}
    masks, iou, low_res = combined.run(None, {**_numpy(inputs), "orig_im_size": np.array(size, np.float32)})
    expected, expected_iou = CombinedPart(model, False)(*inputs.values())
    _assert_same([low_res, iou], [expected, expected_iou])
    _assert_same([masks], [model.postprocess_masks(expected, tuple(pixels.shape[-2:]), size)])


@pytest.fixture(scope="module")
def raw_combined(tmp_path_factory: pytest.TempPathFactory) -> ort.InferenceSession:
    options = ExportOptions(tmp_path_factory.mktemp("raw"), parts=["combined"], preprocessing=True)
    return _session(open_checkpoint("nano"), options)


@pytest.mark.parametrize("size", [(61, 93), (480, 360), (333, 512)])
def test_preprocessing_inside_the_graph_is_that_of_the_predictor(
    raw_combined: ort.InferenceSession, photo: np.ndarray, size: tuple[int, int]
) -> None:
    image = np.ascontiguousarray(photo[: size[0], : size[1]])
    predictor = SamPredictor(open_checkpoint("nano").model)
    predictor.set_image(image)
    point = np.array([[size[1] * 0.4, size[0] * 0.6]], np.float32)
    expected, expected_iou, _ = predictor.predict(point, np.array([1]))
    masks, iou, _ = raw_combined.run(
        None,
        {
            "input_image": image,
            "point_coords": np.concatenate([point, np.zeros((1, 2), np.float32)])[None],
            "point_labels": np.array([[1, -1]], np.float32),
            "mask_input": np.zeros((1, 1, 128, 128), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
        },
    )
    found = masks[0, 1:] > 0
    assert found.shape == expected.shape
    assert ((found & expected).sum((1, 2)) >= 0.99 * (found | expected).sum((1, 2))).all()
    assert np.abs(iou[0, 1:] - expected_iou).max() < 0.01


@pytest.mark.parametrize(("part", "preprocessing"), [("encoder", True), ("decoder", False)])
def test_half_precision_is_near_and_half_the_size(tmp_path: Path, part: Part, preprocessing: bool) -> None:
    opened = open_checkpoint("nano")
    sizes = []
    for fp16 in (False, True):
        options = ExportOptions(tmp_path, parts=[part], preprocessing=preprocessing, fp16=fp16, overwrite=True)
        (exported,) = export_onnx(opened, options)
        assert exported.verification.passed, exported.verification
        assert exported.facts.precision == ("fp16" if fp16 else "fp32")
        sizes.append(exported.bytes)
    # Tables of indices stay as they are, and so does what places points.
    assert sizes[1] < 0.75 * sizes[0]


def test_a_file_says_what_it_is(opened: OpenedCheckpoint, tmp_path: Path) -> None:
    (exported,) = export_onnx(opened, ExportOptions(tmp_path, parts=["decoder"], single_mask=True))
    metadata = {each.key: each.value for each in onnx.load(exported.path).metadata_props}
    facts = ModelFacts.from_metadata(metadata, "x")
    assert facts == exported.facts
    assert (facts.part, facts.style, facts.single_mask, facts.model) == ("decoder", "official", True, "vit_nano")
    assert facts.checkpoint_sha256 == opened.sha256
    assert facts.image_size == 64 and facts.pixel_mean == (123.675, 116.28, 103.53)
    assert set(facts.io) == {
        *("image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input", "orig_im_size"),
        *("masks", "iou_predictions", "low_res_masks"),
    }


def test_a_grey_model_keeps_its_channel(tmp_path: Path) -> None:
    path = tmp_path / "grey.safetensors"
    config = ModelConfig.model_validate(
        {"name": "vit_nano", "checkpoint": None, "image_size": 64, "encoder": {"input_channels": 1}}
    )
    save_weights(build_sam(config), path, {})
    session = _session(open_checkpoint(path), ExportOptions(tmp_path, parts=["encoder"], preprocessing=True))
    assert session.get_inputs()[0].shape[2] == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_t", "vit_b"])
def test_larger_models_are_exported_too(tmp_path: Path, name: ModelName) -> None:
    exported = export_onnx(_open(tmp_path, name, 128), ExportOptions(tmp_path))
    assert [each.verification.passed for each in exported] == [True, True]


def test_a_file_that_differs_does_not_get_its_name(
    opened: OpenedCheckpoint, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = Path(shutil.copy(exported("decoder").path, tmp_path))
    monkeypatch.setattr(verify_module, "EXACT", 0.0)
    (bad,) = export_onnx(opened, ExportOptions(tmp_path, parts=["decoder"], overwrite=True))
    assert not bad.verification.passed
    assert bad.path == good.with_suffix(".rejected.onnx")
    assert [path.name for path in tmp_path.iterdir()] == [bad.path.name]


@pytest.mark.parametrize("part", ["encoder", "decoder", "combined"])
def test_verification_notices_other_weights(opened: OpenedCheckpoint, exported: Exported, part: Part) -> None:
    path = exported(part).path
    other = build_sam(opened.model.config.model_copy(update={"checkpoint": None})).eval()
    changed = OpenedCheckpoint(_nudged(opened.model, other), opened.path, "f" * 64, {})
    with pytest.raises(CheckpointError, match="another checkpoint"):
        verify_onnx(OnnxModel(path), changed)
    assert not verify_onnx(OnnxModel(path), changed, force=True).passed
    assert verify_onnx(OnnxModel(path), opened).passed


def _nudged(model: Sam, into: Sam) -> Sam:
    """``model`` with a bias of its encoder's last norm and one of its decoder moved a little."""
    into.load_state_dict(model.state_dict())
    with torch.no_grad():
        into.image_encoder.neck[-1].bias += 0.01
        into.mask_decoder.iou_prediction_head.layers[-1].bias += 0.01
    return into


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"opset": 17}, "Opset 17"),
        ({"parts": ["encoder"], "single_mask": True}, "no masks"),
        ({"parts": ["decoder"], "preprocessing": True}, "no images"),
        ({"preprocessing": True, "freedom": Freedom(dynamic_batch=True)}, "one by one"),
    ],
)
def test_options_that_cannot_be(opened: OpenedCheckpoint, tmp_path: Path, changes: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(UsageError, match=message):
        export_onnx(opened, ExportOptions(tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_kept(opened: OpenedCheckpoint, tmp_path: Path) -> None:
    (tmp_path / "vit_nano_encoder.onnx").write_text("mine")
    with pytest.raises(UsageError, match="there already"):
        export_onnx(opened, ExportOptions(tmp_path))
    assert (tmp_path / "vit_nano_encoder.onnx").read_text() == "mine"
