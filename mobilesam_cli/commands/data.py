"""``mobilesam data``."""

from __future__ import annotations

import typer

from mobilesam_cli.commands.data_convert import convert

data = typer.Typer(no_args_is_help=True, help="Look after data sets.")
data.command("convert")(convert)


@data.callback()
def _group() -> None:
    """Keeps ``convert`` a word of its own while it is the only command."""
