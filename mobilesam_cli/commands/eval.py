"""``mobilesam eval``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from mobilesam_cli.completion import complete_checkpoint
from mobilesam_cli.data_sets import set_of_config
from mobilesam_cli.model_options import (
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
from mobilesam_cli.options import DataConfig, Json, MaskMode, Overrides
from mobilesam_cli.runtimes import ModelChoice
from mobilesam_core.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mobilesam_core.config.data import SetConfig
    from mobilesam_core.config.tiles import TileConfig
    from mobilesam_core.evaluation.summary import ClickFigures
    from mobilesam_core.evaluation.workflow import CheckpointResult, EverythingResult, PromptsResult

    ResultT = TypeVar("ResultT", bound=CheckpointResult)

_AMG = "Without prompts"
_OF_PROMPTS, _OF_AMG = ("prompts", "clicks", "mask_threshold", "worst", "teacher"), ("amg_config", "amg_set")
"""Options that go only without, and only with, --amg."""


def evaluate(
    context: typer.Context,
    checkpoints: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CHECKPOINT...", help="Weight files (.safetensors, .pt), 'official' or 'nano'.", show_default=False
        ),
    ] = None,
    config: DataConfig = None,
    split: Annotated[Literal["val", "train"], typer.Option("--split", help="Which set of the config.")] = "val",
    images: Annotated[
        Path | None, typer.Option("--images", help="Or: a folder of images, and …", show_default=False)
    ] = None,
    masks: Annotated[
        Path | None, typer.Option("--masks", help="… a folder of masks of the same stems, or …", show_default=False)
    ] = None,
    mask_mode: Annotated[MaskMode, typer.Option("--mask-mode", help="What --masks hold.")] = "instances",
    annotations: Annotated[
        Path | None, typer.Option("--annotations", help="… a COCO JSON file.", show_default=False)
    ] = None,
    amg: Annotated[
        bool,
        typer.Option("--amg", help="Evaluate what mobilesam amg would find.", rich_help_panel=_AMG),
    ] = False,
    amg_config: Annotated[
        str | None,
        typer.Option("--amg-config", help="A YAML file of its settings.", show_default=False, rich_help_panel=_AMG),
    ] = None,
    amg_set: Annotated[
        list[str] | None,
        typer.Option(
            "--amg-set",
            metavar="KEY=VALUE",
            help="One of its settings, e.g. --amg-set points_per_side=64. May be given several times.",
            show_default=False,
            rich_help_panel=_AMG,
        ),
    ] = None,
    tile: Annotated[
        int | None,
        typer.Option(
            "--tile",
            help="Look in square tiles of so many pixels, for small objects in large images.",
            show_default="data.tile of --config",
        ),
    ] = None,
    overlap: Annotated[
        int | None, typer.Option("--overlap", help="Pixels that neighbouring tiles share.", show_default="64")
    ] = None,
    prompts: Annotated[str, typer.Option("--prompts", help="Kinds of prompt, of: box, point, clicks.")] = "box,point",
    clicks: Annotated[int, typer.Option("--clicks", min=1, help="Corrective clicks of 'clicks'.")] = 5,
    mask_threshold: Annotated[float, typer.Option("--mask-threshold", help="Logits above it are mask.")] = 0.0,
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher",
            help="Weights whose masks, of the same prompts, are compared with.",
            show_default=False,
            autocompletion=complete_checkpoint,
        ),
    ] = None,
    max_images: Annotated[
        int | None, typer.Option("--max-images", min=1, help="Evaluate so many, evenly spread.", show_default="all")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for metrics.json, and per checkpoint objects.csv and worst/*.png; with --amg "
            "detections.json and ground_truth.json of COCO's formats.",
            show_default=False,
        ),
    ] = None,
    worst: Annotated[
        int, typer.Option("--worst", min=0, help="With --out: pictures of so many worst objects a kind of prompt.")
    ] = 8,
    overwrite: Overwrite = False,
    model_type: ModelType = None,
    image_size: ImageSize = None,
    embeddings: Embeddings = None,
    device: Device = "auto",
    onnx_encoder: OnnxEncoder = None,
    onnx_decoder: OnnxDecoder = None,
    providers: Providers = "CPU",
    force: Force = False,
    overrides: Overrides = None,
    json: Json = False,
) -> None:
    """Measure how good a model's masks are: mIoU, Dice, boundary IoU, overall and by object size.

    Every object counts, at the image's own resolution.
    'mIoU' is of the mask a user would get: of a single point the best-scored
    of the model's three masks, else its single-mask output. 'oracle' is the
    best of the three. 'fill the box' is the trivial answer.
    Sizes are COCO's: small below 32², medium below 96² pixels.
    With --teacher, 'agreement' is the mean IoU with its masks.
    With --tile an object is asked about in the tile that holds it whole, one that
    is cut in all of them in the whole image.

    With --amg there is no prompt: all objects are to be found, whatever they are.
    'found@0.7' is the share of objects with which a mask has an IoU of 0.7 or more.
    AR@100 and AR@1000 are COCO's average recall of the 100 and 1000 best-scored
    masks of each image. AP is its average precision of the 1000: a mask of
    something that nobody annotated is a mistake.
    Thresholds that are not set are those that each checkpoint suggests.

    [bold]Examples[/]

      mobilesam eval runs/nuclei/run/best.safetensors --config nuclei.yaml

      mobilesam eval a.pt b.pt --images val/images --masks val/masks --prompts box,clicks

      mobilesam eval official --images val2017 --annotations val2017.json --out report

      mobilesam eval student.safetensors --teacher big.safetensors --config nuclei.yaml

      mobilesam eval official best.safetensors --config nuclei.yaml --amg --amg-set points_per_side=64

      mobilesam eval best.safetensors --config slides.yaml --tile 512 --overlap 96

      mobilesam eval best.safetensors --onnx-encoder int8.onnx --onnx-decoder dec.onnx --config nuclei.yaml
    """  # fmt: skip
    _check_what_goes_together(context, amg)
    data, root, tiles = _data(config, split, overrides, images, masks, mask_mode, annotations)

    from mobilesam_cli.console import reporter
    from mobilesam_core.config.loading import apply_overrides, load_amg_config, validate
    from mobilesam_core.config.tiles import TileConfig
    from mobilesam_core.evaluation.types import EvalOptions
    from mobilesam_core.evaluation.workflow import check_output_folder, evaluate_amg, evaluate_prompts
    from mobilesam_core.ops.tiles import Tiling

    given = {name: value for name, value in (("tile", tile), ("overlap", overlap)) if value is not None}
    changes = apply_overrides({}, amg_set or [], "--amg-set")
    settings = load_amg_config(amg_config, changes | given if amg else changes)
    of_config = {"tile": tiles.tile, "overlap": tiles.overlap}
    tiles = validate(TileConfig, of_config if amg else of_config | given, "The choice of tiles")
    if overlap is not None and (settings if amg else tiles).tile is None:
        raise UsageError("--overlap is of tiles, and there are none.", "Give --tile too.")
    kinds = tuple(kind.strip() for kind in prompts.split(","))
    options = EvalOptions(
        prompts=kinds,  # type: ignore[arg-type]  # EvalOptions checks them
        clicks=clicks,
        mask_threshold=mask_threshold,
        max_images=max_images,
        tiling=Tiling.of(tiles),
    )
    if out is not None:
        check_output_folder(out, overwrite)
    exported = onnx_encoder is not None or onnx_decoder is not None
    if not checkpoints and not exported:
        raise UsageError("Nothing to evaluate is named.", "Name checkpoints, or --onnx-encoder and --onnx-decoder.")
    choices = [ModelChoice(checkpoint, model_type, image_size, device) for checkpoint in checkpoints or []]
    if exported:
        of_torch = (None, None, "auto") if checkpoints else (model_type, image_size, device)
        choices.append(
            ModelChoice(
                None,
                *of_torch,
                onnx_encoder=onnx_encoder,
                onnx_decoder=onnx_decoder,
                providers=providers,
                force=force,
            )
        )
    runtimes = [choice.open() for choice in choices]
    if amg:
        found = evaluate_amg(
            runtimes,
            data,
            root,
            settings,
            max_images=max_images,
            embeddings=embeddings,
            reporter=reporter(),
        )
        _finish(found, out, json, _show_everything)
    else:
        results = evaluate_prompts(
            runtimes,
            data,
            root,
            options,
            worst=worst if out is not None else 0,
            embeddings=embeddings,
            teacher=None if teacher is None else ModelChoice(teacher, None, None, device).open(),
            reporter=reporter(),
        )
        _finish(results, out, json, _show_prompts)


def _check_what_goes_together(context: typer.Context, amg: bool) -> None:
    for name in _OF_PROMPTS if amg else _OF_AMG:
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} goes {'without' if amg else 'only with'} --amg.", f"Leave out {option}.")


def _finish(
    results: Sequence[ResultT], out: Path | None, json: bool, show: Callable[[Sequence[ResultT]], None]
) -> None:
    """Write and print the results, and raise for what could not be evaluated."""
    from mobilesam_cli.console import print_json
    from mobilesam_core.evaluation.workflow import results_json, write_results

    if out is not None:
        write_results(results, out)
    if json:
        print_json(results_json(results))
    else:
        show(results)
    failures = results[0].evaluation.failures
    if failures:
        raise DataError(
            f"{len(failures)} files or objects of the data could not be evaluated and are in no figure:\n  "
            + "\n  ".join(failure.problem for failure in failures),
            "Repair or remove them.",
        )


def _data(
    config: str | None,
    split: Literal["val", "train"],
    overrides: list[str] | None,
    images: Path | None,
    masks: Path | None,
    mask_mode: MaskMode,
    annotations: Path | None,
) -> tuple[SetConfig, Path, TileConfig]:
    """The data set the options name, what its paths are relative to, and the tiles of a config."""
    from mobilesam_core.config.data import CocoConfig, FolderConfig
    from mobilesam_core.config.tiles import TileConfig

    given = [name for name, value in (("--config", config), ("--images", images)) if value is not None]
    if len(given) != 1:
        raise UsageError(
            "Name the data once: " + (" and ".join(given) + " are both given." if given else "none is given."),
            "Use --config train.yaml, or --images with --masks or --annotations.",
        )
    if config is not None:
        if masks is not None or annotations is not None:
            raise UsageError("--masks and --annotations go with --images, not with --config.")
        chosen, section = set_of_config(config, split, overrides or [])
        return chosen, section.root, section
    assert images is not None
    if overrides:
        raise UsageError("--set changes a config, but there is no --config.")
    if (masks is None) == (annotations is None):
        raise UsageError("--images needs either --masks or --annotations.")
    if masks is not None:
        return FolderConfig(format="folder", images=images, masks=masks, mask_mode=mask_mode), Path(), TileConfig()
    assert annotations is not None
    return CocoConfig(format="coco", images=images, annotations=annotations), Path(), TileConfig()


def _show_everything(results: Sequence[EverythingResult]) -> None:
    from rich.table import Table

    from mobilesam_cli.console import stdout

    summaries = [(result.name, result.evaluation.summary) for result in results]
    first = summaries[0][1]  # the objects are the same for all
    title = f"{first.objects} objects in {len(results[0].evaluation.finds)} images"
    # Narrow, so that all figures are legible in 80 columns; only names may be broken.
    table = Table(title=title, title_justify="left", padding=0, show_edge=False)
    table.add_column("checkpoint", overflow="fold")
    found = [f"found\n@{iou}" for iou in first.found]
    sizes = [f"@{list(first.found)[-1]}\n{size}\n({figures.objects})" for size, figures in first.by_size.items()]
    per_image = "masks\nper\nimage", "sec.\nper\nimage"
    for header in ("AR\n@100", "AR\n@1000", "AP", "AP50", "AP75", *found, *sizes, *per_image):
        table.add_column(header, justify="right", no_wrap=True)
    for name, summary in summaries:
        by_size = [list(figures.found.values())[-1] for figures in summary.by_size.values()]
        averages = [summary.ar_100, summary.ar_1000, summary.ap, summary.ap_50, summary.ap_75]
        figures = [*averages, *summary.found.values(), *by_size]
        means = f"{summary.masks_per_image:.1f}", f"{summary.seconds_per_image:.2f}"
        table.add_row(name, *map(_figure, figures), *means)
    stdout().print(table)


def _show_prompts(results: Sequence[PromptsResult]) -> None:
    from rich.table import Table

    from mobilesam_cli.console import stdout

    summaries = [
        (result.name, result.evaluation.summary(kind))
        for result in results
        for kind in result.evaluation.options.prompts
    ]
    # The data, and with them the trivial answer, are the same for all.
    first = summaries[0][1]
    table = Table(title=f"{first.objects} objects in {results[0].evaluation.images} images", title_justify="left")
    table.add_column("checkpoint", overflow="fold")
    table.add_column("prompt")
    sizes = [f"{size} ({means.objects})" for size, means in first.by_size.items()]
    with_teacher = first.agreement is not None
    for header in ("mIoU", "oracle", "Dice", "boundary", *["agreement"][:with_teacher], *sizes):
        table.add_column(header, justify="right")
    for name, summary in summaries:
        by_size = [means.miou for means in summary.by_size.values()]
        agreement = [summary.agreement] if with_teacher else []
        figures = [summary.miou, summary.miou_oracle, summary.dice, summary.boundary_iou, *agreement, *by_size]
        table.add_row(name, summary.kind, *map(_figure, figures))
    table.add_section()
    by_size = [means.fill_box_iou for means in first.by_size.values()]
    baseline = [first.fill_box_iou, None, first.fill_box_dice, first.fill_box_boundary_iou]
    baseline += [*[None][:with_teacher], *by_size]
    table.add_row("fill the box", "", *map(_figure, baseline), style="italic")
    stdout().print(table)
    clicked = [(name, summary.clicks) for name, summary in summaries if summary.clicks is not None]
    if clicked:
        _show_clicks(clicked)


def _show_clicks(clicked: Sequence[tuple[str, ClickFigures]]) -> None:
    from rich.table import Table

    from mobilesam_cli.console import stdout

    first = clicked[0][1]
    table = Table(title="mIoU after each click, and clicks to reach an IoU", title_justify="left")
    table.add_column("checkpoint", overflow="fold")
    clicks = [str(n) for n in range(1, len(first.iou_after) + 1)]
    for header in (*clicks, *(f"NoC@{target}" for target in first.noc)):
        table.add_column(header, justify="right")
    for name, figures in clicked:
        counts = [f"{figures.noc[t]:.2f} ({figures.reached[t]:.0%} reach it)" for t in figures.noc]
        table.add_row(name, *map(_figure, figures.iou_after), *counts)
    stdout().print(table)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
