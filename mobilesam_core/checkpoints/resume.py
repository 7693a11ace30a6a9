"""The state of a run: all that is needed to go on as if it had never stopped."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from mobilesam_core.checkpoints.weights import torch_bytes
from mobilesam_core.errors import CheckpointError
from mobilesam_core.files import atomic_path


@dataclass
class Position:
    """Where a run stands; always between two optimizer steps.

    epoch: counted from 0; ``batch``: batches of it that are done; ``step``: optimizer steps done in all.
    trained: the epoch's last step is done and its validation is due.
    best, best_epoch, stale: best value of the validation metric, its epoch, and validations since.
    metrics: of the last validation. before: of the start weights, empty if not asked for.
    images: in the training set; the order of an epoch depends on it.
    teachers: sha256 of each teacher's weights. cached: whether embeddings are read in place of images.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    trained: bool = False
    best: float | None = None
    best_epoch: int | None = None
    stale: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    before: dict[str, float] = field(default_factory=dict)
    images: int = 0
    teachers: list[str] = field(default_factory=list)
    cached: bool = False


def save_state(path: Path, position: Position, config_json: str, parts: dict[str, Any]) -> None:
    """Write position, config and the ``state_dict()`` of every part to ``path``, atomically.

    The file holds the weights too: a state and weights in two files could belong to two moments. It holds no state of
    random generators: all that a run draws follows from its seed and its position.
    """
    state: dict[str, Any] = {
        "position": asdict(position),
        "config": config_json,
        "parts": {name: part.state_dict() for name, part in parts.items()},
    }
    data = torch_bytes(state)  # through memory, since torch.save does not say that a disk is full
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def read_state(path: Path) -> dict[str, Any]:
    """Read a file of :func:`save_state`, tensors on the CPU; nothing in it is executed.

    Raises:
        CheckpointError: there is no such file, or it is none of ours.
    """
    if not path.is_file():
        raise CheckpointError(f"There is nothing to resume: {path} does not exist.", "Start without --resume.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        Position(**state["position"])
    except Exception as error:
        raise CheckpointError(
            f"{path} is not the state of a run ({type(error).__name__}).",
            "Start a new run from its last.safetensors with model.checkpoint.",
        ) from error
    return dict(state)


def restore_state(state: dict[str, Any], parts: dict[str, Any]) -> Position:
    """Load a state into the parts it was saved from; returns the position."""
    for name, part in parts.items():
        part.load_state_dict(state["parts"][name])
    return Position(**state["position"])
