"""``mobilesam export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mobilesam_cli.model_options import Checkpoint, ImageSize, ModelType, Overwrite
from mobilesam_cli.options import Json
from mobilesam_core.errors import OutputError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from mobilesam_core.checkpoints.loading import OpenedCheckpoint
    from mobilesam_core.export.verify import Verification
    from mobilesam_core.export.workflow import ExportedPart

VerifyImage = Annotated[
    Path | None,
    typer.Option("--image", help="The image to compare on.", show_default="a drawn one"),
]
export = typer.Typer(no_args_is_help=True, help="Write a model for other runtimes, compared with the original.")


@export.command("onnx")
def onnx(
    checkpoint: Checkpoint = None,
    encoder: Annotated[bool, typer.Option("--encoder", help="The image encoder.")] = False,
    decoder: Annotated[bool, typer.Option("--decoder", help="Prompt encoder and mask decoder.")] = False,
    combined: Annotated[bool, typer.Option("--combined", help="Image and prompts to masks, in one file.")] = False,
    decoder_style: Annotated[
        Literal["official", "batched", "low-res"],
        typer.Option(
            "--decoder-style",
            help="official: the inputs and outputs of SAM's own export. batched: any number of prompts of one image, "
            "low-resolution masks. low-res: official without orig_im_size and full-size masks.",
        ),
    ] = "official",
    single_mask: Annotated[
        bool, typer.Option("--single-mask", help="One mask a prompt, chosen as SAM's export does, instead of four.")
    ] = False,
    embed_preprocessing: Annotated[
        bool,
        typer.Option(
            "--embed-preprocessing",
            help="Take uint8 RGB images of any size (H, W, 3): resize, normalise and pad inside the graph.",
        ),
    ] = False,
    dynamic_batch: Annotated[
        bool, typer.Option("--dynamic-batch", help="The encoder takes any number of images.")
    ] = False,
    num_points: Annotated[
        int | None,
        typer.Option(
            "--num-points", min=1, help="Fix the points of a prompt, padding included.", show_default="any number"
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of the files.")] = Path("onnx"),
    opset: Annotated[
        int, typer.Option("--opset", help="ONNX operator set, 18 to 23; from 20 on GELU is one operator.")
    ] = 20,
    fp16: Annotated[
        bool, typer.Option("--fp16", help="Weights and arithmetic in float16; inputs stay float32.")
    ] = False,
    quantize_out: Annotated[
        Path | None,
        typer.Option(
            "--quantize-out",
            help="Write the part once more, with int8 weights of its products; mobilesam quantize does more.",
            show_default=False,
        ),
    ] = None,
    image: VerifyImage = None,
    model_type: ModelType = None,
    image_size: ImageSize = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Export to ONNX, and compare each file with torch before it gets its name.

    Without --encoder, --decoder or --combined: encoder and decoder. Files are
    <checkpoint>_<part>.onnx. One that differs too much is kept as
    *.rejected.onnx, and the exit code is 1. What a file takes and gives, and
    what it was made from, is in its metadata.

    [bold]Examples[/]

      mobilesam export onnx --checkpoint best.safetensors

      mobilesam export onnx --combined --embed-preprocessing --single-mask

      mobilesam export onnx --decoder --decoder-style low-res --num-points 2

      mobilesam export onnx --encoder --quantize-out onnx/encoder_int8.onnx
    """
    from mobilesam_cli.console import print_json, reporter
    from mobilesam_core.checkpoints.loading import default_checkpoint, open_checkpoint
    from mobilesam_core.export.onnx_graph import Freedom
    from mobilesam_core.export.workflow import ExportOptions, check_options, export_onnx

    wanted = {"encoder": encoder, "decoder": decoder, "combined": combined}
    parts = [part for part, yes in wanted.items() if yes] or ["encoder", "decoder"]
    options = ExportOptions(
        out=out,
        parts=parts,  # type: ignore[arg-type]
        style=decoder_style,
        single_mask=single_mask,
        preprocessing=embed_preprocessing,
        freedom=Freedom(dynamic_batch, num_points),
        opset=opset,
        fp16=fp16,
        quantize_out=quantize_out,
        overwrite=overwrite,
    )
    check_options(options)
    _check_image(image)
    opened = open_checkpoint(
        checkpoint or default_checkpoint(model_type, reporter()), model_type, reporter(), image_size
    )
    exported = export_onnx(opened, options, _pixels(image, opened), reporter())
    if json:
        print_json([_as_json(each) for each in exported])
    else:
        for each in exported:
            _show(str(each.path), each.verification, each.bytes)
    rejected = [str(each.path) for each in exported if not each.verification.passed]
    if rejected:
        raise OutputError(
            f"Not the same masks as torch's, by more than is allowed: {', '.join(rejected)}.",
            "Do not deploy that; compare on an --image of yours, or export without --fp16 or --quantize-out.",
        )


@export.command("verify")
def verify(
    model: Annotated[Path, typer.Argument(metavar="MODEL.ONNX", help="A file of mobilesam export onnx.")],
    checkpoint: Checkpoint = None,
    image: VerifyImage = None,
    model_type: ModelType = None,
    image_size: ImageSize = None,
    force: Annotated[bool, typer.Option("--force", help="Even if it was made from another checkpoint.")] = False,
    json: Json = False,
) -> None:
    """Compare an exported file with the checkpoint it was made from.

    The exit code is 1 if it differs by more than is allowed.

    [bold]Example[/]

      mobilesam export verify onnx/best_encoder.onnx --checkpoint best.safetensors
    """
    from mobilesam_cli.console import print_json, reporter
    from mobilesam_core.checkpoints.loading import default_checkpoint, open_checkpoint
    from mobilesam_core.export.workflow import verify_onnx
    from mobilesam_core.runtime.exported import open_exported

    _check_image(image)
    exported = open_exported(model)
    opened = open_checkpoint(
        checkpoint or default_checkpoint(model_type, reporter()),
        model_type,
        reporter(),
        image_size or exported.facts.image_size,
    )
    verification = verify_onnx(exported, opened, _pixels(image, opened), force)
    if json:
        print_json(_verification_json(verification))
    else:
        _show(str(model), verification, model.stat().st_size)
    if not verification.passed:
        raise OutputError(f"{model} differs from {opened.path} by more than is allowed.", "Export it again.")


def _check_image(image: Path | None) -> None:
    if image is not None and not image.is_file():
        raise UsageError(f"There is no image {image}.", "Check --image.")


def _pixels(image: Path | None, opened: OpenedCheckpoint) -> np.ndarray | None:
    if image is None:
        return None
    from mobilesam_core.data.reading import read_image
    from mobilesam_core.runtime.protocol import file_channels

    return read_image(image, file_channels(len(opened.model.pixel_mean), opened.path))


def _as_json(each: ExportedPart) -> dict[str, object]:
    from dataclasses import asdict

    return {
        "path": str(each.path),
        "bytes": each.bytes,
        "facts": asdict(each.facts),
        **_verification_json(each.verification),
    }


def _verification_json(verification: Verification) -> dict[str, object]:
    from dataclasses import asdict

    return {
        "passed": verification.passed,
        "tolerance": verification.tolerance,
        "comparisons": [asdict(each) for each in verification.comparisons],
    }


def _show(name: str, verification: Verification, size: int) -> None:
    from rich.table import Table

    from mobilesam_cli.console import stdout

    verdict = "verified" if verification.passed else "REJECTED"
    stdout().print(f"{name}  {size / 1e6:.1f} MB  {verdict} ({verification.tolerance})", soft_wrap=True)
    table = Table()
    for header in ("output", "prompt"):
        table.add_column(header, overflow="fold")
    for header in ("max |Δ|", "relative", "cosine", "mask IoU"):
        table.add_column(header, justify="right")
    for each in verification.comparisons:
        iou = "" if each.mask_iou is None else f"{each.mask_iou:.4f}"
        table.add_row(
            each.output, each.prompt, f"{each.max_abs:.2e}", f"{each.relative:.1e}", f"{each.cosine:.6f}", iou
        )
    stdout().print(table)
