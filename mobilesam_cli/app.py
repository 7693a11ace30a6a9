"""Builds the command line and holds its one error boundary."""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys
from typing import Annotated

import typer

from mobilesam_cli.commands.amg import amg
from mobilesam_cli.commands.app import app as serve
from mobilesam_cli.commands.config import config
from mobilesam_cli.commands.data import data
from mobilesam_cli.commands.demo import demo
from mobilesam_cli.commands.distill import distill
from mobilesam_cli.commands.doctor import doctor
from mobilesam_cli.commands.embed import embed
from mobilesam_cli.commands.eval import evaluate
from mobilesam_cli.commands.export import export
from mobilesam_cli.commands.predict import predict
from mobilesam_cli.commands.quantize import quantize
from mobilesam_cli.commands.report import report
from mobilesam_cli.commands.train import train
from mobilesam_cli.errors import report_error
from mobilesam_core.errors import Interrupted
from mobilesam_core.interrupt import interrupts_kept
from mobilesam_core.machine import keep_memory

app = typer.Typer(
    name="mobilesam",
    help="Fine-tune, evaluate and run MobileSAM: promptable segmentation with a small image encoder.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(show: bool) -> None:
    if show:
        from mobilesam_core import __version__

        typer.echo(f"mobilesam {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="MOBILESAM_DEBUG", help="Show the traceback of an error.")
    ] = False,
) -> None:
    if debug:
        os.environ["MOBILESAM_DEBUG"] = "1"


app.command("demo")(demo)
app.command("train")(train)
app.command("report")(report)
app.command("eval")(evaluate)
app.command("predict")(predict)
app.command("amg")(amg)
app.command("app")(serve)
app.command("embed")(embed)
app.add_typer(distill, name="distill")
app.add_typer(export, name="export")
app.command("quantize")(quantize)
app.add_typer(data, name="data")
app.add_typer(config, name="config")
app.command("doctor")(doctor)


def main() -> None:
    """Run the command line; every error a user can cause ends here as one sentence and an exit code."""
    _share_cores()
    _collect_seldom()
    keep_memory()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: names may hold what the encoding lacks
    try:
        with interrupts_kept():
            app()
    except KeyboardInterrupt:
        sys.exit(Interrupted.exit_code)
    except Exception as error:
        if os.environ.get("MOBILESAM_DEBUG"):
            raise
        sys.exit(report_error(error))


def _share_cores() -> None:
    """Let torch's threads wait busily for microseconds only: by default, for milliseconds.

    Alone a training of nano is as fast either way; of two at once on 2 cores, each takes 44 s and not 102.
    To be called before torch is imported, which reads the setting once; a setting of the user's own stays.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "10000"


def _collect_seldom() -> None:
    """Look for garbage in cycles seldom, and not once more as the process ends.

    Of a command that takes two seconds, Python spends half a one in that: importing makes hundreds of thousands
    of objects that all stay, and it looks at them again every few thousand, and at the end at each.
    """
    gc.set_threshold(10_000, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)
