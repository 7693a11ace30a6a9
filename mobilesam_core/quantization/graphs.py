"""ONNX graphs with smaller numbers, by ``onnxruntime.quantization``."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Collection, Iterable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.helper import make_node
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import CalibrationDataReader, TensorsData, create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from mobilesam_core.export.rewriting import makers_of, takers_of, without_shapes

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
_CHOSEN = (*_WEIGHTED, "Gelu")

GELU_SLOPE = 1.702
"""GELU(x) is near x sigmoid(1.702 x), by at most 0.021 (Hendrycks and Gimpel, 2016, arXiv 1606.08415)."""
_QUANTISED = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"}


def is_quantised(graph: onnx.ModelProto) -> bool:
    """Whether a graph holds integers in place of weights already."""
    return any(node.op_type in _QUANTISED for node in graph.graph.node)


@dataclass(frozen=True)
class Calibrated:
    """A prepared graph and the ranges of its activations."""

    graph: onnx.ModelProto
    ranges: TensorsData


def calibrate(graph: onnx.ModelProto, feeds: Iterable[Mapping[str, np.ndarray]], method: Method) -> Calibrated:
    """Measure the activations of a :func:`prepared` graph on ``feeds``, one of them in memory at a time."""
    # What the calibrator prints is not ours to say; our own output may be a JSON document.
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        path = Path(folder) / "prepared.onnx"
        onnx.save(graph, path)
        calibrator = create_calibrator(
            path,
            list(_CHOSEN),
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=_METHODS[method],
            extra_options=_RANGES.get(method, {}),
        )
        for feed in feeds:
            # Of histograms the calibrator keeps every activation it has seen in one call.
            calibrator.collect_data(_One(feed))
        return Calibrated(graph, calibrator.compute_data())


def static(calibrated: Calibrated, exclude: Collection[str] = ()) -> onnx.ModelProto:
    """Convolutions, matrix products with weights and GELUs in int8, but for the nodes ``exclude``; activations uint8.

    What comes out of products stays in float32, unless a GELU takes it: the norm or the sum behind them want that, and
    a quantiser's way out and in again would cost what the product gains. GELU becomes :data:`GELU_SLOPE`'s, of a table
    and a product of bytes; the way to float32 and back took longer than all convolutions. Sums that only GELUs take
    are quantised with them. Whatever else reads the input of a quantised node reads the quantised one. Weights take all
    8 bits: processors without integer dot products (x86 before VNNI) may saturate, and lose more.
    """
    graph = onnx.ModelProto()
    graph.CopyFrom(calibrated.graph)
    chosen = {node for node in quantisable(graph) if node not in exclude}
    quantizer = QDQQuantizer(
        graph,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=calibrated.ranges,
        nodes_to_quantize=[*chosen, *_sums_between(graph, chosen)],
        nodes_to_exclude=[],
        op_types_to_quantize=[*_CHOSEN, "Add"],
        extra_options={"OpTypesToExcludeOutputQuantization": list(_PRODUCTS)},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantised: onnx.ModelProto = quantizer.model.model
    _gelu_of_bytes(quantised.graph, chosen)
    return without_shapes(quantised)


def quantisable(graph: onnx.ModelProto) -> list[str]:
    """The names of convolutions, of matrix products with a weight, and of GELUs, in the graph's order."""
    weights = {each.name for each in graph.graph.initializer}
    return [
        node.name
        for node in graph.graph.node
        if node.op_type == "Gelu" or (node.op_type in _WEIGHTED and node.input[1] in weights)
    ]


def _sums_between(graph: onnx.ModelProto, chosen: Collection[str]) -> list[str]:
    """Sums of what ``chosen`` nodes give, which none but ``chosen`` GELUs take."""
    makers, takers = makers_of(graph.graph), takers_of(graph.graph)

    def is_chosen(node: onnx.NodeProto | None, *operators: str) -> bool:
        return node is not None and node.op_type in operators and node.name in chosen

    return [
        node.name
        for node in graph.graph.node
        if node.op_type == "Add"
        and all(is_chosen(makers.get(name), "Conv", "Gelu") for name in node.input)
        and all(is_chosen(taker, "Gelu") for taker in takers[node.output[0]])
    ]


def _gelu_of_bytes(graph: onnx.GraphProto, chosen: Collection[str]) -> None:
    """Replace the ``chosen`` GELUs, whose inputs are quantised, by x sigmoid(1.702 x), whose two factors are quantised
    values as well."""
    values = {each.name: each for each in graph.initializer}
    makers = makers_of(graph)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "Gelu" or node.name not in chosen:
            nodes.append(node)
            continue
        integers, scale, zero = makers[node.input[0]].input
        name = node.name
        steeper = GELU_SLOPE * numpy_helper.to_array(values[scale])
        graph.initializer.extend(
            numpy_helper.from_array(value, f"{name}_{suffix}")
            for suffix, value in (
                ("slope", steeper.astype(np.float32)),
                ("step", np.float32(1 / 256)),
                ("zero", np.uint8(0)),
            )
        )
        step = [f"{name}_step", f"{name}_zero"]
        nodes += [
            make_node("DequantizeLinear", [integers, f"{name}_slope", zero], [f"{name}_in"], f"{name}_in"),
            make_node("Sigmoid", [f"{name}_in"], [f"{name}_sigmoid"], f"{name}_sigmoid"),
            make_node("QuantizeLinear", [f"{name}_sigmoid", *step], [f"{name}_bytes"], f"{name}_bytes"),
            make_node("DequantizeLinear", [f"{name}_bytes", *step], [f"{name}_factor"], f"{name}_factor"),
            make_node("Mul", [node.input[0], f"{name}_factor"], [node.output[0]], name),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


class _One(CalibrationDataReader):
    """A reader of a single feed."""

    def __init__(self, feed: Mapping[str, np.ndarray]) -> None:
        self._feed: Any = feed

    def get_next(self) -> Any:
        feed, self._feed = self._feed, None
        return feed
