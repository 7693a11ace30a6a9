"""``mobilesam embed``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mobilesam_cli.model_options import (
    Checkpoint,
    Device,
    Force,
    ImageSize,
    ModelType,
    OnnxDecoder,
    OnnxEncoder,
    Precision,
    Providers,
)
from mobilesam_cli.options import Images, Json, ShardOption
from mobilesam_cli.runtimes import ModelChoice


def embed(
    images: Images = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of the feature store.")] = Path("embeddings"),
    checkpoint: Checkpoint = None,
    model_type: ModelType = None,
    image_size: ImageSize = None,
    precision: Precision = "32",
    shard: ShardOption = "1/1",
    device: Device = "auto",
    onnx_encoder: OnnxEncoder = None,
    onnx_decoder: OnnxDecoder = None,
    providers: Providers = "CPU",
    force: Force = False,
    json: Json = False,
) -> None:
    """Store image embeddings, so that the image encoder runs once an image.

    amg, predict and eval read them with --embeddings; they are found by what
    is in an image file, whatever it is called. They depend on the weights of
    the image encoder and on the image size, and are refused by others.
    Images that are stored are skipped, so the same command goes on where it
    stopped; images that fail are listed in failures.jsonl.

    Files of some 64 MiB in .safetensors, float16; 2 MiB an image for vit_t.

    [bold]Examples[/]

      mobilesam embed photos/ --out embeddings

      mobilesam amg photos/ --embeddings embeddings --points-per-side 64

      mobilesam embed photos/ --out embeddings --shard $SLURM_ARRAY_TASK_ID/16
    """
    from mobilesam_cli.console import print_json, reporter, show_stored
    from mobilesam_cli.errors import raise_failures
    from mobilesam_core.jobs.inputs import Shard, find_images

    share = Shard.parse(shard)
    files = find_images(images or [], sys.stdin if "-" in (images or []) else (), out)

    from mobilesam_core.embedding.workflow import EmbeddingExtractor, store_features

    runtime = ModelChoice(
        checkpoint, model_type, image_size, device, precision, onnx_encoder, onnx_decoder, providers, force
    ).open()
    result = store_features(files, EmbeddingExtractor(runtime), out, shard=share, reporter=reporter())
    if json:
        print_json(result.to_json())
    else:
        show_stored("embeddings", result, out)
    raise_failures(len(result.failures), result.images, "embedded", result.failures_file)
