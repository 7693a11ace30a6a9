"""MLflow as a logger of Fabric; the only module that imports it."""

from __future__ import annotations

import json
import time
from typing import Any

from lightning_fabric.loggers.logger import Logger
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from mobilesam_core.config.loading import flatten

_STATUS = {"success": "FINISHED", "failed": "FAILED", "aborted": "KILLED"}
_PARAMS_A_CALL = 100  # as many as a server takes


class MlflowLogger(Logger):
    """A run of MLflow, in the experiment called as the project. The server, or the local store, is that of its
    environment (``MLFLOW_TRACKING_URI``)."""

    def __init__(self, project: str, run: str, run_id: str | None) -> None:
        """Begin a run, or go on with ``run_id``."""
        self._client = MlflowClient()
        self._project = project
        if run_id is None:
            experiment = self._client.get_experiment_by_name(project)
            where = experiment.experiment_id if experiment else self._client.create_experiment(project)
            run_id = str(self._client.create_run(where, run_name=run).info.run_id)
        else:
            self._client.update_run(run_id, status="RUNNING")
        self._run_id = run_id

    @property
    def name(self) -> str:
        return self._project

    @property
    def version(self) -> str:
        return self._run_id

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        now = int(time.time() * 1000)
        self._client.log_batch(
            self._run_id, metrics=[Metric(name, value, now, step) for name, value in metrics.items()]
        )

    def log_hyperparams(self, params: dict[str, Any], *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        named = [Param(name, value if isinstance(value, str) else json.dumps(value)) for name, value in flatten(params)]
        for first in range(0, len(named), _PARAMS_A_CALL):
            self._client.log_batch(self._run_id, params=named[first : first + _PARAMS_A_CALL])

    def finalize(self, status: str) -> None:
        self._client.set_terminated(self._run_id, _STATUS[status])
