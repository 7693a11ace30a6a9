"""The processes of a run: one, or several that share its images and add up their gradients (DDP: Li et al., "PyTorch
Distributed", 2020).

Several are started by the run itself (``train.devices``), by ``torchrun`` or by Slurm's ``srun``. All compute the same
weights; the first of them alone writes files and tells what is done.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn

from mobilesam_core.config.train import RunConfig
from mobilesam_core.errors import MobileSamError, TrainingError, UsageError
from mobilesam_core.machine import available_cores
from mobilesam_core.prediction.device import resolve_device

T = TypeVar("T")
ErrorT = TypeVar("ErrorT", bound=MobileSamError)

_PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
_PATIENCE = timedelta(days=1)


class Processes:
    """All processes of a run, seen from one of them. What is documented as a meeting, every process must call.

    rank: the number of this one, from 0; count: how many there are.
    """

    def __init__(self, fabric: Fabric, here: int) -> None:
        """here: how many of them this machine has."""
        self._fabric, self._here = fabric, here
        self.rank, self.count = fabric.global_rank, fabric.world_size
        self._alike: MobileSamError | None = None
        # Apart from gradients, whose loss is to be noticed sooner: the first process may read all files, and others
        # wait for it.
        self._patient: Any = None
        if self.count > 1:
            self._patient = torch.distributed.new_group(backend="gloo", timeout=_PATIENCE)

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and tells."""
        return self.rank == 0

    def part_of(self, cores: int) -> int:
        """This process's part of something that all on this machine share, at least one."""
        return max(1, cores // self._here)

    def wait(self) -> None:
        """Until all are here (a meeting)."""
        self.gather(None)

    def gather(self, value: T) -> list[T]:
        """Everybody's ``value``, in the order of ranks (a meeting)."""
        if self.count == 1:
            return [value]
        values: list[T | None] = [None] * self.count
        torch.distributed.all_gather_object(values, value, group=self._patient)
        return values  # type: ignore[return-value]

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is set in one of them (a meeting)."""
        if self.count == 1:
            return flag
        return bool(self.mean(torch.tensor(float(flag), device=self._fabric.device)) > 0)

    def mean(self, values: Tensor) -> Tensor:
        """Of everybody's ``values`` (a meeting)."""
        if self.count == 1:
            return values
        sums = values.clone()
        torch.distributed.all_reduce(sums)
        return sums / self.count

    def shares(self, objects: Sequence[int]) -> Sequence[Tensor | float]:
        """For each of several batches, what to multiply a mean over this process's ``objects`` with, so that the mean
        over the processes is the one over the objects of all (a meeting)."""
        if self.count == 1:
            return [1.0] * len(objects)
        mine = torch.tensor(objects, dtype=torch.float32, device=self._fabric.device)
        return (mine / self.mean(mine)).unbind()

    def align(self, module: nn.Module) -> None:
        """Give all the buffers of ``module``, such as statistics of BatchNorm, that it has in the first (a meeting)."""
        if self.count > 1:
            for buffer in module.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def told_by_first(self, error: ErrorT) -> ErrorT:
        """``error``, which all processes come to alike, for all to raise."""
        error.told = not self.first
        self._alike = error
        return error

    def from_first(self, work: Callable[[], T]) -> T:
        """What ``work`` returns in the first process, which alone does it (a meeting).

        Raises:
            MobileSamError: in all, when it does in the first.
        """
        mine = self.together(lambda: work() if self.first else None)
        return self.gather(mine)[0]  # type: ignore[return-value]

    def together(self, work: Callable[[], T]) -> T:
        """What ``work``, in which there is no meeting, returns in this process; each does it (a meeting).

        Raises:
            MobileSamError: in all, when it does in one; of those in which it does the first tells of it.
        """
        result, mine = None, None
        try:
            result = work()
        except MobileSamError as error:
            mine = error
        if self.count == 1 and mine is not None:
            raise mine
        for rank, failure in enumerate(self.gather(mine)):
            if failure is not None:
                if rank == self.rank and mine is not None:
                    raise mine
                failure.told = True
                raise failure
        return result  # type: ignore[return-value]

    def one_by_one(self, work: Callable[[], T]) -> T:
        """As :meth:`together`, but on each machine one process is done before the others begin: it may download."""
        leads = self._fabric.local_rank == 0
        before = self.together(lambda: work() if leads else None)
        after = self.together(lambda: None if leads else work())
        return before if leads else after  # type: ignore[return-value]

    @contextmanager
    def held(self) -> Iterator[None]:
        """While inside, the loss of another process ends this one with a sentence; at the end, all part.

        After an error that all come to, they wait for the first: who starts the others is ended, by Fabric, when one of
        them has failed, and may still have files to write.
        """
        try:
            try:
                yield
            except MobileSamError as error:
                if error is self._alike:
                    self.wait()
                elif not self.first and not error.told:
                    error.message = f"Process {self.rank}: {error.message}"
                raise
        except RuntimeError as error:
            if self.count > 1 and _is_lost(error):
                raise TrainingError(
                    f"Another of the {self.count} processes of this run has ended, so process {self.rank} ends too.",
                    "If it said why, mend that; then go on from what was saved with --resume.",
                ) from error
            raise
        finally:
            if self.count > 1:
                torch.distributed.destroy_process_group()


def _is_lost(error: RuntimeError) -> bool:
    """Whether ``error`` is of the connection between processes; gloo raises it without a class of its own."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)


@dataclass(frozen=True)
class _Start:
    """Who starts the processes: ``here`` on each of ``nodes`` machines, and how they find each other."""

    here: int
    nodes: int
    environment: ClusterEnvironment
    by: str

    @property
    def count(self) -> int:
        return self.here * self.nodes


def start_processes(run: RunConfig, batch_size: int) -> tuple[Fabric, Processes]:
    """Device, precision and processes of a run, and the number of CPU threads of each.

    Where the run starts the others itself, each of them runs the command line of this process from its beginning, and
    comes here too.

    Raises:
        UsageError: the device is not there, or cannot do the precision; there are more processes than devices, than
            images of a batch, or other than ``torchrun`` or ``srun`` started.
    """
    device = resolve_device(run.device).type
    if run.precision == "fp16" and device != "cuda":
        raise UsageError(f"train.precision=fp16 needs a CUDA device, not {device}.", "Use train.precision=bf16 or 32.")
    start = _find_start(run.devices)
    _require_devices(start, device)
    if start.count > batch_size:
        raise UsageError(
            f"optim.batch_size is {batch_size}: that is too few images for {start.count} processes, which share them.",
            f"Set optim.batch_size to {start.count} or more.",
        )
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it tells of every process that it starts
    fabric = Fabric(
        accelerator=device,
        devices=start.here,
        num_nodes=start.nodes,
        # Parts may be frozen, and a batch need not use every token; gradients need no second copy.
        strategy=DDPStrategy(find_unused_parameters=True, gradient_as_bucket_view=True) if start.count > 1 else "auto",
        precision=_PRECISIONS[run.precision],  # type: ignore[arg-type]
        plugins=[start.environment],
    )
    if start.count > 1:
        fabric.launch()
    processes = Processes(fabric, start.here)
    torch.set_num_threads(run.threads or processes.part_of(available_cores()))
    return fabric, processes


def _find_start(devices: int | None) -> _Start:
    if TorchElasticEnvironment.detect():
        here, count = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
        start = _Start(here, count // here, TorchElasticEnvironment(), "torchrun")
    elif (count := int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))) > 1:
        # Not Fabric's own look for Slurm: it would wait for tasks in a batch script that never calls srun.
        nodes = int(os.environ.get("SLURM_STEP_NUM_NODES", 1))
        start = _Start(count // nodes, nodes, SLURMEnvironment(), "srun")
    else:
        return _Start(devices or 1, 1, LightningEnvironment(), "mobilesam")
    if devices is not None and devices != start.here:
        raise UsageError(
            f"train.devices is {devices}, but {start.by} started {start.here} process(es) on this machine.",
            "Leave train.devices out, or start as many.",
        )
    return start


def _require_devices(start: _Start, device: str) -> None:
    there = {"cuda": torch.cuda.device_count(), "mps": 1}.get(device)
    if there is not None and start.here > there:
        raise UsageError(
            f"{start.here} processes on this machine need {start.here} {device} devices, and torch sees {there}.",
            "Lower train.devices, or use train.device=cpu.",
        )
