"""``mobilesam train``: config in, trained weights out."""

from __future__ import annotations

import shutil
import time
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from mobilesam_core.checkpoints.resume import read_state
from mobilesam_core.config.loading import changed_keys
from mobilesam_core.config.train import TrainConfig
from mobilesam_core.errors import CheckpointError, UsageError
from mobilesam_core.interrupt import StopRequest
from mobilesam_core.progress import NullReporter, Reporter
from mobilesam_core.training.cache import cache_embeddings
from mobilesam_core.training.everything import check_everything
from mobilesam_core.training.loop import fit, save
from mobilesam_core.training.memory import peak_memory_mb
from mobilesam_core.training.processes import Processes, start_processes
from mobilesam_core.training.report import update_report
from mobilesam_core.training.run import Run
from mobilesam_core.training.run_folder import claim_run_folder
from mobilesam_core.training.setup import (
    build_model,
    build_run,
    build_sets,
    build_step,
    build_teachers,
    resolve,
)
from mobilesam_core.training.trackers.tracker import choose_trackers, is_installed

# Keys that change how fast or how loudly a run goes, but not what it computes.
_MAY_CHANGE = (
    "data.workers",
    "train.output_dir",
    "train.cache.folder",
    "train.on_taken",
    "train.threads",
    "train.log_every",
    "train.loggers",
    "train.checkpoint_every",
    "train.devices",
    "train.gradient_checkpointing",
    "train.validation.before",
    "train.validation.everything",
)


@dataclass(frozen=True)
class TrainResult:
    """What a run left behind.

    before, metrics: validation of the start weights and after the last epoch; empty if there was none.
    process: which of the processes of the run this is; the first, 0, is the one that tells.
    """

    folder: Path
    best: Path
    last: Path
    report: Path
    steps: int
    epochs: int
    best_epoch: int | None
    before: dict[str, float]
    metrics: dict[str, float]
    seconds: float
    peak_memory_mb: float | None
    process: int


def train(config: TrainConfig, resume: bool = False, reporter: Reporter | None = None) -> TrainResult:
    """Run or continue a training.

    With ``train.devices`` this process starts the others, each of which runs this program's command line from its
    beginning, and so comes here too.

    Raises:
        UsageError: the run folder is taken, or ``resume`` with a config that changes the result.
        DataError, CheckpointError, OutputError: as the modules below say.
        TrainingError: a loss or gradient was not finite, or another process of the run has ended.
        Interrupted: Ctrl-C or SIGTERM; the state was saved.
    """
    began = time.perf_counter()
    config = resolve(config)
    choose_trackers(config.train.loggers)
    fabric, processes = start_processes(config.train, config.optim.batch_size)
    if reporter is None or not processes.first:
        reporter = NullReporter()
    with processes.held():
        run = _train(config, resume, fabric, processes, reporter)
    return TrainResult(
        folder=run.folder.path,
        best=run.folder.best,
        last=run.folder.last,
        report=run.folder.report,
        steps=run.position.step,
        epochs=run.position.epoch,
        best_epoch=run.position.best_epoch,
        before=run.position.before,
        metrics=run.position.metrics,
        seconds=time.perf_counter() - began,
        peak_memory_mb=peak_memory_mb(fabric.device),
        process=processes.rank,
    )


def _train(config: TrainConfig, resume: bool, fabric: Fabric, processes: Processes, reporter: Reporter) -> Run:
    folder = processes.from_first(lambda: claim_run_folder(config, resume))
    state = processes.together(lambda: _read_same(config, folder.state)) if resume else None
    teachers = processes.one_by_one(lambda: build_teachers(config, fabric.device, reporter))
    model = processes.one_by_one(lambda: build_model(config, teachers, fabric.device, reporter))
    step = processes.together(lambda: build_step(config, model, teachers))
    sets = build_sets(config, model, teachers, folder, processes, reporter)
    if state is not None:
        # The encoder that the run began with, whatever model.checkpoint holds by now.
        model.load_state_dict(state["parts"]["model"])
    if state is None or state["position"]["epoch"] < config.train.epochs:
        sets = cache_embeddings(config, model, sets, folder, fabric, processes, reporter)
    run = build_run(config, folder, fabric, processes, step, sets, teachers, state, reporter)
    _announce(run)
    with run.log or nullcontext(), closing(run.loader):
        # Until here a signal may simply end the process: there is nothing to save.
        with StopRequest() as stop:
            if state is None:
                if processes.first:
                    folder.write_config(config)
                save(run)
            try:
                fit(run, stop)
                check_everything(run, stop)
            finally:
                # Of what was done before an interruption or a failure, too.
                warnings = update_report(folder) if processes.first else []
            for warning in warnings:
                reporter.warning(warning)
        if processes.first:
            shutil.rmtree(folder.embeddings, ignore_errors=True)
    return run


def _read_same(config: TrainConfig, path: Path) -> dict[str, Any]:
    """The state of a run that was started with ``config``."""
    state = read_state(path)
    try:
        saved = TrainConfig.model_validate_json(state["config"])
    except ValueError as error:
        raise CheckpointError(
            f"{path} was written by another version of mobilesam: its config is not understood.",
            "Start a new run from its last.safetensors with model.checkpoint.",
        ) from error
    # Resolved anew: a run of an older version did not have every choice to save.
    changes = [line for line in changed_keys(resolve(saved), config) if not line.startswith(_MAY_CHANGE)]
    if changes:
        raise UsageError(
            f"The config differs from the one of the run to resume ({path.parent}):\n  " + "\n  ".join(changes),
            "Resume with the config it was started with, or start a new run (train.run) from its last.safetensors.",
        )
    return state


def _devices(run: Run) -> str:
    device, count = run.fabric.device, run.processes.count
    return str(device) if count == 1 else f"{count} x {device.type}"


def _announce(run: Run) -> None:
    config, model = run.config, run.model
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    seen = "images" if config.data.tile is None else f"tiles of {len(run.sets.train.source)} images"
    run.reporter.info(
        f"{config.model.name} at {model.image_size}², {learning / 1e6:.2f} of {total / 1e6:.2f} M parameters learn, "
        f"on {_devices(run)} in {config.train.precision}; "
        f"{len(run.sets.train)} {seen}, {run.steps.epochs} epochs, {run.steps.total} steps. "
        f"Writing to {run.folder.path}"
    )
    for part, epoch in config.train.unfreezing.items():
        run.reporter.info(f"The {part.replace('_', ' ')} learns from epoch {epoch} on.")
    if config.train.loggers is None and not is_installed("tensorboard"):
        run.reporter.info(
            "TensorBoard is not installed, metrics go to metrics.jsonl alone (pip install 'mobilesam[tracking]')."
        )
    if run.position.step:
        run.reporter.info(f"Resuming at step {run.position.step}, epoch {run.position.epoch + 1}.")
    if run.sets.val is None:
        run.reporter.info("No validation set (data.val): 'best' is the last checkpoint.")
