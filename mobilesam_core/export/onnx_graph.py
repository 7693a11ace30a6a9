"""From a part of a model to an ONNX graph: the one place that knows torch's exporter."""

from __future__ import annotations

import logging
import math
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from posixpath import commonpath
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnx.helper import make_node
from torch import Tensor, nn

from mobilesam_core.errors import UsageError
from mobilesam_core.export.blocks import deployed
from mobilesam_core.export.graphs import IR_VERSION, join, preprocessing_graph, restoring_graph
from mobilesam_core.export.parts import CombinedPart, DecoderPart, EncoderPart
from mobilesam_core.models.mask_decoder import NUM_MASKS
from mobilesam_core.models.sam import Sam
from mobilesam_core.runtime.facts import ModelFacts

DEFAULT_OPSET = 20
"""From 20 on GELU is one operator, which runtimes compute faster and quantisers leave whole."""
OPSETS = range(18, 24)
"""torch's exporter begins at 18, the first that can resize as PIL does; ONNX Runtime is tried up to 23."""

MAX_POINTS = 4096  # a bound that the exporter wants to know
_TABLE = 1024  # numbers from which on a constant is worth a node of its own


@dataclass(frozen=True)
class Freedom:
    """Which sizes of an exported graph stay free: the batch of images, and the tokens of a prompt (None: free)."""

    dynamic_batch: bool = False
    num_points: int | None = None


def build_graph(model: Sam, facts: ModelFacts, freedom: Freedom, opset: int) -> onnx.ModelProto:
    """The graph, in float32, of the part of ``model`` that ``facts`` describe.

    Raises:
        UsageError: its weights do not fit into one ONNX file.
    """
    return (_encoder if facts.part == "encoder" else _masks)(model, facts, freedom, opset)


def _encoder(model: Sam, facts: ModelFacts, freedom: Freedom, opset: int) -> onnx.ModelProto:
    batch = _free("batch", 64) if freedom.dynamic_batch else None
    name = "normalised_image" if facts.preprocessing else "input_image"
    image = _Input(name, _image(facts, 2 if batch else 1), {0: batch} if batch else {})
    graph = _export(EncoderPart(model), [image], ["image_embeddings"], opset)
    return join(preprocessing_graph(facts, opset), graph, ["image_embeddings"]) if facts.preprocessing else graph


def _masks(model: Sam, facts: ModelFacts, freedom: Freedom, opset: int) -> onnx.ModelProto:
    combined = facts.part == "combined"
    batch = _free("num_prompts", MAX_POINTS) if facts.style == "batched" else None
    # Examples of 3 and 5, since sizes of 1 are taken for constants.
    count, points, side = 3 if batch else 1, freedom.num_points or 5, 4 * facts.grid_size
    first = {0: batch} if batch else {}
    tokens = first if freedom.num_points else {**first, 1: _free("num_points", MAX_POINTS)}
    if combined:
        source = _Input("normalised_image" if facts.preprocessing else "input_image", _image(facts, 1))
    else:
        source = _Input("image_embeddings", torch.zeros(1, facts.embed_dim, facts.grid_size, facts.grid_size))
    inputs = [
        source,
        _Input("frame_coords" if facts.preprocessing else "point_coords", torch.zeros(count, points, 2), tokens),
        _Input("point_labels", torch.ones(count, points), tokens),
        _Input("mask_input", torch.zeros(count, 1, side, side), first),
        _Input("has_mask_input", torch.zeros(count), first),
    ]
    part = CombinedPart(model, facts.single_mask) if combined else DecoderPart(model, facts.single_mask)
    outputs = ["low_res_masks", "iou_predictions"]
    graph = _export(part, inputs, outputs, opset)
    if facts.style == "official":
        outputs = ["masks", "iou_predictions", "low_res_masks"]
        graph = join(graph, restoring_graph(facts, opset, 1 if facts.single_mask else NUM_MASKS), outputs)
    if facts.preprocessing:
        graph = join(preprocessing_graph(facts, opset, _shape(graph, "frame_coords")), graph, outputs)
    return graph


@dataclass(frozen=True)
class _Input:
    """An input's name, an example of it, and which of its dimensions are free."""

    name: str
    example: Tensor
    free: dict[int, torch.export.Dim] = field(default_factory=dict)


def _export(part: nn.Module, inputs: list[_Input], outputs: list[str], opset: int) -> onnx.ModelProto:
    size = sum(value.numel() * value.element_size() for value in part.parameters())
    if size > onnx.checker.MAXIMUM_PROTOBUF:
        raise UsageError(
            f"This part has {size / 2**30:.1f} GiB of weights; one ONNX file holds 2 GiB.", "Export a smaller model."
        )
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), deployed(part), _plain_attention(part):
            warnings.simplefilter("ignore")  # of torch and onnxscript about themselves
            program = torch.onnx.export(
                part,
                tuple(each.example for each in inputs),
                dynamo=True,
                opset_version=opset,
                input_names=[each.name for each in inputs],
                output_names=outputs,
                dynamic_shapes=tuple(each.free for each in inputs),
                external_data=False,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    assert program is not None
    graph = program.model_proto
    for each in inputs:  # code that looks at a size makes torch take it for a constant, without a word
        assert all(isinstance(_shape(graph, each.name)[d], str) for d in each.free), f"{each.name} is not free"
    graph.ir_version = IR_VERSION
    # Where in the sources each operator came from: as large as a small model, and full of paths of this machine.
    for value in [graph.graph, *graph.graph.node, *graph.graph.input, *graph.graph.output, *graph.graph.value_info]:
        del value.metadata_props[:]
    _shorten_names(graph.graph)
    _share_constants(graph.graph)
    _shrink_tables(graph.graph)
    # The exporter's names count everything it ever looked at: another export would have others.
    counts: Counter[str] = Counter()
    for node in graph.graph.node:
        counts[node.op_type] += 1
        node.name = f"{node.op_type}_{counts[node.op_type]}"
    return graph


def _shorten_names(graph: onnx.GraphProto) -> None:
    """Weights without what all of their names begin with; quantisers repeat a name up to five times."""
    weights = [each.name for each in graph.initializer if each.name.endswith((".weight", ".bias"))]
    begin = commonpath(name.replace(".", "/") for name in weights).replace("/", ".") + "."
    for value in graph.initializer:
        value.name = value.name.removeprefix(begin)
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = name.removeprefix(begin)


def _share_constants(graph: onnx.GraphProto) -> None:
    """Keep one of equal constants: every block of attention has the same table of places in its window."""
    kept: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    same: dict[str, str] = {}
    for value in list(graph.initializer):
        content = (value.data_type, tuple(value.dims), numpy_helper.to_array(value).tobytes())
        name = kept.setdefault(content, value.name)
        if name != value.name:
            same[value.name] = name
            graph.initializer.remove(value)
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = same.get(name, name)


def _shrink_tables(graph: onnx.GraphProto) -> None:
    """Store tables of indices in as few bytes as they need; runtimes widen them when they load the graph."""
    for value in list(graph.initializer):
        if value.data_type != onnx.TensorProto.INT64 or math.prod(value.dims) < _TABLE:
            continue
        table = numpy_helper.to_array(value)
        if table.min() < 0:  # counted from the end: no unsigned number says that
            continue
        graph.initializer.remove(value)
        small = f"{value.name}_small"
        graph.initializer.append(numpy_helper.from_array(table.astype(np.min_scalar_type(table.max())), small))
        graph.node.insert(0, make_node("Cast", [small], [value.name], to=onnx.TensorProto.INT64))


@contextmanager
def _plain_attention(part: nn.Module) -> Iterator[None]:
    """SAM's attention as products and a softmax: of the fused kernel torch's exporter mistakes the layout."""
    fused: list[Any] = [module for module in part.modules() if getattr(module, "fused_attn", False)]
    for module in fused:
        module.fused_attn = False
    try:
        yield
    finally:
        for module in fused:
            module.fused_attn = True


def _free(name: str, largest: int) -> torch.export.Dim:
    return torch.export.Dim(name, min=1, max=largest)


def _image(facts: ModelFacts, count: int) -> Tensor:
    return torch.zeros(count, len(facts.pixel_mean), facts.image_size, facts.image_size)


def _shape(graph: onnx.ModelProto, name: str) -> list[str | int]:
    """The dimensions of an input, by name where they are free."""
    value = next(each for each in graph.graph.input if each.name == name)
    return [each.dim_param or each.dim_value for each in value.type.tensor_type.shape.dim]
