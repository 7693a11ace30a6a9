"""``mobilesam quantize``: smaller numbers, measured against the model they were made from."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from mobilesam_core.data.sample import SampleSource
from mobilesam_core.errors import CheckpointError, DataError, UsageError
from mobilesam_core.export.dynamic import to_dynamic
from mobilesam_core.export.half import to_half
from mobilesam_core.export.rewriting import prepared
from mobilesam_core.files import make_folder
from mobilesam_core.ops.metrics import cosine
from mobilesam_core.progress import NullReporter, Reporter
from mobilesam_core.prompts.types import PAD, POSITIVE
from mobilesam_core.quantization.artifacts import Artifact, OnnxArtifact
from mobilesam_core.quantization.graphs import (
    Calibrated,
    Method,
    calibrate,
    is_quantised,
    quantisable,
    static,
)
from mobilesam_core.quantization.images import ImageSource, SampleImages, chosen
from mobilesam_core.quantization.report import (
    BeforeAfter,
    QuantizationReport,
    Sensitivity,
    alternating_latency,
    mean_cosine,
    miou_of,
)
from mobilesam_core.runtime.exported import OPENVINO_SUFFIX, ExportedModel
from mobilesam_core.runtime.facts import ModelFacts
from mobilesam_core.runtime.onnx_runtime import OnnxRuntime, answers_any_prompt
from mobilesam_core.runtime.onnx_session import OnnxModel
from mobilesam_core.runtime.preprocess import encoder_input

Mode = Literal["dynamic", "static", "fp16"]
Backend = Literal["onnxruntime", "openvino"]

_SENSITIVITY_IMAGES, _COMPARED_IMAGES = 2, 4
_LIKE_THESE = "Name images like those the model will see."


@dataclass(frozen=True)
class QuantizeOptions:
    """How to quantise.

    backend: what the result is for: ``openvino`` takes no mode but ``static``, and NNCF chooses ranges and nodes.
    method, calibration_images, exclude: of ``static``: how ranges are chosen from activations, on how many images they
    are measured, and patterns of names of nodes that stay in float32. evaluation_images: that mIoU is measured on.
    max_drop: points of mIoU that may be lost. sensitivity: measure what each node matters, as is done in any case when
    ``max_drop`` is exceeded.
    """

    mode: Mode = "static"
    backend: Backend = "onnxruntime"
    method: Method = "entropy"
    calibration_images: int = 32
    evaluation_images: int = 16
    exclude: tuple[str, ...] = ()
    max_drop: float = 1.0
    sensitivity: bool = True
    overwrite: bool = False


@dataclass(frozen=True)
class Model:
    """A model to quantise, and the other half that it is tried with."""

    path: Path
    original: OnnxModel
    other: OnnxModel

    @property
    def is_encoder(self) -> bool:
        return self.original.facts.part == "encoder"

    def runtime(self, changed: ExportedModel | None = None) -> OnnxRuntime:
        """Both halves; ``changed`` in place of the one that is quantised."""
        half = changed or self.original
        return OnnxRuntime(half, self.other) if self.is_encoder else OnnxRuntime(self.other, half)


def open_model(path: Path, other: Path | None, mode: Mode) -> Model:
    """Open what is to be quantised, and its other half: ``other``, else one beside it of the same checkpoint.

    Raises:
        CheckpointError: a file cannot be loaded, or is quantised already.
        UsageError: it is no encoder and no decoder, the mode is not for it, or there is no other half.
    """
    given = OnnxModel(path)
    facts = given.facts
    if facts.precision != "fp32" or is_quantised(onnx.load(path)):
        raise CheckpointError(f"{path} is quantised already ({facts.precision}).", "Quantise the float32 export.")
    if facts.part == "combined":
        raise UsageError(f"{path} is encoder and decoder in one.", "Export the two, and quantise the encoder.")
    if facts.part == "decoder" and mode == "static":
        raise UsageError(
            f"{path} is a decoder, whose activations differ from prompt to prompt.", "Use --mode dynamic or fp16."
        )
    half = OnnxModel(other) if other is not None else _beside(path, facts)
    model = Model(path, given, half)
    model.runtime()  # do they fit together?
    return model


def quantize(
    model: Model,
    out: Path,
    options: QuantizeOptions,
    labelled: SampleSource,
    calibration: ImageSource | None = None,
    reporter: Reporter | None = None,
) -> QuantizationReport:
    """Quantise ``model`` and measure the result on ``labelled``.

    ``out`` gets its name only if no more than ``max_drop`` points of mIoU are lost, and is ``*.rejected.onnx`` else.
    Of ``static``, the nodes that matter most are left in float32, twice as many each time, until that is so.

    Args:
        calibration: images for ``static``; None takes those of ``labelled``.

    Raises:
        UsageError: ``out`` is there already, or a pattern of ``exclude`` fits no node.
        DataError: there are no images, or none that says anything.
        OutputError: a file cannot be written.
    """
    reporter = reporter or NullReporter()
    _check_out(out, model, options)
    graph = onnx.load(model.path)
    images = SampleImages(labelled) if calibration is None else calibration
    attempts = _Attempts(model, options, labelled, reporter)
    if options.backend == "openvino":
        from mobilesam_core.quantization.openvino import import_nncf, quantized

        import_nncf()
        feeds = _Feeds(model, options, images, reporter)
        artifact = quantized(model.path, feeds, feeds.count)
        feeds.check()
        return _keep(attempts.measure(artifact, ()), out)
    if options.mode == "static":
        return _keep(_static(attempts, prepared(graph), images), out)
    quantised = to_dynamic(graph) if options.mode == "dynamic" else to_half(graph)
    return _keep(attempts.measure(OnnxArtifact(quantised), ()), out)


def _check_out(out: Path, model: Model, options: QuantizeOptions) -> None:
    suffix = OPENVINO_SUFFIX if options.backend == "openvino" else ".onnx"
    if out.suffix != suffix:
        raise UsageError(f"{out} does not end in {suffix}.", "Choose another name with --out.")
    if out.resolve() in (model.path.resolve(), model.other.path.resolve()):
        raise UsageError(f"{out} is one of the two models that are read.", "Choose another name with --out.")
    written = [out, out.with_suffix(".bin")] if options.backend == "openvino" else [out]
    taken = [path for path in written if path.exists()]
    if taken and not options.overwrite:
        raise UsageError(f"{taken[0]} is there already.", "Choose another name with --out, or use --overwrite.")
    make_folder(out.parent)


@dataclass(frozen=True)
class _Attempt:
    """A quantised model, with its metadata, and its report, whose path is not known yet."""

    artifact: Artifact
    report: QuantizationReport


class _Attempts:
    """Measures models against the model they were made from."""

    def __init__(self, model: Model, options: QuantizeOptions, labelled: SampleSource, reporter: Reporter) -> None:
        self.model, self.options, self.reporter = model, options, reporter
        self._labelled = labelled

    @cached_property
    def _before(self) -> tuple[dict[str, float], int]:
        return miou_of(self.model.runtime(), self._labelled, self.options.evaluation_images, self.reporter)

    def measure(self, artifact: Artifact, excluded: Sequence[str], sensitivity: Sequence[Sensitivity] = ()) -> _Attempt:
        options, model = self.options, self.model
        before, objects = self._before
        facts = replace(model.original.facts, precision="fp16" if options.mode == "fp16" else "int8")
        artifact.describe(facts)
        with artifact.opened() as changed:
            after, _ = miou_of(model.runtime(changed), self._labelled, options.evaluation_images, NullReporter())
            feeds = list(_feeds(model, self._labelled, _COMPARED_IMAGES))
            output = "image_embeddings" if model.is_encoder else "low_res_masks"
            before_ms, after_ms = alternating_latency([model.original, changed], feeds[0])
            alike = mean_cosine(model.original, changed, feeds, output)
        report = QuantizationReport(
            path=model.path,
            mode=_mode_name(options),
            size=BeforeAfter(model.path.stat().st_size, artifact.bytes),
            latency=BeforeAfter(before_ms, after_ms),
            cosine=alike,
            miou={kind: BeforeAfter(before[kind], after[kind]) for kind in after},
            objects=objects,
            excluded=tuple(excluded),
            sensitivity=tuple(sensitivity),
            max_drop=options.max_drop,
        )
        return _Attempt(artifact, report)


def _static(attempts: _Attempts, graph: onnx.ModelProto, images: ImageSource) -> _Attempt:
    """Of the attempts that were made the one that lost least."""
    model, options, reporter = attempts.model, attempts.options, attempts.reporter
    nodes = quantisable(graph)
    spared = _fitting(nodes, options.exclude)
    feeds = _Feeds(model, options, images, reporter)
    calibrated = calibrate(graph, feeds, options.method)
    feeds.check()
    sensitivity = _sensitivity(model, calibrated, images, reporter) if options.sensitivity else []
    best = attempts.measure(OnnxArtifact(static(calibrated, spared)), spared, sensitivity)
    more = 1
    while not best.report.passed and more <= len(nodes) // 2:
        sensitivity = sensitivity or _sensitivity(model, calibrated, images, reporter)
        excluded = [*spared, *[each.node for each in sensitivity if each.node not in spared][:more]]
        reporter.info(
            f"{best.report.drop:.2f} points of mIoU are lost, more than {options.max_drop:g}: trying with "
            f"{len(excluded)} of {len(nodes)} nodes in float32."
        )
        attempt = attempts.measure(OnnxArtifact(static(calibrated, excluded)), excluded, sensitivity)
        best = min(best, attempt, key=lambda each: each.report.drop)
        more *= 2
    return best


class _Feeds:
    """Inputs of an encoder to calibrate on, one in memory at a time; progress is of the first time over them.

    Raises:
        DataError: there is no image.
    """

    def __init__(self, model: Model, options: QuantizeOptions, images: ImageSource, reporter: Reporter) -> None:
        self._facts, self._images, self._reporter = model.original.facts, images, reporter
        self.count = min(options.calibration_images, len(images))
        self._seen, self._plain = False, True
        if not self.count:
            raise DataError("There is no image to calibrate on.", _LIKE_THESE)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        reporter = NullReporter() if self._seen else self._reporter
        self._seen = True
        with reporter.task("Calibrating", self.count, "images") as task:
            for image in chosen(self._images, self.count):
                self._plain &= bool((image == image[:1, :1]).all())
                yield {"input_image": encoder_input(self._facts, image)}
                task.advance()

    def check(self) -> None:
        """Raise a :class:`DataError` if no image that was seen says anything."""
        if self._plain:
            raise DataError("The images are of one colour each: they say nothing to calibrate on.", _LIKE_THESE)


def _sensitivity(model: Model, calibrated: Calibrated, images: ImageSource, reporter: Reporter) -> list[Sensitivity]:
    """Of every node that can be quantised, the worst first."""
    nodes = quantisable(calibrated.graph)
    operators = {node.name: node.op_type for node in calibrated.graph.graph.node}
    facts = model.original.facts
    feeds = [{"input_image": encoder_input(facts, image)} for image in chosen(images, _SENSITIVITY_IMAGES)]
    wanted = [model.original.run(feed)["image_embeddings"] for feed in feeds]
    found = []
    with reporter.task("Measuring what each node matters", len(nodes), "nodes") as task:
        for name in nodes:
            artifact = OnnxArtifact(static(calibrated, [other for other in nodes if other != name]))
            artifact.describe(facts)
            with artifact.opened() as changed:
                alike = [cosine(changed.run(f)["image_embeddings"], w) for f, w in zip(feeds, wanted, strict=True)]
            found.append(Sensitivity(name, operators[name], 1 - float(np.mean(alike))))
            task.advance()
    return sorted(found, key=lambda each: -each.loss)


def _keep(attempt: _Attempt, out: Path) -> QuantizationReport:
    """Write a model under the name it deserves, and leave nothing of an earlier run under the other."""
    rejected = out.with_suffix(f".rejected{out.suffix}")
    path, other = (out, rejected) if attempt.report.passed else (rejected, out)
    attempt.artifact.save(path)
    attempt.artifact.remove(other)
    return replace(attempt.report, path=path)


def _fitting(nodes: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The nodes that fit any of the patterns."""
    for pattern in patterns:
        if not fnmatch.filter(nodes, pattern):
            raise UsageError(f"No node is called '{pattern}'.", f"There are {nodes[0]}, {nodes[-1]} and others.")
    found = [node for node in nodes if any(fnmatch.fnmatchcase(node, pattern) for pattern in patterns)]
    if len(found) == len(nodes):
        raise UsageError("Every node is excluded: nothing is left to quantise.", "Exclude fewer.")
    return found


def _mode_name(options: QuantizeOptions) -> str:
    if options.backend == "openvino":
        return "OpenVINO int8"
    return f"static int8, {options.method}" if options.mode == "static" else options.mode


def _beside(path: Path, facts: ModelFacts) -> OnnxModel:
    """The other half of the same checkpoint in the same folder, in float32; of decoders the batched one if there is."""
    wanted = "decoder" if facts.part == "encoder" else "encoder"
    found, unreadable = [], []
    for other in sorted(path.parent.glob("*.onnx")):
        if other == path or ".rejected" in other.name:
            continue
        try:
            model = OnnxModel(other)
        except CheckpointError:  # of another program, or broken: only if nothing else fits does it matter
            unreadable.append(other.name)
            continue
        theirs = model.facts
        same = (theirs.model, theirs.image_size, theirs.checkpoint_sha256) == (
            facts.model,
            facts.image_size,
            facts.checkpoint_sha256,
        )
        if same and (theirs.part, theirs.precision) == (wanted, "fp32"):
            found.append(model)
    usable = [each for each in found if wanted == "encoder" or answers_any_prompt(each)]
    if not usable:
        raise UsageError(
            f"{path.parent} holds no {wanted} of the same checkpoint; {path.name} is tried together with it."
            + (f" Not readable: {', '.join(unreadable)}." if unreadable else ""),
            f"Export one, or name it with --onnx-{wanted}.",
        )
    return min(usable, key=lambda each: each.facts.style != "batched")


def _feeds(model: Model, labelled: SampleSource, limit: int) -> Iterator[dict[str, np.ndarray]]:
    """Inputs of the model: images, or of a decoder the embeddings of images and a point in the middle."""
    encoder = model.original if model.is_encoder else model.other
    for image in chosen(SampleImages(labelled), limit):
        feed = {"input_image": encoder_input(encoder.facts, image)}
        if model.is_encoder:
            yield feed
            continue
        side = encoder.facts.image_size
        embedding = encoder.run(feed)["image_embeddings"]
        inputs = {
            "image_embeddings": embedding,
            "point_coords": np.array([[[side / 2, side / 2], [0, 0]]], np.float32),
            "point_labels": np.array([[POSITIVE, PAD]], np.float32),
            "mask_input": np.zeros((1, 1, side // 4, side // 4), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
            "orig_im_size": np.array([side, side], np.float32),
        }
        yield {name: inputs[name] for name in model.original.input_names}
