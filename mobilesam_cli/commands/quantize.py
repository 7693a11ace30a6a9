"""``mobilesam quantize``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mobilesam_cli.model_options import Overwrite
from mobilesam_cli.options import Json, Overrides
from mobilesam_core.errors import OutputError, UsageError

if TYPE_CHECKING:
    from mobilesam_core.data.sample import SampleSource
    from mobilesam_core.quantization.images import ImageSource
    from mobilesam_core.quantization.report import QuantizationReport

_STATIC = "Static"
_NAMES = {"static": "int8", "dynamic": "dynamic", "fp16": "fp16"}


_OF_STATIC = ("calibration", "calibration_images")
"""Options that go only with --mode static."""
_OF_ONNXRUNTIME = ("method", "exclude", "sensitivity")
"""Options that go only with --mode static of ONNX Runtime."""


def quantize(
    context: typer.Context,
    model: Annotated[
        Path, typer.Argument(metavar="MODEL.ONNX", help="An encoder or decoder of mobilesam export onnx.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="The file to write.", show_default="MODEL_int8.onnx, MODEL_int8.xml, …")
    ] = None,
    mode: Annotated[
        Literal["static", "dynamic", "fp16"],
        typer.Option(
            "--mode",
            help="static: int8 weights and activations, of an encoder. dynamic: int8 weights of matrix products. "
            "fp16: float16, for GPUs.",
        ),
    ] = "static",
    backend: Annotated[
        Literal["onnxruntime", "openvino"],
        typer.Option(
            "--backend",
            help="What the result is for. openvino: int8 by NNCF, an .xml and a .bin; "
            "pip install 'mobilesam\\[openvino]'.",
        ),
    ] = "onnxruntime",
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            help="A training config: its data.val says what is lost, its data.train is calibrated on.",
            show_default="drawn images",
        ),
    ] = None,
    overrides: Overrides = None,
    max_drop: Annotated[float, typer.Option("--max-drop", min=0, help="Points of mIoU that may be lost.")] = 1.0,
    images: Annotated[int, typer.Option("--images", min=1, help="Images of data.val to measure mIoU on.")] = 16,
    onnx_encoder: Annotated[
        Path | None, typer.Option("--onnx-encoder", help="What a decoder is tried with.", show_default="one beside it")
    ] = None,
    onnx_decoder: Annotated[
        Path | None, typer.Option("--onnx-decoder", help="What an encoder is tried with.", show_default="one beside it")
    ] = None,
    calibration: Annotated[
        list[Path] | None,
        typer.Option(
            "--calibration",
            help="Image files or folders to calibrate on (repeat).",
            show_default="those of --config",
            rich_help_panel=_STATIC,
        ),
    ] = None,
    calibration_images: Annotated[
        int, typer.Option("--calibration-images", min=1, help="So many of them.", rich_help_panel=_STATIC)
    ] = 32,
    method: Annotated[
        Literal["minmax", "entropy", "percentile"],
        typer.Option("--method", help="How ranges are chosen from activations.", rich_help_panel=_STATIC),
    ] = "entropy",
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="PATTERN",
            help="Nodes that stay in float32, such as 'Conv_*' (repeat).",
            show_default=False,
            rich_help_panel=_STATIC,
        ),
    ] = None,
    sensitivity: Annotated[
        bool,
        typer.Option(
            "--sensitivity/--no-sensitivity",
            help="Measure what each node matters, which takes one to five minutes.",
            rich_help_panel=_STATIC,
        ),
    ] = True,
    report: Annotated[
        Path | None, typer.Option("--report", help="Write the report as Markdown.", show_default=False)
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Make an exported model smaller and faster, and measure what that costs.

    Size, latency (runs of both alternate), cosine of the embeddings, and mIoU
    from boxes and single points before and after. If more than --max-drop
    points are lost, static mode leaves the nodes that matter most in float32,
    more and more of them; if that does not help, the file is called
    *.rejected.onnx and the exit code is 1.

    [bold]Examples[/]

      mobilesam quantize onnx/best_encoder.onnx --config nuclei.yaml --report int8.md

      mobilesam quantize onnx/best_decoder_batched.onnx --mode dynamic --config nuclei.yaml

      mobilesam quantize onnx/nano_encoder.onnx --calibration photos/ --max-drop 0.5

      mobilesam quantize onnx/best_encoder.onnx --backend openvino --config nuclei.yaml
    """
    from mobilesam_cli.console import print_json, reporter
    from mobilesam_core.files import write_text
    from mobilesam_core.quantization.workflow import QuantizeOptions, open_model
    from mobilesam_core.quantization.workflow import quantize as run

    openvino = backend == "openvino"
    if openvino and mode != "static":
        raise UsageError(f"--backend openvino has no --mode {mode}.", "Leave out --mode.")
    unused = _OF_ONNXRUNTIME if openvino else () if mode == "static" else (*_OF_STATIC, *_OF_ONNXRUNTIME)
    for name in unused:
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            raise UsageError(
                f"--{name.replace('_', '-')} goes only with --mode static"
                + (" and --backend onnxruntime." if openvino else "."),
                "Leave it out.",
            )
    if onnx_encoder is not None and onnx_decoder is not None:
        raise UsageError("--onnx-encoder and --onnx-decoder are both given.", "Name the half that is not quantised.")
    opened = open_model(model, onnx_encoder or onnx_decoder, mode)
    labelled, images_to_see = _data(config, overrides, calibration, len(opened.original.facts.pixel_mean))
    result = run(
        opened,
        out or model.with_name(f"{model.stem}_{_NAMES[mode]}{'.xml' if openvino else '.onnx'}"),
        QuantizeOptions(
            mode=mode,
            backend=backend,
            method=method,
            calibration_images=calibration_images,
            evaluation_images=images,
            exclude=tuple(exclude or []),
            max_drop=max_drop,
            sensitivity=sensitivity,
            overwrite=overwrite,
        ),
        labelled,
        images_to_see,
        reporter(),
    )
    if report is not None:
        write_text(report, result.to_markdown())
    if json:
        print_json(result.to_json())
    else:
        _show(result)
    if not result.passed:
        raise OutputError(
            f"{result.drop:.2f} points of mIoU are lost, more than {max_drop:g}: it is called {result.path}.",
            "Calibrate on images like those it will see (--calibration), try another --method, or --max-drop.",
        )


def _data(
    config: str | None, overrides: list[str] | None, calibration: list[Path] | None, channels: int
) -> tuple[SampleSource, ImageSource]:
    """What mIoU is measured on, and what is calibrated on."""
    from mobilesam_core.config.data import ShapesConfig
    from mobilesam_core.config.loading import load_train_config
    from mobilesam_core.data.build import build_source
    from mobilesam_core.quantization.images import ImageFiles, SampleImages

    if config is None and overrides:
        raise UsageError("--set changes a config, but there is no --config.")
    if config is None:
        labelled, root = ShapesConfig(format="shapes", count=64, seed=1000), Path()
        calibrated = ShapesConfig(format="shapes", count=64, seed=3000)
    else:
        data = load_train_config(config, overrides or []).data
        if data.val is None:
            raise UsageError(f"The config '{config}' has no data.val.", "Give it one: mIoU is measured on it.")
        labelled, calibrated, root = data.val, data.train, data.root  # type: ignore[assignment]
    source = build_source(labelled, root, channels)
    if calibration:
        return source, ImageFiles(_files(calibration), channels)
    return source, SampleImages(build_source(calibrated, root, channels))


def _files(paths: list[Path]) -> list[Path]:
    from mobilesam_core.data.reading import list_images

    files = [file for path in paths for file in (list_images(path) if path.is_dir() else [path])]
    missing = [file for file in files if not file.is_file()]
    if missing or not files:
        what = f"There is no image {missing[0]}." if missing else f"{paths[0]} holds no image."
        raise UsageError(what, "Check --calibration.")
    return files


def _show(result: QuantizationReport) -> None:
    from rich.table import Table

    from mobilesam_cli.console import stdout

    stdout().print(f"{result.path}  {result.mode}, {result.objects} objects", soft_wrap=True)
    table = Table()
    table.add_column("")
    for header in ("before", "after", ""):
        table.add_column(header, justify="right")
    for row in result.rows():
        table.add_row(*row)
    stdout().print(table)
    if result.excluded:
        stdout().print(f"Left in float32: {', '.join(result.excluded)}", soft_wrap=True)
    if result.sensitivity:
        worst = Table(title="1 - cosine, quantised alone", title_justify="left")
        for header in ("node", "operator", "loss"):
            worst.add_column(header)
        for each in result.sensitivity[:10]:
            worst.add_row(each.node, each.operator, f"{each.loss:.2e}")
        stdout().print(worst)
