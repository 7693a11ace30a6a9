"""Options of the commands that run a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from mobilesam_cli.completion import complete_checkpoint

Checkpoint = Annotated[
    str | None,
    typer.Option(
        "--checkpoint",
        help="Weights (.safetensors, .pt), 'official' or 'nano'.",
        show_default="official; offline, nano",
        autocompletion=complete_checkpoint,
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"],
    typer.Option("--device", help="Where to compute; auto is CUDA where there is a device for it, else the CPU."),
]
ModelType = Annotated[
    Literal["vit_t", "vit_b", "vit_l", "vit_h", "vit_nano"] | None,
    typer.Option("--model-type", help="The architecture of weights that do not tell theirs.", show_default=False),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        "--image-size",
        min=64,
        help="Side of the model's input in pixels, a multiple of 64: larger finds smaller objects and takes longer.",
        show_default="what the weights were made at",
    ),
]
Precision = Annotated[
    Literal["32", "bf16"],
    typer.Option("--precision", help="Of the model's numbers: float32, or bfloat16, which is not exact."),
]
Embeddings = Annotated[
    Path | None,
    typer.Option(
        "--embeddings",
        help="Take image embeddings from this folder, which mobilesam embed made with the same weights.",
        show_default=False,
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results of an earlier run.")]
_ONNX = "ONNX Runtime instead of torch"
OnnxEncoder = Annotated[
    Path | None,
    typer.Option(
        "--onnx-encoder",
        help="An encoder of mobilesam export onnx, or an OpenVINO .xml, in place of a checkpoint.",
        show_default=False,
        rich_help_panel=_ONNX,
    ),
]
OnnxDecoder = Annotated[
    Path | None,
    typer.Option(
        "--onnx-decoder",
        help="Its decoder; quickest of --decoder-style batched.",
        show_default=False,
        rich_help_panel=_ONNX,
    ),
]
Providers = Annotated[
    str,
    typer.Option(
        "--providers",
        help="Execution providers of ONNX Runtime, the preferred one first: CUDA,CPU. OpenVINO: its own runtime.",
        rich_help_panel=_ONNX,
    ),
]
Force = Annotated[
    bool,
    typer.Option("--force", help="Even if the two were exported from different checkpoints.", rich_help_panel=_ONNX),
]
