"""What an exported file says of itself, in the file."""

from __future__ import annotations

import onnx

from mobilesam_core.runtime.facts import ModelFacts


def describe(graph: onnx.ModelProto, facts: ModelFacts) -> None:
    """Write ``facts`` into the graph's metadata."""
    onnx.helper.set_model_props(graph, facts.to_metadata())
    graph.producer_name, graph.doc_string = "mobilesam", ""
