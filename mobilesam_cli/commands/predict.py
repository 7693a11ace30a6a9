"""``mobilesam predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobilesam_cli.model_options import (
    Checkpoint,
    Device,
    Embeddings,
    Force,
    ImageSize,
    ModelType,
    OnnxDecoder,
    OnnxEncoder,
    Overwrite,
    Providers,
)
from mobilesam_cli.options import Json
from mobilesam_cli.runtimes import ModelChoice
from mobilesam_core.errors import PromptError, UsageError

if TYPE_CHECKING:
    from mobilesam_core.prediction.requests import ImageRequest
    from mobilesam_core.prediction.workflow import PredictResult
    from mobilesam_core.runtime.protocol import Runtime


def predict(
    images: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[IMAGES...]", help="Image files, or folders of them.", show_default=False),
    ] = None,
    points: Annotated[
        list[str] | None,
        typer.Option("--point", metavar="X,Y", help="A point on the object (repeat).", show_default=False),
    ] = None,
    negatives: Annotated[
        list[str] | None,
        typer.Option("--negative", metavar="X,Y", help="A point not on it (repeat).", show_default=False),
    ] = None,
    boxes: Annotated[
        list[str] | None,
        typer.Option(
            "--box",
            metavar="X1,Y1,X2,Y2",
            help="A box around it; several boxes without points are one object each.",
            show_default=False,
        ),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            "--mask",
            help="A mask to correct: an image of the same size (not 0 is object), or a .npy of low-resolution logits.",
            show_default=False,
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option("--prompts", help="A JSON file with the objects of many images.", show_default=False),
    ] = None,
    checkpoint: Checkpoint = None,
    model_type: ModelType = None,
    image_size: ImageSize = None,
    embeddings: Embeddings = None,
    multimask: Annotated[
        bool | None,
        typer.Option(
            "--multimask/--single",
            help="All three masks of each object, or only the single-mask output. Without either, a single point "
            "gets the best-scored of the three and all else the single-mask output.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of the results.")] = Path("predictions"),
    overlay: Annotated[bool, typer.Option("--overlay/--no-overlay", help="Draw pictures too.")] = True,
    overwrite: Overwrite = False,
    device: Device = "auto",
    onnx_encoder: OnnxEncoder = None,
    onnx_decoder: OnnxDecoder = None,
    providers: Providers = "CPU",
    force: Force = False,
    json: Json = False,
) -> None:
    """Segment the objects that points, boxes or masks show.

    Writes for each image <stem>/<object>.png (0 and 255), <stem>.json (COCO
    RLE) and <stem>_overlay.png. Coordinates are pixels of the upright image
    (EXIF rotation applied), from its top left corner.

    [bold]Examples[/]

      mobilesam predict dog.jpg --point 320,240 --negative 40,400

      mobilesam predict cells/ --box 10,10,60,80 --checkpoint best.safetensors --out masks

      mobilesam predict --prompts prompts.json --json | jq '.images[].masks[].predicted_iou'

    [bold]Prompt file[/]

      {"images": [{"image": "dog.jpg", "objects": [
        {"points": [[320, 240], [40, 400]], "labels": [1, 0]},
        {"box": [10, 10, 60, 80], "mask": "previous.png"}]}]}

    Paths are relative to the file. Each object has any of points, box and
    mask; labels are 1 (on the object, the default) and 0 (not on it).
    """
    requests = _requests(images or [], points or [], negatives or [], boxes or [], mask, prompts)

    from mobilesam_cli.console import print_json, reporter
    from mobilesam_cli.errors import raise_failures
    from mobilesam_core.prediction.workflow import PredictOptions, plan_outputs
    from mobilesam_core.prediction.workflow import predict as run

    output = {None: "best", True: "multimask", False: "single"}[multimask]
    options = PredictOptions(out, output, overlay, overwrite, embeddings)  # type: ignore[arg-type]
    plan_outputs(requests, options)
    runtime = ModelChoice(
        checkpoint,
        model_type,
        image_size,
        device,
        onnx_encoder=onnx_encoder,
        onnx_decoder=onnx_decoder,
        providers=providers,
        force=force,
    ).open()
    result = run(requests, runtime, options, reporter())
    if json:
        print_json(_as_json(result, runtime))
    else:
        _show(result)
    raise_failures(len(result.failures), len(result.images), "segmented", result.failures_file)


def _requests(
    images: list[Path],
    points: list[str],
    negatives: list[str],
    boxes: list[str],
    mask: Path | None,
    prompts: Path | None,
) -> list[ImageRequest]:
    """What to segment, checked as far as that goes without reading an image."""
    from mobilesam_core.prediction.requests import ImageRequest, objects_from_flags, read_prompt_file

    if prompts is not None:
        if images or points or negatives or boxes or mask is not None:
            raise UsageError("--prompts names images and prompts itself.", "Give no images and no other prompts.")
        return read_prompt_file(prompts)
    if not images:
        raise UsageError("No image is given.", "Name image files or folders, or a file with --prompts.")
    objects = objects_from_flags(
        [_point(text, "--point") for text in points],
        [_point(text, "--negative") for text in negatives],
        [_box(text) for text in boxes],
        mask,
    )
    return [ImageRequest(path, objects) for path in _files(images)]


def _point(text: str, option: str) -> tuple[float, float]:
    x, y = _numbers(text, option, "x,y")
    return x, y


def _box(text: str) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = _numbers(text, "--box", "x1,y1,x2,y2")
    return x1, y1, x2, y2


def _numbers(text: str, option: str, form: str) -> list[float]:
    """The numbers of ``text``, as many as ``form`` has."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    count = form.count(",") + 1
    if len(values) != count:
        raise PromptError(f"'{option} {text}' is not {count} numbers.", f"Write {option} {form}, in pixels.")
    return values


def _files(images: list[Path]) -> list[Path]:
    """Folders replaced by the images in them."""
    from mobilesam_core.data.reading import list_images

    files = []
    for path in images:
        found = list_images(path) if path.is_dir() else [path]
        if not found:
            raise UsageError(f"The folder {path} holds no image.", "Check the path.")
        files += found
    return files


def _as_json(result: PredictResult, runtime: Runtime) -> dict[str, object]:
    from dataclasses import asdict

    images = [
        {
            "image": str(image.image),
            "json": str(image.json),
            "overlay": None if image.overlay is None else str(image.overlay),
            "masks": image.records,
        }
        for image in result.images
    ]
    return {
        "model": runtime.model,
        "image_size": runtime.image_size,
        "checkpoint": str(runtime.source),
        "checkpoint_sha256": runtime.sha256,
        "images": images,
        "failures": [asdict(failure) for failure in result.failures],
    }


def _show(result: PredictResult) -> None:
    from rich.table import Table

    from mobilesam_cli.console import stdout

    table = Table()
    for header in ("image", "object", "mask"):
        table.add_column(header, overflow="fold")
    for header in ("predicted IoU", "area"):
        table.add_column(header, justify="right")
    for image in result.images:
        for record in image.records:
            table.add_row(
                str(image.image),
                str(record["object"]),
                str(image.json.parent / record["file"]),
                f"{record['predicted_iou']:.3f}",
                str(record["area"]),
            )
    stdout().print(table)
