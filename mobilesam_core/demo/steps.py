"""The steps of the demo: each calls the workflow of the command that it shows, on files alone."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobilesam_core.amg.workflow import AmgOptions, generate_masks
from mobilesam_core.checkpoints.loading import NANO, open_checkpoint
from mobilesam_core.config.data import SetConfig, ShapesConfig
from mobilesam_core.config.loading import load_amg_config, load_train_config
from mobilesam_core.data.build import build_source
from mobilesam_core.data.convert import Conversion, convert
from mobilesam_core.data.reading import list_images, read_image
from mobilesam_core.data.sample import Sample
from mobilesam_core.demo.outcome import KINDS, Outcome, Picture
from mobilesam_core.demo.plan import DemoFolder, DemoOptions
from mobilesam_core.errors import OutputError
from mobilesam_core.evaluation.types import EvalOptions
from mobilesam_core.evaluation.workflow import evaluate_prompts, write_results
from mobilesam_core.export.verify import Verification
from mobilesam_core.export.workflow import ExportOptions, export_onnx, verify_onnx
from mobilesam_core.files import write_json, write_text
from mobilesam_core.jobs.inputs import find_images
from mobilesam_core.ops.drawing import distinct_color, fill_mask, line_width, new_canvas, outline_mask, write_png
from mobilesam_core.pages.charts import Series
from mobilesam_core.prediction.device import resolve_device
from mobilesam_core.prediction.requests import Box, ImageRequest, objects_from_flags, read_prompt_file
from mobilesam_core.prediction.workflow import PredictOptions, predict
from mobilesam_core.progress import Reporter
from mobilesam_core.prompts.sampling import center_point
from mobilesam_core.quantization.workflow import QuantizeOptions, open_model, quantize
from mobilesam_core.runtime.exported import open_exported
from mobilesam_core.runtime.opening import open_onnx
from mobilesam_core.runtime.protocol import Runtime
from mobilesam_core.runtime.torch_runtime import open_torch
from mobilesam_core.training.history import read_history
from mobilesam_core.training.workflow import train

_DRAWN, _ASKED, _FOUND = 6, 3, 4  # images shown, asked about, and shown with everything in them
_BOXES = 2
_POINTS_PER_SIDE = 16
_MAX_DROP = 2  # points of mIoU: more than the default, for so few objects


@dataclass(frozen=True)
class Demo:
    """A demo at work."""

    folder: DemoFolder
    options: DemoOptions
    reporter: Reporter

    def open(self, checkpoint: str | Path) -> Runtime:
        """A checkpoint, run by torch."""
        return open_torch(
            checkpoint, resolve_device("auto"), image_size=self.options.image_size, reporter=self.reporter
        )

    def measured(self) -> tuple[SetConfig, Path]:
        """The set to measure on, and what its paths are relative to."""
        data = self.folder.config().data
        assert data.val is not None
        return data.val, data.root

    def asked(self) -> list[Sample]:
        """The images that prompts are shown for."""
        source = build_source(*self.measured())
        return [source[index] for index in range(min(_ASKED, len(source)))]


@dataclass(frozen=True)
class Step:
    """name: short, of its own. title, about: what it does, for a reader."""

    name: str
    title: str
    about: str
    run: Callable[[Demo], Outcome]


def draw(demo: Demo) -> Outcome:
    folder = demo.folder
    folder.write_configs(demo.options)
    data = load_train_config(str(folder.draw_config)).data
    made: dict[str, Conversion] = {}
    commands = []
    for split, drawn in (("train", data.train), ("val", data.val)):
        assert isinstance(drawn, ShapesConfig)
        out = folder.data / split
        made[split] = convert(drawn, data.root, "coco", out, overwrite=True, reporter=demo.reporter)
        options = ("--config", folder.draw_config, "--split", split, "--to", "coco", "--out", out, "--overwrite")
        commands.append(_command("data", "convert", *options))
    learnt, measured = made["train"], made["val"]
    return Outcome(
        commands=tuple(commands),
        sentence=f"{learnt.images} images with {learnt.objects} objects to learn from, {measured.images} with "
        f"{measured.objects} to measure on, and their masks in COCO's format.",
        figures={
            "train_images": learnt.images,
            "train_objects": learnt.objects,
            "val_images": measured.images,
            "val_objects": measured.objects,
        },
        pictures=tuple(Picture(path, "") for path in list_images(folder.measured_images)[:_DRAWN]),
        files=(folder.draw_config, folder.data / "train" / "annotations.json"),
    )


def measure_before(demo: Demo) -> Outcome:
    return _measure(demo, NANO, "before", ("--image-size", demo.options.image_size))


def measure_after(demo: Demo) -> Outcome:
    return _measure(demo, demo.folder.run.best, "after", ())


def _measure(demo: Demo, checkpoint: str | Path, when: str, more: Sequence[object]) -> Outcome:
    folder, out = demo.folder, demo.folder.evaluation(when)
    results = evaluate_prompts(
        [demo.open(checkpoint)], *demo.measured(), EvalOptions(KINDS), worst=8, reporter=demo.reporter
    )
    write_results(results, out)
    box, point = (results[0].evaluation.summary(kind) for kind in KINDS)
    figures: dict[str, float] = {"objects": box.objects, "fill_box_miou": box.fill_box_iou}
    for each in (box, point):
        figures |= {f"{each.kind}_miou": each.miou, f"{each.kind}_dice": each.dice}
    means = [
        ("its box", box.miou, box.dice, box.boundary_iou),
        ("one point", point.miou, point.dice, point.boundary_iou),
        ("nothing: fill the box", box.fill_box_iou, box.fill_box_dice, box.fill_box_boundary_iou),
    ]
    return Outcome(
        commands=(_command("eval", checkpoint, *more, "--config", folder.train_config, "--out", out, "--overwrite"),),
        sentence=f"mIoU of {box.objects} objects: {box.miou:.3f} from boxes, {point.miou:.3f} from one point.",
        figures=figures,
        head=("asked by", "mIoU", "Dice", "boundary IoU"),
        rows=tuple((label, *(f"{value:.3f}" for value in values)) for label, *values in means),
        files=(out / "metrics.json", out / results[0].name / "objects.csv"),
    )


def learn(demo: Demo) -> Outcome:
    folder = demo.folder
    result = train(folder.config(), reporter=demo.reporter)
    records = read_history(folder.run.metrics).train
    losses = [(record.step, record.values["total"]) for record in records]
    objects = sum(record.values["objects_per_s"] for record in records) / len(records)
    return Outcome(
        commands=(_command("train", folder.train_config),),
        sentence=f"{result.steps} steps in {result.seconds:.0f} s, {objects:.0f} objects a second.",
        figures={"steps": result.steps, "objects_per_s": objects, "first_loss": losses[0][1], "loss": losses[-1][1]},
        curves=(Series("training loss", losses),),
        files=(result.best, result.report, folder.train_config),
    )


def ask(demo: Demo) -> Outcome:
    folder = demo.folder
    samples = demo.asked()
    _write_prompts(folder, samples)
    comparison = []
    commands = []
    size = ("--image-size", demo.options.image_size)
    for name, checkpoint, more in (("before", NANO, size), ("after", folder.run.best, ())):
        out = folder.predictions(name)
        predict(read_prompt_file(folder.prompts), demo.open(checkpoint), _written(out), demo.reporter)
        options = ("--checkpoint", checkpoint, *more, "--out", out, "--overwrite")
        commands.append(_command("predict", "--prompts", folder.prompts, *options))
    for sample in samples:
        stem = Path(sample.source).stem
        comparison += [
            Picture(folder.predictions("before") / f"{stem}_overlay.png", "nano, one point an object"),
            Picture(folder.predictions("after") / f"{stem}_overlay.png", "fine-tuned, the same points"),
            Picture(_draw_truth(folder, sample), "the truth"),
        ]
    image, out = Path(samples[0].source), folder.predictions("boxes")
    largest = samples[0].masks.areas.argsort()[::-1][:_BOXES]
    boxes = [_box(samples[0].masks.boxes[index]) for index in largest]
    request = ImageRequest(image, objects_from_flags([], [], boxes, None))
    boxed = predict([request], demo.open(folder.run.best), _written(out), demo.reporter)
    flags = [part for box in boxes for part in ("--box", ",".join(f"{edge:g}" for edge in box))]
    commands.append(_command("predict", image, *flags, "--checkpoint", folder.run.best, "--out", out, "--overwrite"))
    objects = sum(len(sample.masks) for sample in samples)
    return Outcome(
        commands=tuple(commands),
        sentence=f"{objects} objects of {len(samples)} images, each by one point; then {len(boxes)} by their boxes.",
        figures={"images": len(samples), "objects": objects},
        pictures=tuple(Picture(each.overlay, "by their boxes") for each in boxed.images if each.overlay),
        comparison=tuple(comparison),
        files=(folder.prompts, *(each.json for each in boxed.images)),
    )


def find_everything(demo: Demo) -> Outcome:
    folder = demo.folder
    images = find_images([str(folder.measured_images)], (), folder.masks)
    settings = load_amg_config(None, {"points_per_side": _POINTS_PER_SIDE})
    options = AmgOptions(folder.masks, "coco", overlay=True, overwrite=True)
    result = generate_masks(images, demo.open(folder.run.best), settings, options, demo.reporter)
    given = ("--out", folder.masks, "--format", "coco", "--overlay", "--overwrite")
    how = ("--points-per-side", _POINTS_PER_SIDE)
    return Outcome(
        commands=(_command("amg", folder.measured_images, "--checkpoint", folder.run.best, *how, *given),),
        sentence=f"{result.masks} masks in {result.images} images, {result.seconds / result.images:.2f} s an image.",
        figures={"images": result.images, "masks": result.masks, "seconds": result.seconds},
        pictures=tuple(Picture(folder.masks / f"{each.name}_overlay.png", "") for each in images[:_FOUND]),
        files=(folder.masks / "annotations.json",),
    )


def export(demo: Demo) -> Outcome:
    folder = demo.folder
    opened = open_checkpoint(folder.run.best, None, demo.reporter)
    exported = export_onnx(opened, ExportOptions(folder.onnx, style="batched", overwrite=True), None, demo.reporter)
    for part in exported:
        _require_passed(part.path, part.verification)
    given = ("--checkpoint", folder.run.best, "--decoder-style", "batched", "--out", folder.onnx, "--overwrite")
    return Outcome(
        commands=(_command("export", "onnx", *given),),
        sentence=f"Encoder and decoder of {sum(part.bytes for part in exported) / 1e6:.1f} MB for ONNX Runtime.",
        figures={f"{part.facts.part}_bytes": part.bytes for part in exported},
        files=tuple(part.path for part in exported),
    )


def verify(demo: Demo) -> Outcome:
    folder = demo.folder
    opened = open_checkpoint(folder.run.best, None, demo.reporter)
    image = Path(demo.asked()[0].source)
    commands, rows, worst = [], [], 0.0
    for path in (_encoder(folder), _decoder(folder)):
        verification = verify_onnx(open_exported(path), opened, read_image(image, 3))
        _require_passed(path, verification)
        for each in verification.comparisons:
            iou = "" if each.mask_iou is None else f"{each.mask_iou:.4f}"
            rows.append((each.output, each.prompt, f"{each.relative:.1e}", iou))
            worst = max(worst, each.relative)
        options = ("--checkpoint", folder.run.best, "--image", image)
        commands.append(_command("export", "verify", path, *options))
    return Outcome(
        commands=tuple(commands),
        sentence=f"The same as torch says, to {worst:.0e} of the largest value.",
        figures={"relative": worst},
        head=("output", "prompt", "largest difference", "mask IoU"),
        rows=tuple(rows),
    )


def shrink(demo: Demo) -> Outcome:
    folder = demo.folder
    path, out = _encoder(folder), _int8(folder)
    report_path = out.with_suffix(".md")
    options = QuantizeOptions(mode="dynamic", max_drop=_MAX_DROP, overwrite=True)
    labelled = build_source(*demo.measured())
    report = quantize(open_model(path, None, "dynamic"), out, options, labelled, reporter=demo.reporter)
    write_text(report_path, report.to_markdown())
    if not report.passed:
        raise OutputError(f"{report.drop:.2f} points of mIoU are lost by quantising: it is called {report.path}.")
    given = ("--mode", "dynamic", "--config", folder.train_config, "--max-drop", _MAX_DROP, "--report", report_path)
    return Outcome(
        commands=(_command("quantize", path, *given, "--overwrite"),),
        sentence=f"{report.size.before / 1e6:.1f} → {report.size.after / 1e6:.1f} MB, {report.speedup:.2f}x as fast, "
        f"{max(report.drop, 0):.2f} points of mIoU lost.",
        figures={
            "bytes_before": report.size.before,
            "bytes_after": report.size.after,
            "speedup": report.speedup,
            "drop": report.drop,
        },
        head=("", "float32", "int8", ""),
        rows=tuple(report.rows()),
        files=(report.path, report_path),
    )


def ask_without_torch(demo: Demo) -> Outcome:
    folder = demo.folder
    encoder, decoder, out = _int8(folder), _decoder(folder), folder.predictions("int8")
    result = predict(read_prompt_file(folder.prompts), open_onnx(encoder, decoder), _written(out), demo.reporter)
    options = ("--onnx-encoder", encoder, "--onnx-decoder", decoder, "--out", out, "--overwrite")
    size = encoder.stat().st_size + decoder.stat().st_size
    return Outcome(
        commands=(_command("predict", "--prompts", folder.prompts, *options),),
        sentence=f"The same points again, by {size / 1e6:.1f} MB of files and ONNX Runtime alone.",
        figures={"bytes": size},
        pictures=tuple(Picture(each.overlay, "int8, ONNX Runtime") for each in result.images if each.overlay),
        files=tuple(each.json for each in result.images),
    )


STEPS: tuple[Step, ...] = (
    Step(
        "draw",
        "Draw",
        "A domain that the weights have never seen: thin tools across one another, with inlays, weaves and rings.",
        draw,
    ),
    Step("before", "Measure", "The weights that come with the package, nano, on images drawn for it.", measure_before),
    Step("train", "Fine-tune", "All weights learn, from boxes and points, for two epochs.", learn),
    Step("after", "Measure again", "What was learnt, on the same images.", measure_after),
    Step("predict", "Ask", "Masks of objects that points and boxes show.", ask),
    Step(
        "amg",
        "Find everything",
        "No prompt: a grid of points asks for all there is. Training found out by which thresholds to keep masks.",
        find_everything,
    ),
    Step("export", "Export", "To ONNX, each file compared with torch before it gets its name.", export),
    Step("verify", "Verify", "Each file once more, on an image of these, with prompts of all kinds.", verify),
    Step("quantize", "Quantise", "The encoder's weights as int8, and what that costs.", shrink),
    Step("deploy", "Deploy", "What runs where there is no torch.", ask_without_torch),
)


def _command(*parts: object) -> str:
    words = [part.as_posix() if isinstance(part, Path) else str(part) for part in parts]
    return shlex.join(["mobilesam", *words])


def _written(out: Path) -> PredictOptions:
    return PredictOptions(out, overwrite=True)


def _encoder(folder: DemoFolder) -> Path:
    return folder.onnx / f"{folder.run.best.stem}_encoder.onnx"


def _decoder(folder: DemoFolder) -> Path:
    return folder.onnx / f"{folder.run.best.stem}_decoder_batched.onnx"


def _int8(folder: DemoFolder) -> Path:
    path = _encoder(folder)
    return path.with_name(f"{path.stem}_dynamic.onnx")


def _box(edges: np.ndarray) -> Box:
    x1, y1, x2, y2 = (float(edge) for edge in edges)
    return x1, y1, x2, y2


def _write_prompts(folder: DemoFolder, samples: Sequence[Sample]) -> None:
    """One point in the middle of each object, for ``mobilesam predict --prompts``."""
    images = []
    for sample in samples:
        masks = sample.masks.dense(range(len(sample.masks)))
        objects = [{"points": [[float(edge) for edge in center_point(mask)]]} for mask in masks]
        images.append({"image": Path(sample.source).relative_to(folder.path).as_posix(), "objects": objects})
    write_json(folder.prompts, {"images": images})


def _draw_truth(folder: DemoFolder, sample: Sample) -> Path:
    canvas = new_canvas(sample.image)
    for number, mask in enumerate(sample.masks.dense(range(len(sample.masks)))):
        fill_mask(canvas, mask, distinct_color(number))
        outline_mask(canvas, mask, distinct_color(number), line_width(canvas))
    path = folder.predictions("truth") / f"{Path(sample.source).stem}.png"
    write_png(path, canvas)
    return path


def _require_passed(path: Path, verification: Verification) -> None:
    if not verification.passed:
        problem = f"{path} does not say what torch says ({verification.tolerance})."
        raise OutputError(problem, "That is a bug: please report it.")
