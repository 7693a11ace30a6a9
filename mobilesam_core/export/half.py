"""An ONNX graph in float16."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16


def to_half(graph: onnx.ModelProto) -> onnx.ModelProto:
    """``graph`` with weights and arithmetic in float16; what goes in and comes out stays as it was.

    What places points and pixels stays in float32: a coordinate of 1023.5 has no float16, nor has its phase.
    """
    blocked = {node.name for node in _leading_to(graph, {"Sin", "Cos"})}
    blocked |= {node.name for node in graph.graph.node if node.name.startswith(("preprocessing/", "restoring/"))}
    half = ONNXModel(
        convert_float_to_float16(
            graph,
            keep_io_types=True,
            op_block_list=[*DEFAULT_OP_BLOCK_LIST, "Resize"],
            node_block_list=sorted(blocked),
        )
    )
    half.topological_sort()  # the casts come last
    return half.model


def _leading_to(graph: onnx.ModelProto, operators: Iterable[str]) -> list[onnx.NodeProto]:
    """The nodes of these operators, and all that their inputs are computed by."""
    wanted = set(operators)
    makers = {output: node for node in graph.graph.node for output in node.output}
    found: dict[str, onnx.NodeProto] = {}
    queue = [node for node in graph.graph.node if node.op_type in wanted]
    while queue:
        node = queue.pop()
        if node.name not in found:
            found[node.name] = node
            queue += [makers[name] for name in node.input if name in makers]
    return list(found.values())
