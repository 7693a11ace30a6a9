"""Experiment trackers beside metrics.jsonl: MLflow in a local store, Weights & Biases offline."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest
import wandb
from mlflow.entities import Run

from mobilesam_core.errors import DataError, Interrupted, TrainingError, UsageError
from mobilesam_core.training import loop
from mobilesam_core.training.trackers.mlflow import MlflowLogger
from mobilesam_core.training.workflow import train

from .conftest import MakeConfig
from .test_training import Listener, interrupt_after, lines

EVERY_STEP = "train.log_every=1"
MLFLOW = "train.loggers=[mlflow]"
SHORT = ("train.epochs=1", "train.validation.max_images=1", "train.validation.max_objects=2")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> mlflow.MlflowClient:
    """MLflow's own view of a store in a folder."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # of the package without a database
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return mlflow.MlflowClient()


def only_run(store: mlflow.MlflowClient) -> Run:
    experiment = store.get_experiment_by_name("mobilesam")
    (run,) = store.search_runs([experiment.experiment_id])
    return run


def told(store: mlflow.MlflowClient, metric: str) -> list[tuple[int, float]]:
    return [(each.step, each.value) for each in store.get_metric_history(only_run(store).info.run_id, metric)]


def logged(folder: Path, split: str, value: str) -> list[tuple[int, float]]:
    return [(record["step"], record[value]) for record in lines(folder / "metrics.jsonl", split)]


def cut_the_power(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    real = loop.optimizer_step

    def crash(run: Any, batches: Any) -> Any:
        if run.position.step == after:
            raise RuntimeError("power cut")
        return real(run, batches)

    monkeypatch.setattr(loop, "optimizer_step", crash)


def test_mlflow_goes_on_with_its_run_and_is_told_nothing_twice(
    make_config: MakeConfig, store: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = make_config(MLFLOW, EVERY_STEP, "train.run=first", "data.train.count=8", "train.checkpoint_every=3")
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        cut_the_power(patch, after=6)
        train(config)
    assert only_run(store).info.status == "FAILED"
    assert [step for step, _ in told(store, "train/total")] == [1, 2, 3, 4, 5, 6]

    result = train(config, resume=True)
    run = only_run(store)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "first")
    assert told(store, "train/total") == logged(result.folder, "train", "total")
    assert told(store, "val/miou") == logged(result.folder, "val", "miou")
    assert (run.data.params["optim.lr"], run.data.params["model.name"]) == ("0.001", "vit_nano")
    assert run.data.params["data.train.size"] == "64"
    assert not any(str(tmp_path) in value for value in run.data.params.values()), "folders of this machine"


def test_a_tracker_that_fails_is_left_alone_and_catches_up_when_resumed(
    make_config: MakeConfig, store: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(MLFLOW, EVERY_STEP, *SHORT)
    real, listener = MlflowLogger.log_metrics, Listener()

    def gone(self: MlflowLogger, metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        if step >= 2:
            raise ConnectionError("no route to host\nand more")
        real(self, metrics, step)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowLogger, "log_metrics", gone)
        result = train(config, reporter=listener)
    (said,) = [said for said in listener.said if "MLflow failed" in said]
    assert "no route to host. Training goes on" in said and "and more" not in said
    assert result.steps == 3 and [step for step, _ in told(store, "train/total")] == [1]

    train(config, resume=True)
    assert told(store, "train/total") == logged(result.folder, "train", "total")
    assert told(store, "val/loss") == logged(result.folder, "val", "loss")


def test_a_tracker_that_is_added_when_resuming_is_told_from_the_start(
    make_config: MakeConfig, store: mlflow.MlflowClient
) -> None:
    result = train(make_config("train.loggers=[]", EVERY_STEP, *SHORT))
    assert not (result.folder / "tensorboard").exists()
    train(make_config("train.loggers=[tensorboard, mlflow]", EVERY_STEP, *SHORT), resume=True)
    assert told(store, "train/lr") == logged(result.folder, "train", "lr")


def test_a_run_that_begins_anew_is_another_run_of_the_tracker(
    make_config: MakeConfig, store: mlflow.MlflowClient
) -> None:
    config = make_config(MLFLOW, *SHORT)
    state = train(config).folder / "state.pt"
    state.unlink()
    train(config)
    experiment = store.get_experiment_by_name("mobilesam")
    runs = store.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 2
    assert all(run.data.metrics.keys() >= {"train/total", "val/miou"} for run in runs)


def test_what_is_kept_of_a_tracker_and_cannot_be_read_is_named(
    make_config: MakeConfig, store: mlflow.MlflowClient
) -> None:
    config = make_config(MLFLOW, *SHORT)
    memory = train(config).folder / "mlflow.json"
    memory.write_text("{")
    with pytest.raises(DataError, match=r"mlflow\.json cannot be read"):
        train(config, resume=True)
    memory.write_text(json.dumps({"run_id": "0" * 32, "steps": {}}))
    with pytest.raises(TrainingError, match=r"MLflow cannot be started: Run '0+' not found"):
        train(config, resume=True)


class FakeRun:
    """Of Weights & Biases: remembers what it is told."""

    def __init__(self, **asked: Any) -> None:
        self.asked = asked
        self.project, self.id = asked["project"], asked["id"] or "made-up"
        self.records: list[dict[str, float]] = []
        self.config: dict[str, Any] = {}
        self.exit_code: int | None = None

    def define_metric(self, *_: Any, **__: Any) -> None: ...

    def log(self, values: dict[str, float]) -> None:
        self.records.append(values)

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


@pytest.fixture
def wandb_runs(monkeypatch: pytest.MonkeyPatch) -> list[FakeRun]:
    runs: list[FakeRun] = []

    def init(**asked: Any) -> FakeRun:
        runs.append(FakeRun(**asked))
        return runs[-1]

    monkeypatch.setattr(wandb, "init", init)
    return runs


def test_wandb_goes_on_with_its_run_and_is_told_nothing_twice(
    make_config: MakeConfig, wandb_runs: list[FakeRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config("train.loggers=[wandb, wandb]", EVERY_STEP, "train.project=cells")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        interrupt_after(patch, 4)
        train(config)
    result = train(config, resume=True)
    first, second = wandb_runs
    assert (first.asked["project"], first.asked["name"], first.asked["id"]) == ("cells", "run", None)
    assert (second.asked["id"], second.asked["resume"]) == ("made-up", "allow")
    assert (first.exit_code, second.exit_code) == (1, 0)
    assert first.config["optim"]["lr"] == 1e-3 and "output_dir" not in first.config["train"] and not second.config
    records = [record for run in wandb_runs for record in run.records]
    told_of_val = [(each["step"], each["val/loss"]) for each in records if "val/loss" in each]
    assert told_of_val == logged(result.folder, "val", "loss")
    assert [each["step"] for each in records if "train/total" in each] == [1, 2, 3, 4, 5, 6]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield
    wandb.teardown()


@pytest.mark.usefixtures("offline")
def test_wandb_offline_writes_into_the_folder_of_the_run_for_one_run_of_its_own(make_config: MakeConfig) -> None:
    config = make_config("train.loggers=[wandb]", *SHORT)
    listener = Listener()
    folder = train(config, reporter=listener).folder
    train(config, resume=True)
    run_id = json.loads((folder / "wandb.json").read_text())["run_id"]
    written = list((folder / "wandb").glob(f"offline-run-*-{run_id}*/run-{run_id}.wandb"))
    assert written and all(path.stat().st_size > 0 for path in written)
    assert f"Weights & Biases: run {run_id} of project mobilesam." in listener.said


@pytest.mark.parametrize(
    ("package", "sentence"),
    [
        (
            "wandb",
            r"Weights & Biases, which is not installed. Install it with: pip install 'mobilesam\[wandb\]'",
        ),
        ("mlflow", r"MLflow, .* pip install 'mobilesam\[mlflow\]'"),
        ("tensorboard", r"TensorBoard, .* pip install 'mobilesam\[tracking\]'"),
    ],
)
def test_a_tracker_that_is_not_installed_is_said_before_anything_is_done(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str, sentence: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=sentence):
        train(make_config(f"train.loggers=[{package}]"))
    assert not (tmp_path / "mobilesam").exists()


def test_without_tensorboard_and_a_choice_training_says_what_is_missing(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    listener = Listener()
    result = train(make_config(*SHORT), reporter=listener)
    assert any("TensorBoard is not installed" in said for said in listener.said)
    assert not (result.folder / "tensorboard").exists()


def test_a_tracker_that_cannot_be_started_stops_the_run_before_it_trains(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> SimpleNamespace:
        raise wandb.Error("No API key configured")

    monkeypatch.setattr(wandb, "init", refuse)
    config = make_config("train.loggers=[wandb]")
    with pytest.raises(TrainingError, match=r"Weights & Biases cannot be started: No API key configured\. Mend that"):
        train(config)
    assert not list(Path(config.train.output_dir).rglob("state.pt"))
