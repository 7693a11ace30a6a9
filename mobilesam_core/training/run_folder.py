"""The folder of one run: its files' names, its logs, and whether it may be used."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mobilesam_core import __version__
from mobilesam_core.checkpoints.resume import Position
from mobilesam_core.config.loading import dump_yaml
from mobilesam_core.config.train import TrainConfig
from mobilesam_core.data.sample import BadFile
from mobilesam_core.errors import Interrupted, UsageError
from mobilesam_core.files import make_folder, output_error, write_json, write_text
from mobilesam_core.training.trackers.tracker import Tracker


@dataclass(frozen=True)
class RunFolder:
    """``output_dir/project/run/``."""

    path: Path

    @property
    def state(self) -> Path:
        return self.path / "state.pt"

    @property
    def best(self) -> Path:
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        return self.path / "last.safetensors"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def failures(self) -> Path:
        return self.path / "failures.jsonl"

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def embeddings(self) -> Path:
        return self.path / "embeddings"

    def step_checkpoint(self, step: int) -> Path:
        return self.path / f"step_{step:06d}.safetensors"

    def overlays(self, epoch: int) -> Path:
        return self.path / "overlays" / f"epoch_{epoch:03d}"

    def validation(self, epoch: int) -> Path:
        return self.path / "validation" / f"epoch_{epoch:03d}"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def write_config(self, config: TrainConfig) -> None:
        """The resolved config, and beside it what it ran on."""
        write_text(self.config, dump_yaml(config))
        write_json(self.environment, environment())

    def write_failures(self, failures: Mapping[str, Sequence[BadFile]]) -> None:
        """One JSON line a bad file, with the set (``train`` or ``val``) it belongs to."""
        lines = [json.dumps({"set": name, **asdict(bad)}) for name, found in failures.items() for bad in found]
        write_text(self.failures, "".join(f"{line}\n" for line in lines))


def adapter_beside(checkpoint: Path) -> Path:
    """Where the adapters that ``checkpoint`` has merged lie alone: ``best.lora.safetensors``."""
    return checkpoint.with_suffix(f".lora{checkpoint.suffix}")


def claim_run_folder(config: TrainConfig, resume: bool) -> RunFolder:
    """The folder this run writes to; created.

    Raises:
        UsageError: it holds a run already, and neither ``resume`` nor ``train.on_taken: number`` was given.
        OutputError: it cannot be created.
    """
    run = config.train
    base = run.output_dir / run.project / run.run
    taken = [path for path in _numbered(base) if RunFolder(path).state.exists()]
    if resume:
        path = taken[-1] if taken and run.on_taken == "number" else base
    elif base not in taken:
        path = base
    elif run.on_taken == "number":
        path = base.with_name(f"{base.name}-{len(_numbered(base)) + 1}")
    else:
        raise UsageError(
            f"{base} already holds a run.",
            "Continue it with --resume, name another with --set train.run=NAME, "
            "or number new runs with --set train.on_taken=number.",
        )
    return RunFolder(make_folder(path))


def _numbered(base: Path) -> list[Path]:
    """``base``, ``base-2``, ``base-3``, … as far as they exist without a gap."""
    found = [base]
    while (path := base.with_name(f"{base.name}-{len(found) + 1}")).exists():
        found.append(path)
    return found


def _belongs(line: str, position: Position) -> bool:
    """Whether a log line is whole and of what was saved; a killed run may leave half a line, or a validation that is
    still to be saved and will come again."""
    try:
        record = json.loads(line)
        step, epoch, split = int(record["step"]), int(record["epoch"]), record["split"]
    except (ValueError, KeyError, TypeError):
        return False
    validated = epoch <= position.epoch and (epoch > 0 or bool(position.before))
    return step <= position.step and (split != "val" or validated)


class MetricsLog:
    """Appends to ``metrics.jsonl`` and tells the trackers; as a context, ends them with how the run ended."""

    def __init__(self, folder: RunFolder, position: Position, trackers: Sequence[Tracker] = ()) -> None:
        """Continue the logs at ``position``: lines of what comes later were never saved, so they go. Trackers are told
        what of the others they do not know."""
        self._path = folder.metrics
        self._trackers = trackers
        kept = [line for line in self._lines() if _belongs(line, position)]
        write_text(self._path, "".join(kept))
        for record in map(json.loads, kept if trackers else ()):
            values = {name: value for name, value in record.items() if name not in ("split", "step", "epoch")}
            for tracker in trackers:
                tracker.catch_up(record["split"], record["step"], values)

    def _lines(self) -> list[str]:
        return self._path.read_text("utf-8").splitlines(keepends=True) if self._path.exists() else []

    def write(self, split: str, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """One line, and one point a value."""
        line = json.dumps({"split": split, "step": step, "epoch": epoch, **values})
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise output_error(self._path, error) from error
        for tracker in self._trackers:
            tracker.write(split, step, values)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        stopped = kind is not None and issubclass(kind, (Interrupted, KeyboardInterrupt))
        status = "success" if kind is None else "aborted" if stopped else "failed"
        for tracker in self._trackers:
            tracker.close(status)


def environment() -> dict[str, Any]:
    """What a run depends on besides its config: versions, machine, and the git revision of the working directory."""
    packages = ("torch", "torchvision", "timm", "lightning-fabric", "numpy", "opencv-python-headless", "pillow")
    installed = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    return {
        "mobilesam": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: installed[name] for name in packages if name in installed},
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "git_revision": _git_revision(),
        "command": sys.argv,
    }


def _git_revision() -> str | None:
    """The commit of the working directory; None outside a repository or without git."""
    try:
        result = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
