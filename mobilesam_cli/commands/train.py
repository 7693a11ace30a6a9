"""``mobilesam train``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mobilesam_cli.completion import complete_config
from mobilesam_cli.options import Json, Overrides

if TYPE_CHECKING:
    from mobilesam_core.training.workflow import TrainResult


def train(
    config: Annotated[
        str,
        typer.Argument(
            help="A YAML config, or the name of a packaged one ('quickstart').",
            show_default=False,
            autocompletion=complete_config,
        ),
    ],
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run of this config where it stopped.")] = False,
    devices: Annotated[
        int | None,
        typer.Option(
            "--devices", min=1, help="Processes on this machine, a GPU each (train.devices).", show_default=False
        ),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option("--strategy", help="How they share the work: ddp (train.strategy).", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Fine-tune a model on images and masks, as a YAML config says.

    Writes checkpoints, metrics, overlays and report.html to output_dir/project/run/. Ctrl-C saves and stops;
    --resume goes on.

    [bold]Examples[/]

      mobilesam train quickstart

      mobilesam train my.yaml --set data.root=/data/nuclei --set optim.lr=1e-4

      mobilesam train my.yaml --resume

      mobilesam train my.yaml --devices 4

      torchrun --nnodes 2 --nproc-per-node 4 -m mobilesam_cli train my.yaml
    """
    from mobilesam_cli.console import print_json, reporter
    from mobilesam_core.config.loading import load_train_config

    given = {"train.devices": devices, "train.strategy": strategy}
    options = [f"{key}={value}" for key, value in given.items() if value is not None]
    settings = load_train_config(config, [*(overrides or []), *options])
    # Torch takes seconds to import: not before the config is known to be right.
    from mobilesam_core.training.workflow import train as run_training

    result = run_training(settings, resume=resume, reporter=reporter())
    if result.process > 0:
        return
    if json:
        print_json(_as_json(result))
    else:
        _show(result)


def _as_json(result: TrainResult) -> dict[str, object]:
    from dataclasses import asdict

    return {name: value if isinstance(value, int | float | dict | None) else str(value)
            for name, value in asdict(result).items()}  # fmt: skip


def _show(result: TrainResult) -> None:
    from rich.table import Table

    from mobilesam_cli.console import stdout

    before, after = result.before, result.metrics
    if after:
        table = Table(title="Validation after the last epoch", title_justify="left")
        table.add_column("prompt")
        taught = "box_agreement" in after
        for name in (
            *(["mIoU before"] if before else []),
            "mIoU after",
            "Dice after",
            *(["agreement with the teacher"] if taught else []),
            "fill the box",
        ):
            table.add_column(name, justify="right")
        for prompt, kind, baseline in (("box", "box", f"{after['fill_box_miou']:.3f}"), ("one point", "point", "")):
            earlier = [before[f"{kind}_miou"]] if before else []
            cells = [*earlier, after[f"{kind}_miou"], after[f"{kind}_dice"]]
            cells += [after[f"{kind}_agreement"]] if taught else []
            table.add_row(prompt, *(f"{value:.3f}" for value in cells), baseline)
        stdout().print(table)
    memory = f", peak memory {result.peak_memory_mb / 1024:.1f} GiB" if result.peak_memory_mb else ""
    stdout().print(f"{result.steps} steps in {result.seconds:.0f} s{memory}")
    best = f" (epoch {result.best_epoch})" if result.best_epoch else ""
    stdout().print(f"best{best}: {result.best}", soft_wrap=True)
    stdout().print(f"last: {result.last}", soft_wrap=True)
    stdout().print(f"report: {result.report}", soft_wrap=True)
