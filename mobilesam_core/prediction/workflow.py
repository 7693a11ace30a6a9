"""``mobilesam predict``: prompts to mask files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mobilesam_core.data.reading import read_oriented
from mobilesam_core.data.sample import BadFile
from mobilesam_core.errors import DataError, PromptError, UsageError
from mobilesam_core.files import write_json
from mobilesam_core.jobs.names import distinct_names
from mobilesam_core.ops.boxes import mask_box
from mobilesam_core.ops.drawing import (
    distinct_color,
    draw_box,
    draw_points,
    fill_mask,
    line_width,
    new_canvas,
    outline_mask,
    write_png,
)
from mobilesam_core.ops.rle import encode_rle
from mobilesam_core.prediction.requests import ImageRequest, ObjectRequest, check_inside
from mobilesam_core.prediction.segment import MaskPrediction, Output, segment
from mobilesam_core.prediction.stored import StoredEmbeddings
from mobilesam_core.progress import NullReporter, Reporter
from mobilesam_core.runtime.protocol import Runtime, file_channels

_FAILURES = "failures.json"
_MASK_FILE = re.compile(r"\d+(_\d)?\.png")


@dataclass(frozen=True)
class PredictOptions:
    """out: the folder of the results. output: which of the model's masks. overlay: draw pictures too.
    overwrite: replace the results of an earlier run. embeddings: a feature store to take embeddings from."""

    out: Path
    output: Output = "best"
    overlay: bool = True
    overwrite: bool = False
    embeddings: Path | None = None


@dataclass(frozen=True)
class ImageResult:
    """What was written for one image; ``records`` is the content of ``json``, one entry a mask."""

    image: Path
    json: Path
    overlay: Path | None
    records: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class PredictResult:
    """All results, the images that failed, and the file that lists those (None: none did)."""

    images: tuple[ImageResult, ...]
    failures: tuple[BadFile, ...]
    failures_file: Path | None


def predict(
    requests: Sequence[ImageRequest],
    runtime: Runtime,
    options: PredictOptions,
    reporter: Reporter | None = None,
) -> PredictResult:
    """Segment every object asked for.

    Writes for each image ``<stem>/<object>.png`` (0 and 255 at the image's size;
    ``<object>_<candidate>.png`` with ``multimask``), ``<stem>_overlay.png`` and, when those are complete,
    ``<stem>.json``: COCO RLE. Images of the same stem get longer names. Of several images one that cannot be
    used is reported, listed in ``failures.json`` and left out; the error of a single image is raised.

    Raises:
        UsageError: there are results already and ``overwrite`` is off, an image is given twice, or the embeddings are
            of another encoder; nothing was done.
        PromptError, DataError: of a single image.
        OutputError: a result cannot be written.
    """
    reporter = reporter or NullReporter()
    names = plan_outputs(requests, options)
    stored = None if options.embeddings is None else StoredEmbeddings(options.embeddings, runtime)
    results, failures = [], []
    with reporter.task("Predicting", len(requests), "images") as task:
        for index, (request, name) in enumerate(zip(requests, names, strict=True)):
            try:
                results.append(_predict_image(request, name, runtime, options, stored))
            except (DataError, PromptError) as error:
                if len(requests) == 1:
                    raise
                failures.append(BadFile(index, str(request.image), error.message))
                reporter.warning(error.message)
            task.advance()
    failures_file = options.out / _FAILURES
    if failures:
        write_json(failures_file, [asdict(failure) for failure in failures])
        return PredictResult(tuple(results), tuple(failures), failures_file)
    failures_file.unlink(missing_ok=True)  # of the run that this one replaced
    return PredictResult(tuple(results), (), None)


def plan_outputs(requests: Sequence[ImageRequest], options: PredictOptions) -> list[str]:
    """The name of each image's results. Costs nothing, so a caller can ask before it loads a model.

    Raises:
        UsageError: as :func:`predict`.
    """
    names = distinct_names([request.image for request in requests], reserved=[Path(_FAILURES).stem])
    taken = [name for name in names if any(path.exists() for path in _outputs(options.out, name))]
    if taken and not options.overwrite:
        more = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
        raise UsageError(
            f"{options.out} already holds results of {taken[0]}{more}.",
            "Choose another folder with --out, or replace them with --overwrite.",
        )
    return names


def _outputs(out: Path, name: str) -> tuple[Path, Path, Path]:
    return out / name, out / f"{name}.json", out / f"{name}_overlay.png"


def _predict_image(
    request: ImageRequest,
    name: str,
    runtime: Runtime,
    options: PredictOptions,
    stored: StoredEmbeddings | None,
) -> ImageResult:
    image, orientation = read_oriented(request.image, file_channels(runtime.channels, runtime.source))
    check_inside(request, image.shape[0], image.shape[1])
    encoded = None if stored is None else stored.of(request.image)
    folder, json_path, overlay_path = _outputs(options.out, name)
    # What is there describes masks that are about to be replaced.
    if json_path.exists():
        json_path.unlink()
    canvas = new_canvas(image) if options.overlay else None
    records = []
    for found in segment(runtime, image, request.objects, options.output, orientation, encoded):
        suffix = "" if found.candidate is None else f"_{found.candidate}"
        path = folder / f"{found.object}{suffix}.png"
        write_png(path, found.mask)
        wanted = request.objects[found.object]
        file = path.relative_to(options.out).as_posix()
        records.append(mask_record(found, wanted, runtime) | {"file": file})
        if canvas is not None and found.best:
            draw_prediction(canvas, found, wanted)
    _remove_stale(folder, {Path(record["file"]).name for record in records})
    if canvas is not None:
        write_png(overlay_path, canvas)
    else:
        overlay_path.unlink(missing_ok=True)
    write_json(json_path, records)
    return ImageResult(request.image, json_path, overlay_path if options.overlay else None, tuple(records))


def mask_record(found: MaskPrediction, wanted: ObjectRequest, runtime: Runtime) -> dict[str, Any]:
    """What is written of a mask: COCO RLE, box and area, score, what was asked, and of what model."""
    x1, y1, x2, y2 = (int(edge) for edge in mask_box(found.mask))
    return {
        "segmentation": encode_rle(found.mask),
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": int(np.count_nonzero(found.mask)),
        "predicted_iou": round(found.predicted_iou, 6),
        "object": found.object,
        "candidate": found.candidate,
        "prompts": {
            "points": [list(point) for point in wanted.points],
            "labels": list(wanted.labels),
            "box": None if wanted.box is None else list(wanted.box),
            "mask": None if wanted.mask is None else str(wanted.mask),
        },
        "model": runtime.model,
        "image_size": runtime.image_size,
        "checkpoint_sha256": runtime.sha256,
    }


def draw_prediction(canvas: np.ndarray, found: MaskPrediction, wanted: ObjectRequest) -> None:
    """Draw a mask and its prompts in the colour of its object."""
    color, width = distinct_color(found.object), line_width(canvas)
    fill_mask(canvas, found.mask, color)
    outline_mask(canvas, found.mask, color, width)
    if wanted.box is not None:
        draw_box(canvas, np.array(wanted.box), color, width)
    draw_points(canvas, np.array(wanted.points).reshape(-1, 2), np.array(wanted.labels), 2 + width)


def _remove_stale(folder: Path, written: set[str]) -> None:
    """Drop the masks of an earlier run that this one had no object for."""
    for path in folder.iterdir():
        if _MASK_FILE.fullmatch(path.name) and path.name not in written:
            path.unlink()
