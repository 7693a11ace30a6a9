"""ONNX graphs with smaller numbers, by ``onnxruntime.quantization``."""

from __future__ import annotations

import io
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper
from onnx.helper import make_node
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
_CHOSEN = (*_WEIGHTED, "Gelu")
_CHANNELS_LAST, _CHANNELS_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]

GELU_SLOPE = 1.702
"""GELU(x) is near x sigmoid(1.702 x), by at most 0.021 (Hendrycks and Gimpel, 2016, arXiv 1606.08415)."""
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
    """Matrix products of an exported graph with int8 weights; activations are quantised as they come.

    Products are also what convolutions of 1 x 1 between channels-last values are. Others stay as they are: integer
    ones without static ranges are slow, or do not run at all.
    """
    graph = prepared(_with_products(graph))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dynamic.onnx"
        quantize_dynamic(graph, path, op_types_to_quantize=list(_PRODUCTS), per_channel=True)
        return _without_shapes(onnx.load(path))


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
    _gelu_of_bytes(quantised.graph)
    return _without_shapes(quantised)


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
    makers, takers = _makers(graph.graph), _takers(graph.graph)

    def is_chosen(node: onnx.NodeProto | None, *operators: str) -> bool:
        return node is not None and node.op_type in operators and node.name in chosen

    return [
        node.name
        for node in graph.graph.node
        if node.op_type == "Add"
        and all(is_chosen(makers.get(name), "Conv", "Gelu") for name in node.input)
        and all(is_chosen(taker, "Gelu") for taker in takers[node.output[0]])
    ]


def _gelu_of_bytes(graph: onnx.GraphProto) -> None:
    """Replace GELUs of quantised values by x sigmoid(1.702 x), whose two factors are quantised values as well."""
    values = {each.name: each for each in graph.initializer}
    makers = _makers(graph)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        source = makers.get(node.input[0]) if node.op_type == "Gelu" else None
        if source is None or source.op_type != "DequantizeLinear":
            nodes.append(node)
            continue
        integers, scale, zero = source.input
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


def _with_products(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with products in place of the convolutions of 1 x 1 whose input comes from, or output goes to, values
    with their channels last."""
    changed = onnx.ModelProto()
    changed.CopyFrom(graph)
    values = {each.name: each for each in changed.graph.initializer}
    makers, takers = _makers(changed.graph), _takers(changed.graph)
    nodes: list[onnx.NodeProto] = []
    for node in changed.graph.node:
        after = takers[node.output[0]]
        beside = _permutes(makers.get(node.input[0]), _CHANNELS_FIRST) or (
            bool(after) and all(_permutes(taker, _CHANNELS_LAST) for taker in after)
        )
        weight = values.get(node.input[1]) if node.op_type == "Conv" else None
        if weight is None or not beside or not _is_pointwise(node, weight):
            nodes.append(node)
            continue
        name = node.name
        matrix = numpy_helper.to_array(weight)[:, :, 0, 0].T
        changed.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(matrix), f"{name}_matrix"))
        biased = len(node.input) > 2
        product = f"{name}_product" if biased else f"{name}_last"
        nodes += [
            make_node("Transpose", [node.input[0]], [f"{name}_given"], f"{name}_given", perm=_CHANNELS_LAST),
            make_node("MatMul", [f"{name}_given", f"{name}_matrix"], [product], name),
            *([make_node("Add", [product, node.input[2]], [f"{name}_last"], f"{name}_sum")] if biased else []),
            make_node("Transpose", [f"{name}_last"], [node.output[0]], f"{name}_first", perm=_CHANNELS_FIRST),
        ]
        if len(takers[node.input[1]]) == 1:
            changed.graph.initializer.remove(weight)
    del changed.graph.node[:]
    changed.graph.node.extend(nodes)
    return changed


def _is_pointwise(node: onnx.NodeProto, weight: onnx.TensorProto) -> bool:
    given = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    plain = given.get("group", 1) == 1 and set(given.get("strides", [1])) == {1} and not any(given.get("pads", []))
    return plain and list(weight.dims[2:]) == [1, 1]


def _permutes(node: onnx.NodeProto | None, order: list[int]) -> bool:
    return (
        node is not None
        and node.op_type == "Transpose"
        and any(list(each.ints) == order for each in node.attribute if each.name == "perm")
    )


def _without_shapes(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph without what the quantiser had to know and any runtime finds out: it is a few percent of the size."""
    del graph.graph.value_info[:]
    return graph


def _makers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in graph.node for name in node.output}


def _takers(graph: onnx.GraphProto) -> defaultdict[str, list[onnx.NodeProto]]:
    found: defaultdict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            found[name].append(node)
    return found


class _One(CalibrationDataReader):
    """A reader of a single feed."""

    def __init__(self, feed: Mapping[str, np.ndarray]) -> None:
        self._feed: Any = feed

    def get_next(self) -> Any:
        feed, self._feed = self._feed, None
        return feed
