"""The loop: epochs of optimizer steps, with validation, checkpoints and a safe stop between them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from mobilesam_core.checkpoints.adapter import save_adapter
from mobilesam_core.checkpoints.resume import save_state
from mobilesam_core.checkpoints.weights import save_weights
from mobilesam_core.data.batch import Batch
from mobilesam_core.data.sample import SampleSource
from mobilesam_core.data.training_set import STEP_STREAM
from mobilesam_core.errors import Interrupted, TrainingError
from mobilesam_core.interrupt import StopRequest
from mobilesam_core.progress import ProgressTask
from mobilesam_core.training.memory import peak_memory_mb
from mobilesam_core.training.optimizer import let_learn, set_train_mode
from mobilesam_core.training.report import update_report
from mobilesam_core.training.run import Run
from mobilesam_core.training.run_folder import adapter_beside
from mobilesam_core.training.validation import Validation, validate


@dataclass(frozen=True)
class StepResult:
    """One optimizer step: means over its objects, the highest learning rate it used, and what it took."""

    losses: dict[str, float]
    grad_norm: float
    lr: float
    images: int
    objects: int


def fit(run: Run, stop: StopRequest) -> None:
    """Train until the last epoch, ``max_steps`` or an early stop.

    Raises:
        Interrupted: a stop was requested; the state was saved first.
        TrainingError: a loss or gradient was not finite; the weights are those of the step before.
    """
    position = run.position
    if _start_weights_are_due(run):
        assert run.sets.val is not None
        position.before = _validate(run, run.sets.val, 0, stop).values
        save(run)
    while position.epoch < run.steps.epochs and not _stale(run):
        if not position.trained:
            train_epoch(run, stop)
            position.trained = True
            save(run)
        end_epoch(run, stop)
        position.epoch, position.batch, position.trained = position.epoch + 1, 0, False
        save(run)


def _start_weights_are_due(run: Run) -> bool:
    wanted = run.config.train.validation.before and run.sets.val is not None
    return bool(wanted) and run.position.step == 0 and not run.position.before


def _stale(run: Run) -> bool:
    patience = run.config.train.early_stop
    if patience is None or run.position.stale < patience:
        return False
    run.reporter.info(f"Stopped early: no improvement in the last {run.position.stale} validations.")
    return True


def train_epoch(run: Run, stop: StopRequest) -> None:
    """The optimizer steps of ``position.epoch`` that are still to do."""
    config, position = run.config, run.position
    frozen = config.train.frozen_in(position.epoch + 1)
    let_learn(run.model, run.optimizer, frozen)
    set_train_mode(run.model, frozen, config.train.batch_norm == "frozen")
    run.step.begin_epoch(position.epoch)
    run.loader.set_epoch(position.epoch, start_batch=position.batch)
    total = run.steps.in_epoch(position.epoch)
    done = -(-position.batch // config.optim.accumulate)
    title = f"Epoch {position.epoch + 1}/{run.steps.epochs}"
    meter = Meter()
    with run.reporter.task(title, total, "steps", start=done) as task:
        for number, group in enumerate(_groups(iter(run.loader), config.optim.accumulate, total - done), done + 1):
            result = optimizer_step(run, group)
            position.batch += len(group)
            position.step += 1
            meter.add(result)
            _report(run, meter, task, flush=number == total)
            every = config.train.checkpoint_every
            if every is not None and position.step % every == 0:
                save(run)
                save_checkpoint(run, run.folder.step_checkpoint(position.step))
            if run.processes.any(stop.requested):
                _stop(run)


def optimizer_step(run: Run, batches: list[Batch]) -> StepResult:
    """Forward and backward over the accumulated ``batches``, then one step of optimizer and schedule."""
    processes, position = run.processes, run.position
    # Whatever a step draws, it draws alike in a run that was resumed before it.
    torch.manual_seed(step_seed(run.config.train.seed, position.step, processes.rank))
    counted = [batch for batch in batches if not batch.spare]
    values: list[dict[str, Tensor]] = []
    # Losses are means over objects: of those of all processes, that is.
    shares = processes.shares([0 if batch.spare else len(batch.prompts) for batch in batches])
    for number, (batch, share) in enumerate(zip(batches, shares, strict=True), 1):
        wrapped: Any = run.step
        with run.fabric.no_backward_sync(wrapped, enabled=number < len(batches)):
            losses: dict[str, Tensor] = run.step(batch.to(run.fabric.device))
            run.fabric.backward(losses["total"] * (share / len(batches)))
        values.append({name: value.detach() * share for name, value in losses.items()})
    clip = run.config.optim.clip_norm
    norm = run.fabric.clip_gradients(
        run.step, run.optimizer, max_norm=clip if clip is not None else float("inf"), error_if_nonfinite=False
    )
    means = {name: torch.stack([value[name] for value in values]).mean() for name in values[0]}
    images, objects = sum(len(batch.sources) for batch in counted), sum(len(batch.prompts) for batch in counted)
    # One transfer a step: the loss must be known before the weights change.
    counts = means["total"].new_tensor([images, objects])
    gathered = torch.stack([*means.values(), torch.as_tensor(norm).to(counts), *counts])
    *numbers, grad_norm, images_each, objects_each = processes.mean(gathered).tolist()
    losses_by_name = dict(zip(means, numbers, strict=True))
    _require_finite(run, losses_by_name["total"], grad_norm, batches)
    lr = float(max(run.scheduler.get_last_lr()))
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    run.scheduler.step()
    if run.average is not None:
        run.average.update_parameters(run.model)
    return StepResult(
        losses=losses_by_name,
        grad_norm=grad_norm,
        lr=lr,
        images=round(images_each * processes.count),
        objects=round(objects_each * processes.count),
    )


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of what a step draws in one of the processes: which clicks, and whether a mask is shown."""
    stream = np.random.SeedSequence(seed, spawn_key=(STEP_STREAM, step, rank))
    return int(stream.generate_state(1, np.uint64)[0] >> 1)


def _require_finite(run: Run, loss: float, grad_norm: float, batches: list[Batch]) -> None:
    finite_gradient = abs(grad_norm) < float("inf")
    # The scaler of fp16 skips a step whose gradients overflowed and lowers its scale: that is no failure.
    if abs(loss) < float("inf") and (finite_gradient or run.config.train.precision == "fp16"):
        return
    what = "gradient" if abs(loss) < float("inf") else "loss"
    sources = run.processes.gather([source for batch in batches if not batch.spare for source in batch.sources])
    images = ", ".join(chain.from_iterable(sources))
    raise run.processes.told_by_first(
        TrainingError(
            f"The {what} is not finite at step {run.position.step + 1} (epoch {run.position.epoch + 1}); "
            f"its images were: {images}.",
            "Lower optim.lr, lengthen optim.warmup_steps or use train.precision=32; "
            f"weights saved before this are kept in {run.folder.path}.",
        )
    )


def end_epoch(run: Run, stop: StopRequest) -> None:
    """Validate if this epoch is due; keep ``best`` and ``last``."""
    config, position = run.config, run.position
    final = position.epoch + 1 == run.steps.epochs
    result: Validation | None = None
    if run.sets.val is not None and (final or (position.epoch + 1) % config.train.validation.every == 0):
        result = _validate(run, run.sets.val, position.epoch + 1, stop)
        position.metrics = result.values
        if position.best is None or result.score > position.best:
            position.best, position.best_epoch, position.stale = result.score, position.epoch + 1, 0
            save_checkpoint(run, run.folder.best, result.values)
        else:
            position.stale += 1
    save_checkpoint(run, run.folder.last, result.values if result else {})
    if run.sets.val is None:
        save_checkpoint(run, run.folder.best)
        position.best_epoch = position.epoch + 1


def _validate(run: Run, source: SampleSource, epoch: int, stop: StopRequest) -> Validation:
    """Measure, log and tell; ``epoch`` counts from 1, and 0 are the start weights."""
    for model in (run.model, run.average):
        if model is not None:
            run.processes.align(model)
    result = validate(run, source, epoch, stop)
    if result is None:
        _stop(run)
    if run.log is not None:
        run.log.write("val", run.position.step, epoch, result.values)
        update_report(run.folder)  # what it warns of is said at the end
    when = f"Epoch {epoch}/{run.steps.epochs}" if epoch else "Before training"
    run.reporter.info(f"{when}: {result.sentence}")
    return result


def save(run: Run) -> None:
    """Write the state to resume from; the same in all processes, of which the first does it."""
    if run.processes.first:
        save_state(run.folder.state, run.position, run.config.model_dump_json(), run.parts)


def save_checkpoint(run: Run, path: Path, metrics: dict[str, float] | None = None) -> None:
    """Write the weights with what made them, but for the folders it was made in; adapters merged, and alone beside.

    Of several processes the first does it.
    """
    if not run.processes.first:
        return
    provenance = {
        "training_config": run.config.public_json(),
        "step": str(run.position.step),
        "epoch": str(run.position.epoch + 1 if run.position.step else 0),
    }
    if run.teachers:
        provenance["teachers_sha256"] = json.dumps({teacher.name: teacher.sha256 for teacher in run.teachers})
    provenance |= {f"val_{name}": f"{value:.6g}" for name, value in (metrics or {}).items()}
    save_weights(run.result, path, provenance, getattr(torch, run.config.train.checkpoint_dtype))
    if run.config.lora is not None:
        save_adapter(run.learnt, run.config.lora, adapter_beside(path), provenance)


def _stop(run: Run) -> NoReturn:
    save(run)
    save_checkpoint(run, run.folder.last)
    raise run.processes.told_by_first(
        Interrupted(
            f"Training was interrupted at step {run.position.step}; its state is in {run.folder.path}.",
            "Run the same command with --resume to go on.",
        )
    )


def _groups(batches: Iterator[Batch], size: int, count: int) -> Iterator[list[Batch]]:
    """At most ``count`` lists of ``size`` batches; the last of an epoch may be shorter."""
    for _ in range(count):
        group = [batch for _, batch in zip(range(size), batches, strict=False)]
        if not group:
            return
        yield group


class Meter:
    """Running means between two log lines."""

    def __init__(self) -> None:
        self._results: list[StepResult] = []
        self._since = time.perf_counter()

    def __len__(self) -> int:
        return len(self._results)

    def add(self, result: StepResult) -> None:
        self._results.append(result)

    def flush(self) -> dict[str, float]:
        """Since the last flush: means of losses and gradient norm, last learning rate, images and objects a second."""
        results, now = self._results, time.perf_counter()
        seconds = max(now - self._since, 1e-9)
        self._results, self._since = [], now
        means = {name: sum(r.losses[name] for r in results) / len(results) for name in results[0].losses}
        return means | {
            "grad_norm": sum(r.grad_norm for r in results) / len(results),
            "lr": results[-1].lr,
            "images_per_s": sum(r.images for r in results) / seconds,
            "objects_per_s": sum(r.objects for r in results) / seconds,
        }


def _report(run: Run, meter: Meter, task: ProgressTask, flush: bool) -> None:
    """A line of the log every ``log_every`` steps and, with ``flush``, of what is left of an epoch."""
    position = run.position
    if len(meter) < run.config.train.log_every and not flush:
        task.advance()
        return
    values = meter.flush()
    memory = peak_memory_mb(run.fabric.device)
    if run.log is not None:
        run.log.write("train", position.step, position.epoch + 1, values | ({"memory_mb": memory} if memory else {}))
    notes = {"loss": f"{values['total']:.4f}"}
    if "iou" in values:
        notes["iou"] = f"{values['iou']:.3f}"
    notes["objects/s"] = f"{values['objects_per_s']:.1f}"
    if memory:
        notes["memory"] = f"{memory / 1024:.1f} GiB"
    task.advance(1, **notes)
