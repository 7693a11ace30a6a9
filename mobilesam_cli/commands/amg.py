"""``mobilesam amg``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
    Precision,
    Providers,
)
from mobilesam_cli.options import Images, Json, ShardOption
from mobilesam_cli.runtimes import ModelChoice
from mobilesam_core.errors import UsageError

if TYPE_CHECKING:
    from mobilesam_core.amg.workflow import AmgResult

_SETTINGS = "Settings (or from --config)"


def _setting(name: str, text: str, **limits: Any) -> Any:
    return typer.Option(name, help=text, show_default=False, rich_help_panel=_SETTINGS, **limits)


def amg(
    images: Images = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of the results.")] = Path("masks"),
    form: Annotated[
        Literal["png", "coco-rle", "sa1b", "coco", "labels"],
        typer.Option("--format", help="What masks are written as (see below)."),
    ] = "png",
    overlay: Annotated[bool, typer.Option("--overlay", help="Draw <name>_overlay.png too.")] = False,
    checkpoint: Checkpoint = None,
    model_type: ModelType = None,
    image_size: ImageSize = None,
    precision: Precision = "32",
    embeddings: Embeddings = None,
    shard: ShardOption = "1/1",
    config: Annotated[str | None, typer.Option("--config", help="A YAML file of settings.", show_default=False)] = None,
    points_per_side: Annotated[
        int | None, _setting("--points-per-side", "Ask at the square of so many points (32).")
    ] = None,
    points_per_batch: Annotated[
        int | None, _setting("--points-per-batch", "Decode so many together (as fits the device).")
    ] = None,
    strategy: Annotated[
        Literal["grid", "coarse-to-fine"] | None,
        _setting("--strategy", "Ask at every point, or at fewer than half, where the image differs (grid)."),
    ] = None,
    pred_iou_thresh: Annotated[
        float | None, _setting("--pred-iou-thresh", "Keep masks of a higher predicted IoU (see below; 0: all).")
    ] = None,
    stability_score_thresh: Annotated[
        float | None, _setting("--stability-score-thresh", "Least stability of a mask (see below; 0: all).")
    ] = None,
    stability_score_offset: Annotated[
        float | None, _setting("--stability-score-offset", "How far its threshold is moved for that, in logits (1).")
    ] = None,
    box_nms_thresh: Annotated[
        float | None, _setting("--box-nms-thresh", "Masks whose boxes overlap by a higher IoU are one (0.7).")
    ] = None,
    tile: Annotated[
        int | None, _setting("--tile", "Look at square tiles of so many pixels too, for small objects (none).")
    ] = None,
    overlap: Annotated[int | None, _setting("--overlap", "Pixels that neighbouring tiles share (64).")] = None,
    crop_n_layers: Annotated[
        int | None, _setting("--crop-n-layers", "Look at crops too: 4 in layer 1, 16 in layer 2 … (0).")
    ] = None,
    crop_nms_thresh: Annotated[
        float | None, _setting("--crop-nms-thresh", "Like --box-nms-thresh, between crops (0.7).")
    ] = None,
    crop_overlap_ratio: Annotated[
        float | None, _setting("--crop-overlap-ratio", "Overlap of crops, of the shorter side (0.341).")
    ] = None,
    crop_n_points_downscale_factor: Annotated[
        int | None,
        _setting("--crop-n-points-downscale-factor", "Layer n has the points a side divided by this to the n (1)."),
    ] = None,
    min_mask_region_area: Annotated[
        int | None, _setting("--min-mask-region-area", "Remove holes and separate parts of fewer pixels (0).")
    ] = None,
    min_area: Annotated[int | None, _setting("--min-area", "Leave out masks of fewer pixels (0).")] = None,
    max_masks: Annotated[
        int | None, _setting("--max-masks", "At most so many masks an image, the best-scored (all).")
    ] = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    onnx_encoder: OnnxEncoder = None,
    onnx_decoder: OnnxDecoder = None,
    providers: Providers = "CPU",
    force: Force = False,
    json: Json = False,
) -> None:
    """Segment everything in every image.

    An image of a folder is called by its path in it, any other by its stem.
    Finished images are skipped, so the same command goes on where it stopped;
    images that fail are listed in failures.jsonl, the others are done.

    Weights that were fine-tuned suggest both thresholds, exported ones too;
    others are taken with segment_anything's, 0.88 and 0.95.

    [bold]Formats[/]

      png        <name>/0.png … (0 and 255) and <name>/metadata.csv

      coco-rle   <name>.json, a list of masks as COCO RLE with box, scores, point

      sa1b       <name>.json, as in the SA-1B data set

      coco       annotations.json, one COCO file for all images

      labels     <name>.png of 16-bit ids

    [bold]Examples[/]

      mobilesam amg photos/ --out masks --overlay

      mobilesam amg 'plates/**/*.tif' --format labels --points-per-side 64 --pred-iou-thresh 0.8

      mobilesam amg scans/ --tile 512 --overlap 96 --points-per-side 16

      find . -name '*.jpg' | mobilesam amg - --format coco --shard $SLURM_ARRAY_TASK_ID/16
    """
    from mobilesam_cli.console import print_json, reporter
    from mobilesam_cli.errors import raise_failures
    from mobilesam_core.config.loading import load_amg_config
    from mobilesam_core.jobs.inputs import Shard, find_images

    given = {
        "points_per_side": points_per_side,
        "points_per_batch": points_per_batch,
        "strategy": strategy,
        "pred_iou_thresh": pred_iou_thresh,
        "stability_score_thresh": stability_score_thresh,
        "stability_score_offset": stability_score_offset,
        "box_nms_thresh": box_nms_thresh,
        "tile": tile,
        "overlap": overlap,
        "crop_n_layers": crop_n_layers,
        "crop_nms_thresh": crop_nms_thresh,
        "crop_overlap_ratio": crop_overlap_ratio,
        "crop_n_points_downscale_factor": crop_n_points_downscale_factor,
        "min_mask_region_area": min_mask_region_area,
        "min_area": min_area,
        "max_masks": max_masks,
    }
    settings = load_amg_config(config, {key: value for key, value in given.items() if value is not None})
    if overlap is not None and settings.tile is None:
        raise UsageError("--overlap is of tiles, and there are none.", "Give --tile too.")
    share = Shard.parse(shard)
    files = find_images(images or [], sys.stdin if "-" in (images or []) else (), out)

    from mobilesam_core.amg.workflow import AmgOptions, generate_masks

    options = AmgOptions(out, form, overlay, share, overwrite, embeddings)
    runtime = ModelChoice(
        checkpoint, model_type, image_size, device, precision, onnx_encoder, onnx_decoder, providers, force
    ).open()
    result = generate_masks(files, runtime, settings, options, reporter())
    if json:
        print_json(result.to_json())
    else:
        _show(result, out)
    raise_failures(len(result.failures), result.images, "segmented", result.failures_file)


def _show(result: AmgResult, out: Path) -> None:
    from mobilesam_cli.console import stdout

    rate = f", {result.images / result.seconds:.2f} images/s" if result.images and result.seconds else ""
    skipped = f" ({result.skipped} were done already)" if result.skipped else ""
    stdout().print(
        f"{result.masks} masks in {result.images} images{skipped}, {result.seconds:.1f} s{rate}: "
        f"{result.written or out}",
        soft_wrap=True,
    )
