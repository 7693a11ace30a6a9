"""Weights & Biases as a logger of Fabric; the only module that imports it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import wandb
from lightning_fabric.loggers.logger import Logger


class WandbLogger(Logger):
    """A run of Weights & Biases. Account, server and mode are those of its environment (``WANDB_MODE=offline``)."""

    def __init__(self, folder: Path, project: str, run: str, run_id: str | None) -> None:
        """Begin a run, or go on with ``run_id``; its local files go to ``folder/wandb``."""
        self._run: Any = wandb.init(
            project=project,
            name=run,
            id=run_id,
            resume="allow" if run_id else None,
            dir=str(folder),
            # Progress bars are no log.
            settings=wandb.Settings(console="off"),
        )
        # Its own steps only go up, and a resumed run could not add to the last one.
        self._run.define_metric("*", step_metric="step")

    @property
    def name(self) -> str:
        return str(self._run.project)

    @property
    def version(self) -> str:
        return str(self._run.id)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._run.log({**metrics, "step": step})

    def log_hyperparams(self, params: dict[str, Any], *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        self._run.config.update(params)

    def finalize(self, status: str) -> None:
        self._run.finish(exit_code=0 if status == "success" else 1)
