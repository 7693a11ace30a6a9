"""Reading and writing weight files; nothing in a file is ever executed."""

from __future__ import annotations

import io
import json
import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from mobilesam_core.checkpoints.keys import official_key, to_official, to_ours
from mobilesam_core.errors import CheckpointError, OutputError
from mobilesam_core.files import atomic_path, file_sha256, write_json
from mobilesam_core.models.sam import Sam

SAFETENSORS = ".safetensors"
_WRAPPERS = ("model", "state_dict")
_PREFIXES = ("module.", "model.")
_LISTED = 5
# In the messages of torch's restricted unpickler, when a file asks for more than tensors and plain containers.
_NAMES_CODE = re.compile(r"global|trying to", re.IGNORECASE)


@dataclass(frozen=True)
class WeightFile:
    """Tensors of a file, on the CPU, under their official names, and what it says of them (maybe nothing)."""

    path: Path
    sha256: str
    state: dict[str, Tensor]
    metadata: dict[str, str]


def read_weights(path: Path) -> WeightFile:
    """Read a ``.safetensors`` file, or a ``.pt`` of tensors alone.

    A ``.pt`` may wrap its state dict as ``{"model": …}`` or ``{"state_dict": …}``, and its keys may begin
    with ``module.`` or ``model.``; its metadata come from the ``.json`` beside it, if there is one.

    Raises:
        CheckpointError: the file is missing, unreadable, cut short, of another kind, or holds code.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint {path}.", "Check the path; relative ones start from here.")
    try:
        sha256 = file_sha256(path)
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror}.", "Check its permissions.") from error
    if path.stat().st_size == 0:
        raise CheckpointError(f"The checkpoint {path} is empty (0 bytes).", "Copy or download it again.")
    if path.suffix == SAFETENSORS:
        content, metadata = _read_safetensors(path)
    else:
        content, metadata = _read_pickle(path), _read_sidecar(path)
    return WeightFile(path, sha256, _state_dict(content, path), metadata)


def load_weights(model: Sam, file: WeightFile) -> None:
    """Copy all weights of ``file`` into ``model``; both must hold the same ones.

    Raises:
        CheckpointError: keys are missing, unknown, or of another shape; the model is unchanged.
    """
    state, expected = to_ours(file.state), model.state_dict()
    problems = [
        _listing("missing", (official_key(key) for key in expected.keys() - state.keys())),
        _listing("unexpected", (official_key(key) for key in state.keys() - expected.keys())),
        _listing(
            "of another shape",
            (
                f"{official_key(key)} {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
                for key in expected.keys() & state.keys()
                if state[key].shape != expected[key].shape
            ),
        ),
    ]
    if any(problems):
        raise CheckpointError(
            f"{file.path} does not fit {model.config.name}: {'; '.join(p for p in problems if p)}.",
            "Set model.name and its overrides to what the file was made with, name another file, or train from random "
            "weights (model.checkpoint: null).",
        )
    model.load_state_dict(state)


def save_weights(model: Sam, path: Path, metadata: Mapping[str, str], dtype: torch.dtype = torch.float32) -> None:
    """Write the weights under their official names; ``.safetensors``, or ``.pt`` with a ``.json`` beside it.

    ``metadata`` goes with them; the architecture (``model``) and ``image_size`` are added to it. ``dtype`` is what
    floating-point weights are stored as.

    Raises:
        OutputError: the file cannot be written, or ``dtype`` cannot hold the weights; what was there before stays.
    """
    facts = {**metadata, **describe(model)}
    state = {
        key: value.detach().to("cpu", dtype if value.is_floating_point() else value.dtype).contiguous()
        for key, value in to_official(model.state_dict()).items()
    }
    for key, value in to_official(model.state_dict()).items():
        if bool(value.isfinite().all()) and not bool(state[key].isfinite().all()):
            raise OutputError(
                f"{path} was not written: {key} has values too large for {str(dtype).removeprefix('torch.')}.",
                "Store float32 (train.checkpoint_dtype).",
            )
    # Through memory: both writers report a full disk as an error of their own, without its cause.
    data = safetensors.torch.save(state, facts) if path.suffix == SAFETENSORS else torch_bytes(state)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    if path.suffix != SAFETENSORS:
        write_json(path.with_suffix(".json"), facts)


def read_metadata(path: Path) -> dict[str, str]:
    """What a ``.safetensors`` file says of itself, without its tensors.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            return dict(file.metadata() or {})
    except (OSError, safetensors.SafetensorError) as error:
        raise _unreadable(path, error) from error


def add_metadata(path: Path, facts: Mapping[str, str]) -> None:
    """Write a ``.safetensors`` file anew, with ``facts`` among its metadata.

    Raises:
        CheckpointError: it cannot be read.
        OutputError: it cannot be written; what was there before stays.
    """
    state, metadata = _read_safetensors(path)
    data = safetensors.torch.save(state, {**metadata, **facts})
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def describe(model: Sam) -> dict[str, str]:
    """What a file says of the architecture of its weights."""
    # Where the weights came from is the caller's to record, and may name private folders.
    architecture = model.config.model_copy(update={"checkpoint": None, "adapter": None})
    return {"model": architecture.model_dump_json(), "image_size": str(model.image_size)}


def torch_bytes(value: Any) -> bytes:
    """What ``torch.save`` would write to a file."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    if isinstance(error, FileNotFoundError):
        return CheckpointError(f"There is no file {path}.", "Check the path.")
    return CheckpointError(
        f"{path} is not a .safetensors file, or was cut short ({error}).", "Copy or download it again."
    )


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # torch warns of newer pickle protocols; whether it can read them shows by itself.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken stream can make the unpickler raise nearly anything
        if isinstance(error, pickle.UnpicklingError) and (_NAMES_CODE.search(str(error)) or _is_bare_pickle(path)):
            raise CheckpointError(
                f"{path} holds Python objects besides tensors: it could run any program and was not loaded.",
                "Ask its author for a .safetensors file or a .pt of the state dict alone.",
            ) from error
        raise CheckpointError(
            f"{path} is not a PyTorch checkpoint, or was cut short ({type(error).__name__}).",
            "Copy or download it again.",
        ) from error


def _is_bare_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1) == pickle.PROTO


def _read_sidecar(path: Path) -> dict[str, str]:
    sidecar = path.with_suffix(".json")
    if not sidecar.is_file():
        return {}
    try:
        facts = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{sidecar}, which describes {path.name}, cannot be read ({error}).", "Repair it or move it away."
        ) from error
    # Any other JSON of that name is somebody else's.
    return {key: str(value) for key, value in facts.items()} if isinstance(facts, dict) and "model" in facts else {}


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(
            f"{path} holds no weights.",
            "Name a file with a state dict, bare or under 'model' or 'state_dict'.",
        )
    state = {str(key): value for key, value in content.items()}
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _listing(what: str, keys: Iterable[str]) -> str:
    found = sorted(keys)
    if not found:
        return ""
    more = f", … ({len(found) - _LISTED} more)" if len(found) > _LISTED else ""
    return f"{len(found)} {what}: {', '.join(found[:_LISTED])}{more}"
