"""ONNX graphs with smaller numbers, by ``onnxruntime.quantization``."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_dynamic
from onnxruntime.quantization.calibrate import CalibrationDataReader, TensorsData, create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

Method = Literal["minmax", "entropy", "percentile"]

_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
# Entropy chooses among ranges of at least 128 bins, of which its default has no more; activations are not symmetric.
_RANGES: dict[str, dict[str, Any]] = {"entropy": {"num_bins": 512}, "percentile": {"symmetric": False}}
_PRODUCTS = ("MatMul", "Gemm")
_WEIGHTED = ("Conv", *_PRODUCTS)
_QUANTISED = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"}


def is_quantised(graph: onnx.ModelProto) -> bool:
    """Whether a graph holds integers in place of weights already."""
    return any(node.op_type in _QUANTISED for node in graph.graph.node)


def prepared(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with products and sums of biases joined, and every shape known.

    Constants are not folded: tables of attention biases are an eighth of the size while they are looked up.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prepared.onnx"
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 3
        ort.InferenceSession(graph.SerializeToString(), options, disabled_optimizers=["ConstantFolding"])
        ready = onnx.shape_inference.infer_shapes(onnx.load(path))
    onnx.helper.set_model_props(ready, {"onnx.quant.pre_process": "onnxruntime.quant"})  # else the quantiser warns
    return ready


def dynamic(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Matrix products of a :func:`prepared` graph with int8 weights; activations are quantised as they come.

    Convolutions stay as they are: integer ones without static ranges are slow, or do not run at all.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dynamic.onnx"
        quantize_dynamic(graph, path, op_types_to_quantize=list(_PRODUCTS), per_channel=True)
        return onnx.load(path)


@dataclass(frozen=True)
class Calibrated:
    """A prepared graph and the ranges of its activations."""

    graph: onnx.ModelProto
    ranges: TensorsData


def calibrate(graph: onnx.ModelProto, feeds: Iterator[Mapping[str, np.ndarray]], method: Method) -> Calibrated:
    """Measure the activations of a :func:`prepared` graph on ``feeds``, one of them in memory at a time."""
    # What the calibrator prints is not ours to say; our own output may be a JSON document.
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        path = Path(folder) / "prepared.onnx"
        onnx.save(graph, path)
        calibrator = create_calibrator(
            path,
            list(_WEIGHTED),
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=_METHODS[method],
            extra_options=_RANGES.get(method, {}),
        )
        for feed in feeds:
            # Of histograms the calibrator keeps every activation it has seen in one call.
            calibrator.collect_data(_One(feed))
        return Calibrated(graph, calibrator.compute_data())


def static(calibrated: Calibrated, exclude: Collection[str] = ()) -> onnx.ModelProto:
    """Convolutions and matrix products with weights in int8 and activations in uint8, but for the nodes ``exclude``.

    Only products with a weight are quantised, and what comes out of them stays in float32, which the activation, the
    norm or the sum behind them want: a quantiser's way out and in again would cost what the product gains. Whatever
    else reads the input of a quantised node reads the quantised one. Weights take all 8 bits: processors without
    integer dot products (x86 before VNNI) may saturate, and lose more.
    """
    graph = onnx.ModelProto()
    graph.CopyFrom(calibrated.graph)
    chosen = [node for node in quantisable(graph) if node not in exclude]
    quantizer = QDQQuantizer(
        graph,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=calibrated.ranges,
        nodes_to_quantize=chosen,
        nodes_to_exclude=[],
        op_types_to_quantize=list(_WEIGHTED),
        extra_options={"OpTypesToExcludeOutputQuantization": list(_PRODUCTS)},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantised: onnx.ModelProto = quantizer.model.model
    return quantised


def quantisable(graph: onnx.ModelProto) -> list[str]:
    """The names of convolutions and of matrix products with a weight, in the graph's order."""
    weights = {each.name for each in graph.graph.initializer}
    return [node.name for node in graph.graph.node if node.op_type in _WEIGHTED and node.input[1] in weights]


class _One(CalibrationDataReader):
    """A reader of a single feed."""

    def __init__(self, feed: Mapping[str, np.ndarray]) -> None:
        self._feed: Any = feed

    def get_next(self) -> Any:
        feed, self._feed = self._feed, None
        return feed
