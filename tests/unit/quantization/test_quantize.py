from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnxruntime.quantization.calibrate import MinMaxCalibrater
from PIL import Image

from mobilesam_core.config.data import ShapesConfig
from mobilesam_core.data.sample import SampleSource
from mobilesam_core.data.shapes import ShapesSource
from mobilesam_core.errors import CheckpointError, DataError, UsageError
from mobilesam_core.export.dynamic import to_dynamic
from mobilesam_core.export.rewriting import prepared
from mobilesam_core.quantization import workflow
from mobilesam_core.quantization.graphs import (
    Calibrated,
    calibrate,
    is_quantised,
    quantisable,
    static,
)
from mobilesam_core.quantization.images import ImageFiles
from mobilesam_core.quantization.images import chosen as chosen_images
from mobilesam_core.quantization.report import BeforeAfter, QuantizationReport, Sensitivity
from mobilesam_core.quantization.workflow import Model, QuantizeOptions, open_model, quantize
from mobilesam_core.runtime.onnx_session import OnnxModel
from mobilesam_core.runtime.preprocess import encoder_input

QUICK = QuantizeOptions(calibration_images=4, evaluation_images=3, max_drop=100.0, sensitivity=False)


@pytest.fixture(scope="module")
def folder(exported_nano: Path) -> Path:
    return exported_nano


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Path:
    return folder / "nano_encoder.onnx"


@pytest.fixture(scope="module")
def model(encoder: Path) -> Model:
    return open_model(encoder, None, "static")


@pytest.fixture(scope="module")
def labelled() -> SampleSource:
    return ShapesSource(ShapesConfig(format="shapes", domains=("polygons", "heap"), count=6, size=128, seed=9))


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    source = ShapesSource(ShapesConfig(format="shapes", domains=("polygons", "heap"), count=6, size=128, seed=4))
    return [source[i].image for i in range(6)]


def test_the_other_half_is_found_beside(model: Model, folder: Path) -> None:
    assert model.other.path == folder / "nano_decoder_batched.onnx"
    assert open_model(model.other.path, None, "fp16").other.path == model.path


@pytest.mark.parametrize("mode", ["static", "dynamic", "fp16"])
def test_every_mode_gives_a_file_that_runs_and_says_what_it_is(
    model: Model, labelled: SampleSource, images: list[np.ndarray], tmp_path: Path, mode: workflow.Mode
) -> None:
    out = tmp_path / "small.onnx"
    report = quantize(model, out, replace(QUICK, mode=mode), labelled, images)
    assert report.path == out and report.passed
    assert out.stat().st_size == report.size.after < 0.8 * report.size.before
    facts = OnnxModel(out).facts
    assert facts.precision == ("fp16" if mode == "fp16" else "int8")
    assert replace(facts, precision="fp32") == model.original.facts
    assert report.cosine > 0.97
    assert report.miou.keys() == {"box", "point"}
    assert all(each.before > 40 for each in report.miou.values())
    assert is_quantised(onnx.load(out)) == (mode != "fp16")
    (embedding,) = ort.InferenceSession(str(out)).run(None, {"input_image": np.zeros((1, 3, 128, 128), np.float32)})
    assert embedding.dtype == np.float32
    onnx.checker.check_model(onnx.load(out))
    with pytest.raises(CheckpointError, match="quantised already"):
        open_model(out, model.other.path, "dynamic")


@pytest.mark.parametrize("mode", ["dynamic", "fp16"])
def test_a_decoder_can_be_quantised_too(
    folder: Path, labelled: SampleSource, tmp_path: Path, mode: workflow.Mode
) -> None:
    decoder = open_model(folder / "nano_decoder_batched.onnx", None, mode)
    report = quantize(decoder, tmp_path / "small.onnx", replace(QUICK, mode=mode), labelled)
    assert report.size.after < report.size.before
    assert report.cosine > 0.98 and report.drop < 3


def _calibrated(model: Model, images: list[np.ndarray]) -> Calibrated:
    feeds = ({"input_image": encoder_input(model.original.facts, image)} for image in images[:2])
    return calibrate(prepared(onnx.load(model.path)), feeds, "minmax")


def test_gelu_of_bytes_is_a_steeper_sigmoid_times_its_input(model: Model, images: list[np.ndarray]) -> None:
    calibrated = _calibrated(model, images)
    graph = static(calibrated, ["Gelu_1", "Gelu_5"])
    left = [node.name for node in graph.graph.node if node.op_type == "Gelu"]
    assert sorted(left) == ["Gelu_1", "Gelu_5"], (
        "those that are excluded stay, though convolutions around are quantised"
    )
    (product,) = (node for node in graph.graph.node if node.name == "Gelu_2")
    outputs = [product.input[0], "Gelu_2_in", "Gelu_2_factor", product.output[0]]
    del graph.graph.output[:]
    graph.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in outputs)
    session = ort.InferenceSession(graph.SerializeToString())
    feed = {"input_image": encoder_input(model.original.facts, images[3])}
    x, steeper, factor, gelu = session.run(outputs, feed)
    assert np.abs(x).max() > 1
    np.testing.assert_allclose(steeper, 1.702 * x, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(factor, 1 / (1 + np.exp(-1.702 * x)), atol=1.01 / 256)
    exact = 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    np.testing.assert_allclose(gelu, exact, atol=0.025 + np.abs(x).max() / 256)


def test_dynamic_counts_layers_that_were_exported_as_convolutions(encoder: Path) -> None:
    operators = [node.op_type for node in onnx.load(encoder).graph.node]
    changed = to_dynamic(onnx.load(encoder))
    pointwise = [
        node
        for node in changed.graph.node
        if node.op_type == "Conv" and not any(a.name == "group" and a.i > 1 for a in node.attribute)
    ]
    blocks = operators.count("Softmax")
    # Of every block of attention five layers with weights and two of its MLP; and at least three between the stages.
    assert sum(node.op_type == "MatMulInteger" for node in changed.graph.node) >= 6 * blocks + 3
    assert len(pointwise) < operators.count("Conv") - 2 * blocks


def test_only_what_has_weights_is_quantised(model: Model, images: list[np.ndarray]) -> None:
    calibrated = _calibrated(model, images)
    graph = static(calibrated)
    makers = {output: node.op_type for node in graph.graph.node for output in node.output}
    chosen = quantisable(calibrated.graph)
    products = 0
    for node in graph.graph.node:
        if node.name in chosen:
            assert [makers.get(name) for name in node.input[:2]] == ["DequantizeLinear"] * 2
        elif node.op_type in ("MatMul", "Softmax"):
            assert "DequantizeLinear" not in {makers.get(name) for name in node.input}
        if node.name in chosen and node.op_type != "Conv":
            products += 1
    assert products > 15 and len(chosen) > products
    assert not [node for node in graph.graph.node if node.op_type == "Gelu"]
    takers = {name: node.op_type for node in graph.graph.node for name in node.input}
    within = [
        node.name
        for node in graph.graph.node
        if node.op_type == "Add"
        and {makers.get(name) for name in node.input} == {"DequantizeLinear"}
        and takers[node.output[0]] == "QuantizeLinear"
    ]
    assert len(within) == 4, "one in each of the two blocks of convolutions, and the last of two stages"
    spared = static(calibrated, chosen[:1])
    (node,) = (each for each in spared.graph.node if each.name == chosen[0])
    makers = {output: each.op_type for each in spared.graph.node for output in each.output}
    assert makers.get(node.input[1]) != "DequantizeLinear"


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_other_ways_to_choose_ranges(
    model: Model, labelled: SampleSource, images: list[np.ndarray], tmp_path: Path, method: str
) -> None:
    options = replace(QUICK, method=method, calibration_images=2)  # type: ignore[arg-type]
    assert quantize(model, tmp_path / "small.onnx", options, labelled, images).cosine > 0.9


def test_calibration_holds_one_image_at_a_time(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    seen: list[int] = []

    class Watched:
        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: int) -> np.ndarray:
            read.append(index)
            return np.random.default_rng(index).integers(0, 255, (40, 50, 3), np.uint8)

    collect = MinMaxCalibrater.collect_data

    def watch(self: MinMaxCalibrater, reader: object) -> None:
        seen.append(len(read))
        collect(self, reader)

    monkeypatch.setattr(MinMaxCalibrater, "collect_data", watch)
    feeds = ({"input_image": encoder_input(model.original.facts, image)} for image in chosen_images(Watched(), 5))
    calibrate(prepared(onnx.load(model.path)), feeds, "minmax")
    assert seen == [1, 2, 3, 4, 5]


def test_what_loses_too_much_is_mended_or_does_not_get_its_name(
    model: Model, labelled: SampleSource, images: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([80.0, 20.0, 30.0, 79.5])  # as it was, all, without one node, without two
    monkeypatch.setattr(workflow, "miou_of", lambda *_: ({"box": next(losses), "point": 0.0}, 7))
    monkeypatch.setattr(workflow, "_sensitivity", _made_up)
    options = replace(QUICK, max_drop=1.0, overwrite=True)
    out = tmp_path / "small.onnx"
    report = quantize(model, out, options, labelled, images)
    assert report.passed and report.path == out
    assert len(report.excluded) == 2  # one was not enough
    assert report.excluded == tuple(each.node for each in report.sensitivity[:2])

    losses = iter([80.0, *[10.0] * 20])
    rejected = quantize(model, out, options, labelled, images)
    assert not rejected.passed and rejected.drop == 70.0
    assert [path.name for path in tmp_path.iterdir()] == ["small.rejected.onnx"]


def _made_up(model: Model, calibrated: Calibrated, *_: object) -> list[Sensitivity]:
    return [Sensitivity(name, "Conv", 0.1) for name in quantisable(calibrated.graph)]


def test_sensitivity_names_every_node_once(
    model: Model, labelled: SampleSource, images: list[np.ndarray], tmp_path: Path
) -> None:
    options = replace(QUICK, sensitivity=True, exclude=("Conv_1*",), calibration_images=2)
    report = quantize(model, tmp_path / "small.onnx", options, labelled, images)
    losses = [each.loss for each in report.sensitivity]
    assert losses == sorted(losses, reverse=True) and losses[0] > 0
    assert len({each.node for each in report.sensitivity}) == len(losses) > 20
    assert report.excluded and set(report.excluded) < {each.node for each in report.sensitivity}
    assert f"| {report.sensitivity[0].node} |" in report.to_markdown()


def test_a_report_counts_the_prompt_that_lost_most() -> None:
    figures = {"box": BeforeAfter(80, 79.8), "point": BeforeAfter(70, 68)}
    size, latency = BeforeAfter(100, 30), BeforeAfter(20, 10)
    report = QuantizationReport(Path("x.onnx"), "dynamic", size, latency, 0.99, figures, 5, (), (), 1.0)
    assert report.drop == 2 and not report.passed and report.speedup == 2
    assert "REJECTED" in report.to_markdown()
    assert replace(report, max_drop=2.0).passed


def test_bad_input(
    model: Model, folder: Path, labelled: SampleSource, images: list[np.ndarray], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="differ from prompt to prompt"):
        open_model(model.other.path, None, "static")
    with pytest.raises(UsageError, match="No node is called 'nothing'"):
        quantize(model, tmp_path / "a.onnx", replace(QUICK, exclude=("nothing",)), labelled, images)
    with pytest.raises(DataError, match="one colour"):
        quantize(model, tmp_path / "a.onnx", QUICK, labelled, [np.full((9, 9, 3), v, np.uint8) for v in (0, 255)])
    with pytest.raises(DataError, match="no image"):
        quantize(model, tmp_path / "a.onnx", QUICK, labelled, ImageFiles([], 3))
    Image.new("RGB", (8, 8)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:40])
    with pytest.raises(DataError, match=r"cut\.png"):
        quantize(model, tmp_path / "a.onnx", QUICK, labelled, ImageFiles([tmp_path / "cut.png"], 3))
    assert [path.name for path in tmp_path.iterdir()] == ["cut.png"]
    with pytest.raises(UsageError, match="one of the two models"):
        quantize(model, model.path, replace(QUICK, overwrite=True), labelled, images)
    with pytest.raises(UsageError, match="nothing is left"):
        quantize(model, tmp_path / "a.onnx", replace(QUICK, exclude=("*",)), labelled, images)
    with pytest.raises(UsageError, match=r"end in \.onnx"):
        quantize(model, tmp_path / "a.json", QUICK, labelled, images)
    (tmp_path / "a.onnx").write_text("mine")
    with pytest.raises(UsageError, match="there already"):
        quantize(model, tmp_path / "a.onnx", QUICK, labelled, images)
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "e.onnx").write_bytes(model.path.read_bytes())
    with pytest.raises(UsageError, match="holds no decoder of the same checkpoint"):
        open_model(alone / "e.onnx", None, "static")
