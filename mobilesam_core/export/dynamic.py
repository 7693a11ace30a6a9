"""An ONNX graph with the weights of its matrix products in int8."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.helper import make_node
from onnxruntime.quantization import quantize_dynamic

from mobilesam_core.export.rewriting import makers_of, prepared, takers_of, without_shapes

_CHANNELS_LAST, _CHANNELS_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


def to_dynamic(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Matrix products of an exported graph with int8 weights; activations are quantised as they come.

    Products are also what convolutions of 1 x 1 between channels-last values are. Others stay as they are: integer
    ones without static ranges are slow, or do not run at all.
    """
    graph = prepared(_with_products(graph))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dynamic.onnx"
        quantize_dynamic(graph, path, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True)
        return without_shapes(onnx.load(path))


def _with_products(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with products in place of the convolutions of 1 x 1 whose input comes from, or output goes to, values
    with their channels last."""
    changed = onnx.ModelProto()
    changed.CopyFrom(graph)
    values = {each.name: each for each in changed.graph.initializer}
    makers, takers = makers_of(changed.graph), takers_of(changed.graph)
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
