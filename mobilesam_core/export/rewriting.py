"""What rewriting an ONNX graph takes."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path

import onnx
import onnxruntime as ort


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


def without_shapes(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph without what the quantiser had to know and any runtime finds out: it is a few percent of the size."""
    del graph.graph.value_info[:]
    return graph


def makers_of(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """The node that makes each value."""
    return {name: node for node in graph.node for name in node.output}


def takers_of(graph: onnx.GraphProto) -> defaultdict[str, list[onnx.NodeProto]]:
    """The nodes that take each value."""
    found: defaultdict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            found[name].append(node)
    return found
