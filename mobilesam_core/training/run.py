"""What a running training holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning_fabric import Fabric
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from mobilesam_core.checkpoints.resume import Position
from mobilesam_core.config.train import TrainConfig
from mobilesam_core.data.loader import TrainingLoader
from mobilesam_core.data.sample import SampleSource
from mobilesam_core.data.training_set import TrainingSet
from mobilesam_core.distillation.teacher import Teacher
from mobilesam_core.models.lora import merged
from mobilesam_core.models.sam import Sam
from mobilesam_core.prediction.stored import StoredEmbeddings
from mobilesam_core.progress import Reporter
from mobilesam_core.scheduler import PolynomialLR
from mobilesam_core.training.distilling import DistillingStep
from mobilesam_core.training.processes import Processes
from mobilesam_core.training.run_folder import MetricsLog, RunFolder
from mobilesam_core.training.step import TrainingStep


@dataclass(frozen=True)
class Sets:
    """The data of a run; ``val`` is None when the config names none. stored: embeddings of the images of ``val``."""

    train: TrainingSet
    val: SampleSource | None
    stored: StoredEmbeddings | None = None


@dataclass(frozen=True)
class Steps:
    """How many optimizer steps a run takes."""

    per_epoch: int
    total: int
    epochs: int

    @staticmethod
    def plan(images: int, config: TrainConfig) -> Steps:
        """Steps of a set of ``images``; a short last batch and a short last accumulation count as one."""
        batches = -(-images // config.optim.batch_size)
        per_epoch = -(-batches // config.optim.accumulate)
        total = min(per_epoch * config.train.epochs, config.train.max_steps or per_epoch * config.train.epochs)
        return Steps(per_epoch, total, -(-total // per_epoch))

    def in_epoch(self, epoch: int) -> int:
        """Steps of ``epoch`` (counted from 0); the last one may be cut by ``max_steps``."""
        return min(self.per_epoch, self.total - epoch * self.per_epoch)


@dataclass(frozen=True)
class Run:
    """Everything a running training holds; ``position`` is what moves."""

    config: TrainConfig
    folder: RunFolder
    fabric: Fabric
    processes: Processes
    model: Sam
    step: TrainingStep | DistillingStep
    """The step as Fabric wraps it."""
    optimizer: Optimizer
    scheduler: PolynomialLR
    sets: Sets
    steps: Steps
    position: Position
    loader: TrainingLoader
    log: MetricsLog | None
    """None in all processes but the first."""
    reporter: Reporter
    parts: dict[str, Any]
    """What a state file holds, by name."""
    average: AveragedModel | None
    """The moving average of ``model``, if ``train.ema`` asks for one."""
    teachers: Sequence[Teacher]
    """What ``model`` learns from; validation compares it with the first."""

    @property
    def result(self) -> Sam:
        """What is validated and saved: :attr:`learnt`, any adapters merged into plain layers."""
        return merged(self.learnt)

    @property
    def learnt(self) -> Sam:
        """The average of the weights if there is one, else the weights; with adapters, if there are any."""
        if self.average is None:
            return self.model
        assert isinstance(self.average.module, Sam)
        return self.average.module
