"""``mobilesam report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN_FOLDER", help="Folder of a training run.", show_default=False)],
) -> None:
    """Write report.html of a training run anew, from what its folder holds.

    mobilesam train leaves one by itself; this is for a run that goes on, or was
    moved or killed. The page needs nothing but itself: curves, pictures and
    style are inside.

    [bold]Example[/]

      mobilesam report runs/mine/first
    """
    from mobilesam_cli.console import reporter, stdout
    from mobilesam_core.training.report import read_report, write_report
    from mobilesam_core.training.run_folder import RunFolder

    found = read_report(RunFolder(run))
    path = write_report(found)
    for warning in found.warnings:
        reporter().warning(warning)
    stdout().print(str(path), soft_wrap=True, markup=False)
