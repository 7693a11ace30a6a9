"""``mobilesam app``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from mobilesam_cli.model_options import Device, Force, ImageSize, ModelType, OnnxDecoder, OnnxEncoder, Providers
from mobilesam_cli.runtimes import ModelChoice


def app(
    checkpoints: Annotated[
        list[str] | None,
        typer.Option(
            "--checkpoint",
            help="Weights (.safetensors, .pt), 'official' or 'nano'; several to choose from in the page.",
            show_default="official; offline, nano",
        ),
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            "--image", help="A sample to offer (repeat); the first is opened.", show_default="drawn ones, none opened"
        ),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen at; 0.0.0.0: all of this machine's.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option("--port", min=1, max=65535, help="Port to listen at.", show_default="7860 or the next free one"),
    ] = None,
    model_type: ModelType = None,
    image_size: ImageSize = None,
    device: Device = "auto",
    onnx_encoder: OnnxEncoder = None,
    onnx_decoder: OnnxDecoder = None,
    providers: Providers = "CPU",
    force: Force = False,
) -> None:
    """Segment images by clicks and boxes, in a browser.

    Needs the extra 'app' (Gradio); works offline. Images stay on this machine
    and are kept in memory. Exported files can be chosen in the page beside checkpoints.

    [bold]Examples[/]

      mobilesam app

      mobilesam app --checkpoint best.safetensors --checkpoint nano --image dog.jpg

      mobilesam app --onnx-encoder onnx/best_encoder.onnx --onnx-decoder onnx/best_decoder.onnx --port 8000
    """
    from mobilesam_core.app.server import listen, require_gradio, sample_images, serve

    require_gradio()
    from mobilesam_cli.console import reporter
    from mobilesam_core.app.models import Models

    named = checkpoints or []
    if onnx_encoder is not None or onnx_decoder is not None:
        choices = {name: ModelChoice(name, model_type, image_size, device) for name in named}
        # Beside checkpoints the options of torch are theirs; else they are refused.
        of_torch = (None, None, None, "auto") if choices else (None, model_type, image_size, device)
        exported = ModelChoice(*of_torch, "32", onnx_encoder, onnx_decoder, providers, force)
        choices[onnx_encoder.name if onnx_encoder else "exported"] = exported
    else:
        asked = ModelChoice(None, model_type, image_size, device, providers=providers, force=force)
        asked.check()
        if not named:
            from mobilesam_core.checkpoints.loading import default_checkpoint

            named = [default_checkpoint(model_type, reporter())]
        choices = {name: replace(asked, checkpoint=name) for name in named}
    for choice in choices.values():
        choice.check()
    with listen(host, port) as listening:
        samples = sample_images(images or [])
        models = Models({name: choice.open for name, choice in choices.items()})
        serve(models, samples, bool(images), listening, reporter())
