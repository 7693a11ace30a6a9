"""``mobilesam demo``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobilesam_cli.options import Json

if TYPE_CHECKING:
    from mobilesam_core.demo.outcome import DemoResult


def demo(
    out: Annotated[Path, typer.Option("--out", help="A new folder for all that is made.")] = Path("demo"),
    images: Annotated[
        int, typer.Option("--images", min=16, help="Images drawn to learn from; a sixteenth as many to measure on.")
    ] = 288,
    image_size: Annotated[
        int, typer.Option("--image-size", min=64, help="Side of the model's input in pixels, a multiple of 64.")
    ] = 384,
    json: Json = False,
) -> None:
    """Show all of it, offline, in three minutes on two CPU cores.

    Draws images of a kind that the weights have never seen, measures,
    fine-tunes, measures again, predicts, finds everything, exports, verifies
    and quantises. index.html in the folder shows pictures before and after,
    figures, and the command of each step.

    [bold]Examples[/]

      mobilesam demo

      mobilesam demo --out /tmp/look --images 64 --image-size 256
    """
    began = time.perf_counter()
    from mobilesam_cli.console import print_json, reporter
    from mobilesam_core.demo.plan import DemoOptions
    from mobilesam_core.demo.workflow import run_demo

    result = run_demo(DemoOptions(out, images, image_size), reporter(), began)
    if json:
        print_json(result.to_json())
    else:
        _show(result)


def _show(result: DemoResult) -> None:
    from rich.table import Table

    from mobilesam_cli.console import stdout

    table = Table()
    for header in ("", "step", "s", "what came of it"):
        table.add_column(header, justify="right" if header == "s" else "left")
    for number, step in enumerate(result.steps, 1):
        table.add_row(str(number), step.title, f"{step.seconds:.1f}", step.outcome.sentence)
    stdout().print(table)
    for kind, label in (("box", "box"), ("point", "one point")):
        gain = result.gain(kind)  # type: ignore[arg-type]
        if gain is not None:
            stdout().print(f"mIoU by {label}: {gain[0]:.3f} before, {gain[1]:.3f} after fine-tuning")
    stdout().print(f"{result.seconds:.0f} s in all; open this page in a browser: {result.page}", soft_wrap=True)
