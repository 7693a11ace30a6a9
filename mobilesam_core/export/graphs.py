"""What goes before and after the network, as ONNX graphs in ONNX's own text form.

Sizes that depend on the image are plain there, where torch's exporter would need them proven.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx.parser
from onnx import compose

from mobilesam_core.runtime.facts import ModelFacts

IR_VERSION = 10


def preprocessing_graph(
    facts: ModelFacts, opset: int, points_shape: Sequence[str | int] | None = None
) -> onnx.ModelProto:
    """``input_image`` ``(H, W, C)`` uint8 to ``normalised_image`` ``(1, C, S, S)`` float32.

    points_shape: of ``point_coords`` ``(B, N, 2)`` in pixels of the image, which then become ``frame_coords`` in pixels
    of the frame; the image's own size comes out as ``orig_im_size`` ``(2,)`` float32.
    """
    channels, side = len(facts.pixel_mean), facts.image_size
    inputs, outputs, constants, points = "", "", "", ""
    if points_shape is not None:
        shape = ", ".join(str(each) for each in points_shape)
        inputs = f", float[{shape}] point_coords"
        outputs = f", float[{shape}] frame_coords, float[2] orig_im_size"
        constants = ", int64[2] xy = {1, 0}"
        points = """
            stretch = Div(scaled_exact, size)
            stretch_xy = Gather(stretch, xy)
            stretch_float = Cast <to = 1> (stretch_xy)
            frame_coords = Mul(point_coords, stretch_float)
            orig_im_size = Cast <to = 1> (size)
        """
    return _parse(
        f"""
        preprocessing (uint8[height, width, {channels}] input_image{inputs})
            => (float[1, {channels}, {side}, {side}] normalised_image{outputs})
        <double side = {{{side}.0}}, double half = {{0.5}}, int64[2] one = {{1, 1}}, int64[1] batch = {{0}},
         int64[2] frame = {{{side}, {side}}}, int64[2] origin = {{0, 0}}, int64[2] axes = {{2, 3}}{constants},
         float[{channels}, 1, 1] mean = {_floats(facts.pixel_mean)},
         float[{channels}, 1, 1] std = {_floats(facts.pixel_std)}>
        {{
            {_SCALED.replace("<size>", "Shape <start = 0, end = 2> (input_image)")}
            planes = Transpose <perm = [2, 0, 1]> (input_image)
            image = Unsqueeze (planes, batch)
            resized = Resize <mode = "linear", antialias = 1, axes = [2, 3]> (image, , , scaled)
            pixels = Cast <to = 1> (resized)
            centred = Sub(pixels, mean)
            normalised = Div(centred, std)
            missing = Sub(frame, scaled)
            pads = Concat <axis = 0> (origin, missing)
            normalised_image = Pad(normalised, pads, , axes)
            {points}
        }}
        """,
        opset,
    )


def restoring_graph(facts: ModelFacts, opset: int, masks: int) -> onnx.ModelProto:
    """``low_res_masks`` ``(1, K, 4g, 4g)`` and ``orig_im_size`` ``(2,)`` (H, W) to ``masks`` ``(1, K, H, W)``.

    Bilinear to the frame, crop the padding, bilinear to the original size.
    """
    side, grid = facts.image_size, 4 * facts.grid_size
    return _parse(
        f"""
        restoring (float[1, {masks}, {grid}, {grid}] low_res_masks, float[2] orig_im_size)
            => (float[1, {masks}, height, width] masks)
        <double side = {{{side}.0}}, double half = {{0.5}}, int64[2] one = {{1, 1}}, int64[2] origin = {{0, 0}},
         int64[2] frame = {{{side}, {side}}}, int64[2] axes = {{2, 3}}>
        {{
            {_SCALED.replace("<size>", "Cast <to = 7> (orig_im_size)")}
            framed = Resize <mode = "linear", axes = [2, 3]> (low_res_masks, , , frame)
            cropped = Slice (framed, origin, scaled, axes)
            masks = Resize <mode = "linear", axes = [2, 3]> (cropped, , , size_int)
        }}
        """,
        opset,
    )


# From (H, W) to the image's height and width within the frame, as Frame.of computes them; in float64, where a
# float32 would round some sizes the other way.
_SCALED = """
            size_int = <size>
            size = Cast <to = 11> (size_int)
            longest = ReduceMax <keepdims = 0> (size)
            scale = Div(side, longest)
            scaled_real = Mul(size, scale)
            scaled_up = Add(scaled_real, half)
            scaled_int = Cast <to = 7> (scaled_up)
            scaled = Max(scaled_int, one)
            scaled_exact = Cast <to = 11> (scaled)
"""


def join(first: onnx.ModelProto, second: onnx.ModelProto, outputs: Sequence[str]) -> onnx.ModelProto:
    """One graph that feeds outputs of ``first`` into the inputs of ``second`` of the same names.

    outputs: what comes out, in this order; what is fed on may be among it.
    """
    given = {each.name: each for each in first.graph.output}
    shared = [each.name for each in second.graph.input if each.name in given]
    joined = compose.merge_models(first, second, io_map=[(name, name) for name in shared])
    given |= {each.name: each for each in joined.graph.output}
    del joined.graph.output[:]
    joined.graph.output.extend(given[name] for name in outputs)
    return joined


def _parse(text: str, opset: int) -> onnx.ModelProto:
    graph = onnx.parser.parse_model(f'<ir_version: {IR_VERSION}, opset_import: ["" : {opset}]>\n{text}')
    onnx.checker.check_model(graph)
    name = graph.graph.name
    return compose.add_prefix(graph, f"{name}/", rename_inputs=False, rename_outputs=False)


def _floats(values: tuple[float, ...]) -> str:
    return "{" + ", ".join(f"{value!r}" for value in values) + "}"
