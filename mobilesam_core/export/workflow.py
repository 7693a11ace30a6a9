"""``mobilesam export onnx``: write, compare, and only then give a file its name."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx

from mobilesam_core.checkpoints.download import OFFICIAL_WEIGHTS
from mobilesam_core.checkpoints.loading import OpenedCheckpoint, embedded_weights
from mobilesam_core.data.shapes.domains import DOMAINS
from mobilesam_core.data.shapes.scene import draw_scene
from mobilesam_core.errors import CheckpointError, UsageError
from mobilesam_core.export.dynamic import to_dynamic
from mobilesam_core.export.half import to_half
from mobilesam_core.export.metadata import describe
from mobilesam_core.export.onnx_graph import DEFAULT_OPSET, OPSETS, Freedom, build_graph
from mobilesam_core.export.verify import Verification, verify
from mobilesam_core.files import atomic_path, make_folder
from mobilesam_core.progress import NullReporter, Reporter
from mobilesam_core.runtime.exported import ExportedModel
from mobilesam_core.runtime.facts import DecoderStyle, ModelFacts, Part
from mobilesam_core.runtime.onnx_session import OnnxModel
from mobilesam_core.stores.producer import Producer

_VALUES = {
    "input_image": "(B, C, S, S) float32: RGB, longest side scaled to S, normalised, then zero-padded right and bottom",
    "image_embeddings": "(1, D, S/16, S/16) float32",
    "point_coords": "(B, N, 2) float32: x, y in pixels of the S x S frame; box corners and padding points included",
    "point_labels": "(B, N) float32: 0 background, 1 foreground, 2 and 3 box corners, -1 padding (add one where there "
    "is no box)",
    "mask_input": "(B, 1, S/4, S/4) float32 logits",
    "has_mask_input": "(B,) float32: 1 where mask_input counts, else 0",
    "orig_im_size": "(2,) float32: height and width of the image",
    "masks": "(1, K, H, W) float32 logits: mask where above mask_threshold",
    "iou_predictions": "(B, K) float32",
    "low_res_masks": "(B, K, S/4, S/4) float32 logits",
}
_RAW = {
    "input_image": "(H, W, C) uint8 RGB of any size",
    "point_coords": "(B, N, 2) float32: x, y in pixels of the image; box corners and padding points included",
}


_RECORDED = ("mobilesam", "torch", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class ExportOptions:
    """What to export, and where to.

    out: a folder. parts: which, each a file. style: of the decoder's or combined model's inputs and outputs.
    single_mask: one mask instead of four. preprocessing: of images, inside the graph. freedom: which sizes stay free.
    fp16: float16 weights. quantize_out: a file for the same part with dynamic int8 weights. overwrite: files of an
    earlier run.
    """

    out: Path
    parts: Sequence[Part] = ("encoder", "decoder")
    style: DecoderStyle = "official"
    single_mask: bool = False
    preprocessing: bool = False
    freedom: Freedom = field(default_factory=Freedom)
    opset: int = DEFAULT_OPSET
    fp16: bool = False
    quantize_out: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class ExportedPart:
    """A file that was written: under its own name, or when it failed its verification as ``*.rejected.onnx``."""

    path: Path
    facts: ModelFacts
    bytes: int
    verification: Verification


def check_options(options: ExportOptions) -> None:
    """Find what cannot be, before anything is loaded.

    Raises:
        UsageError: options that contradict each other, or an opset that cannot be written.
    """
    if options.quantize_out is not None:
        if len(options.parts) > 1 or options.fp16:
            raise UsageError(
                "--quantize-out names one file, made of float32 weights.",
                "Export one part, without --fp16; or use mobilesam quantize.",
            )
        if options.quantize_out.suffix != ".onnx":
            raise UsageError(f"{options.quantize_out} does not end in .onnx.", "Choose another name.")
    with_masks = any(part != "encoder" for part in options.parts)
    with_image = any(part != "decoder" for part in options.parts)
    if options.opset not in OPSETS:
        raise UsageError(
            f"Opset {options.opset} cannot be written.", f"Choose {OPSETS[0]} to {OPSETS[-1]}; {DEFAULT_OPSET} is best."
        )
    if not with_masks and (options.single_mask or options.style != "official" or options.freedom.num_points):
        raise UsageError(
            "The encoder has no masks and no points.", "Export the decoder or the combined model for that."
        )
    if not with_image and (options.preprocessing or options.freedom.dynamic_batch):
        raise UsageError("The decoder takes no images.", "Export the encoder or the combined model for that.")
    if options.freedom.dynamic_batch and (options.preprocessing or "encoder" not in options.parts):
        raise UsageError(
            "Only an encoder of normalised images takes batches: images of any size, or with prompts, go one by one.",
            "Leave out --dynamic-batch.",
        )


def export_onnx(
    opened: OpenedCheckpoint,
    options: ExportOptions,
    image: np.ndarray | None = None,
    reporter: Reporter | None = None,
) -> tuple[ExportedPart, ...]:
    """Export parts of a model on the CPU, each verified on ``image`` ``(H, W, C)`` uint8 (None: a drawn one).

    Raises:
        UsageError: as :func:`check_options`; a file is there already; the model is too large for ONNX.
        OutputError: a file cannot be written.
    """
    reporter = reporter or NullReporter()
    check_options(options)
    paths = {part: options.out / _file_name(opened.path.stem, part, options.style) for part in options.parts}
    taken = [path for path in [*paths.values(), options.quantize_out] if path is not None and path.exists()]
    if taken and not options.overwrite:
        raise UsageError(f"{taken[0]} is there already.", "Choose another folder with --out, or use --overwrite.")
    if options.quantize_out is not None and options.quantize_out.resolve() in {p.resolve() for p in paths.values()}:
        raise UsageError(f"{options.quantize_out} is where the float32 export goes.", "Choose another --quantize-out.")
    make_folder(options.out)
    shown = drawn_image(len(opened.model.pixel_mean)) if image is None else image
    exported = []
    with reporter.task("Exporting", len(paths), "parts") as task:
        for part, path in paths.items():
            exported.append(_export_part(opened, part, path, options, shown))
            task.advance()
    if options.quantize_out is not None and exported[0].verification.passed:
        exported.append(_quantized(opened, exported[0], options.quantize_out, shown))
    return tuple(exported)


def verify_onnx(
    exported: ExportedModel, opened: OpenedCheckpoint, image: np.ndarray | None = None, force: bool = False
) -> Verification:
    """Compare an exported model with the checkpoint it was made from, on ``image`` (None: a drawn one).

    Raises:
        CheckpointError: it was made from another checkpoint (unless ``force``).
    """
    facts, model, path = exported.facts, opened.model, exported.path
    if facts.model != model.config.name or facts.image_size != model.image_size:
        raise CheckpointError(
            f"{path} is {facts.model} at image_size {facts.image_size}; {opened.path} is {model.config.name} at "
            f"{model.image_size}.",
            "Name the checkpoint it was exported from, and its --image-size.",
        )
    if facts.checkpoint_sha256 != opened.sha256 and not force:
        raise CheckpointError(
            f"{path} was made from another checkpoint (sha256 {facts.checkpoint_sha256[:12]}…) than {opened.path} "
            f"({opened.sha256[:12]}…).",
            "Name that one, or compare all the same with --force.",
        )
    return verify(model, exported, drawn_image(len(model.pixel_mean)) if image is None else image)


def drawn_image(channels: int) -> np.ndarray:
    """An image of many things, wider than high: always the same, ``(360, 512, C)`` uint8."""
    image, _ = draw_scene(np.random.default_rng(7), 512, DOMAINS["heap"])
    image = image[:360]
    return image if channels == 3 else np.repeat(image[..., 1:2], channels, axis=2)


def _export_part(
    opened: OpenedCheckpoint, part: Part, path: Path, options: ExportOptions, image: np.ndarray
) -> ExportedPart:
    facts = _facts(opened, part, options)
    graph = build_graph(opened.model, facts, options.freedom, options.opset)
    if options.fp16:
        graph = to_half(graph)
    values = [each.name for each in [*graph.graph.input, *graph.graph.output]]
    facts = replace(facts, io={name: _described(name, facts) for name in values})
    return _keep(opened, graph, facts, path, image)


def _quantized(opened: OpenedCheckpoint, exported: ExportedPart, path: Path, image: np.ndarray) -> ExportedPart:
    graph = to_dynamic(onnx.load(exported.path))
    return _keep(opened, graph, replace(exported.facts, precision="int8"), path, image)


def _keep(
    opened: OpenedCheckpoint, graph: onnx.ModelProto, facts: ModelFacts, path: Path, image: np.ndarray
) -> ExportedPart:
    """Write a graph, compare it, and give it the name it deserves."""
    describe(graph, facts)
    rejected = path.with_suffix(".rejected.onnx")
    with atomic_path(rejected) as temporary:
        onnx.save(graph, temporary)
        verification = verify(opened.model, OnnxModel(temporary), image)
    if verification.passed:
        rejected.replace(path)
    else:
        path.unlink(missing_ok=True)  # of an earlier run: a user would take it for this one
    written = path if verification.passed else rejected
    return ExportedPart(written, facts, written.stat().st_size, verification)


def _facts(opened: OpenedCheckpoint, part: Part, options: ExportOptions) -> ModelFacts:
    model, producer = opened.model, Producer.of(opened.model)
    official = {weights.sha256 for weights in OFFICIAL_WEIGHTS.values()}
    ours = opened.path == embedded_weights() or opened.sha256 in official
    return ModelFacts(
        part=part,
        style=None if part == "encoder" else options.style,
        single_mask=options.single_mask and part != "encoder",
        preprocessing=options.preprocessing and part != "decoder",
        model=model.config.name,
        image_size=model.image_size,
        embed_dim=model.prompt_encoder.no_mask_embed.embedding_dim,
        pixel_mean=tuple(round(value, 4) for value in model.pixel_mean.flatten().tolist()),
        pixel_std=tuple(round(value, 4) for value in model.pixel_std.flatten().tolist()),
        mask_threshold=model.mask_threshold,
        checkpoint_sha256=opened.sha256,
        encoder_sha256=producer.encoder_sha256,
        preprocessing_sha256=producer.preprocessing_sha256,
        precision="fp16" if options.fp16 else "fp32",
        license="Apache-2.0" if ours else opened.metadata.get("license", "not stated"),
        amg_thresholds=opened.amg_thresholds,
        versions={name: importlib.metadata.version(name) for name in _RECORDED},
    )


def _described(name: str, facts: ModelFacts) -> str:
    return _RAW[name] if facts.preprocessing and name in _RAW else _VALUES[name]


def _file_name(stem: str, part: Part, style: DecoderStyle) -> str:
    suffix = "" if part == "encoder" or style == "official" else f"_{style.replace('-', '_')}"
    return f"{stem}_{part}{suffix}.onnx"
