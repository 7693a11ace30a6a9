"""The trackers of a run at work: opened, told each thing once, and left alone when they fail."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lightning_fabric.loggers.logger import Logger

from mobilesam_core.config.train import TrackerName, TrainConfig
from mobilesam_core.errors import DataError, TrainingError, UsageError
from mobilesam_core.files import write_json
from mobilesam_core.progress import Reporter

_TITLES: dict[TrackerName, str] = {"tensorboard": "TensorBoard", "wandb": "Weights & Biases", "mlflow": "MLflow"}
_EXTRAS: dict[TrackerName, str] = {"tensorboard": "tracking", "wandb": "wandb", "mlflow": "mlflow"}


def is_installed(name: TrackerName) -> bool:
    """Whether the package of a tracker is there; it is not imported."""
    return importlib.util.find_spec(name) is not None


def choose_trackers(wanted: Sequence[TrackerName] | None) -> list[TrackerName]:
    """The trackers of ``train.loggers``, each once; of null, TensorBoard if it is installed.

    Raises:
        UsageError: one of them is not installed.
    """
    if wanted is None:
        return ["tensorboard"] if is_installed("tensorboard") else []
    for name in wanted:
        if not is_installed(name):
            raise UsageError(
                f"train.loggers asks for {_TITLES[name]}, which is not installed.",
                f"Install it with: pip install 'mobilesam[{_EXTRAS[name]}]', or leave it out of train.loggers.",
            )
    return list(dict.fromkeys(wanted))


@dataclass
class Told:
    """What a tracker knows of a run: by what id, and up to which step of each split."""

    run_id: str
    steps: dict[str, int] = field(default_factory=dict)


class Tracker:
    """One tracker. That it fails while the run goes on is a warning, once, and it is told no more."""

    def __init__(self, name: TrackerName, logger: Logger, told: Told, memory: Path | None, reporter: Reporter) -> None:
        """memory: the file that keeps ``told`` for a resumed run; None where the log itself lies in the run's folder
        and is taken back with it."""
        self._title = _TITLES[name]
        self._logger = logger
        self._told = told
        self._memory = memory
        self._reporter = reporter
        self._failed = False

    def catch_up(self, split: str, step: int, values: Mapping[str, float]) -> None:
        """Tell a record of before it was opened, unless it is known."""
        if self._memory is not None:
            self.write(split, step, values)

    def write(self, split: str, step: int, values: Mapping[str, float]) -> None:
        """Tell one record, unless it was told before the run was resumed."""
        if self._failed or step <= self._told.steps.get(split, -1):
            return
        try:
            self._logger.log_metrics({f"{split}/{name}": value for name, value in values.items()}, step)
        except Exception as error:
            self._leave(error)
            return
        self._told.steps[split] = step
        self._remember()

    def close(self, status: str) -> None:
        """``status``: ``success``, ``failed`` or ``aborted``. One that failed is asked to end all the same."""
        try:
            self._logger.finalize(status)
        except Exception as error:
            if not self._failed:
                self._leave(error)

    def _remember(self) -> None:
        if self._memory is not None:
            write_json(self._memory, asdict(self._told))

    def _leave(self, error: Exception) -> None:
        self._failed = True
        missed = "" if self._memory is None else "; --resume would tell it what it missed"
        self._reporter.warning(
            f"{self._title} failed and is told no more of this run: {_sentence(error)} "
            f"Training goes on, and metrics.jsonl has everything{missed}."
        )


def open_trackers(config: TrainConfig, folder: Path, step: int, *, resumed: bool, reporter: Reporter) -> list[Tracker]:
    """Those of ``train.loggers``, each with a run of its own; a resumed training goes on with the one it had.

    step: the one that the training stands at.

    Raises:
        UsageError: one of them is not installed.
        DataError: what is known of the earlier run cannot be read.
        TrainingError: one cannot be started: no server, no account, a run that is gone.
    """
    opened: list[Tracker] = []
    try:
        for name in choose_trackers(config.train.loggers):
            opened.append(_open(name, config, folder, step, resumed, reporter))
    except Exception:
        for tracker in opened:
            tracker.close("failed")
        raise
    return opened


def _open(
    name: TrackerName, config: TrainConfig, folder: Path, step: int, resumed: bool, reporter: Reporter
) -> Tracker:
    memory = None if name == "tensorboard" else folder / f"{name}.json"
    told = _read(memory) if resumed and memory is not None and memory.exists() else None
    try:
        logger = _logger(name, folder, config.train.project, step, told.run_id if told else None)
        if memory is not None and told is None:
            logger.log_hyperparams(json.loads(config.public_json()))
    except Exception as error:
        raise TrainingError(
            f"{_TITLES[name]} cannot be started: {_sentence(error)}",
            f"Mend that, or leave {name} out of train.loggers.",
        ) from error
    if memory is None:
        return Tracker(name, logger, Told(""), None, reporter)
    if told is None:
        told = Told(str(logger.version))
        write_json(memory, asdict(told))
    reporter.info(f"{_TITLES[name]}: run {logger.version} of project {logger.name}.")
    return Tracker(name, logger, told, memory, reporter)


def _logger(name: TrackerName, folder: Path, project: str, step: int, run_id: str | None) -> Logger:
    # Inside: a tracker that is not asked for need not be installed, and takes its time to import.
    if name == "wandb":
        from mobilesam_core.training.trackers.wandb import WandbLogger

        return WandbLogger(folder, project, folder.name, run_id)
    if name == "mlflow":
        from mobilesam_core.training.trackers.mlflow import MlflowLogger

        return MlflowLogger(project, folder.name, run_id)
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger

    return TensorBoardLogger(folder, name="tensorboard", version="", purge_step=step + 1)


def _read(memory: Path) -> Told:
    try:
        found = json.loads(memory.read_text("utf-8"))
        return Told(str(found["run_id"]), {str(split): int(step) for split, step in found["steps"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{memory} cannot be read: it says which run of the tracker to go on with.",
            "Remove it to begin another one there.",
        ) from error


def _sentence(error: Exception) -> str:
    """The first line of what a tracker says, as a sentence."""
    first = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return first if first.endswith((".", "!", "?")) else f"{first}."
