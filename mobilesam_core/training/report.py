"""``report.html`` of a run: read from its folder alone, so that it can be made anew at any time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mobilesam_core.config.loading import load_train_config
from mobilesam_core.errors import DataError, MobileSamError, UsageError
from mobilesam_core.files import printable, write_text
from mobilesam_core.training.details import read_details
from mobilesam_core.training.history import read_history
from mobilesam_core.training.report_page import Comparison, Report, render
from mobilesam_core.training.run_folder import RunFolder


def read_report(folder: RunFolder) -> Report:
    """What the files of ``folder`` tell.

    Raises:
        UsageError: it is not the folder of a run.
        ConfigError, DataError: one of its files is broken.
    """
    history = read_history(folder.metrics)
    if not folder.config.is_file():
        raise UsageError(
            f"{folder.path} is not the folder of a training run: it has no {folder.config.name}.",
            "Name the folder that holds it (output_dir/project/run).",
        )
    config = load_train_config(str(folder.config))
    ranked = history.ranked(config.train.validation.metric)
    best = ranked[0] if ranked else None
    start = history.before or next((each for each in history.val if each in ranked), None)
    path = folder.path.resolve()
    return Report(
        path=folder.report,
        name=printable(f"{path.parent.name}/{path.name}"),
        config=config,
        config_text=folder.config.read_text("utf-8"),
        environment=_environment(folder.environment),
        history=history,
        ranked=ranked,
        start=start,
        comparisons=_comparisons(folder, start.epoch, best.epoch) if start and best else [],
        details=read_details(folder.validation(best.epoch)) if best else None,
        details_folder=folder.validation(best.epoch if best else 0),
    )


def write_report(report: Report) -> Path:
    """Write the page; returns its path.

    Raises:
        DataError: a picture of the run cannot be read.
        OutputError: the page cannot be written.
    """
    write_text(report.path, render(report))
    return report.path


def update_report(folder: RunFolder) -> list[str]:
    """Write the page of a run at work; returns what it warns of. That it cannot be written is a warning too: the
    training goes on."""
    try:
        report = read_report(folder)
        write_report(report)
    except MobileSamError as error:
        return [f"There is no report of this run: {error}"]
    return report.warnings


def _environment(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}.", "Remove that file.") from error
    return found if isinstance(found, dict) else {}


def _comparisons(folder: RunFolder, start: int, best: int) -> list[Comparison]:
    """The pictures of the best epoch, each with the one of the start where that is another."""
    found = []
    for after in sorted(folder.overlays(best).glob("*.png")):
        before = folder.overlays(start) / after.name
        found.append(Comparison(before if start != best and before.exists() else None, after))
    return found
