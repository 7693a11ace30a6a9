"""Adapters in files of their own: small, and of use only with the weights they were trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from pydantic import ValidationError

from mobilesam_core.checkpoints.keys import to_official, to_ours
from mobilesam_core.checkpoints.weights import WeightFile, describe, read_weights
from mobilesam_core.config.lora import LoraConfig
from mobilesam_core.errors import CheckpointError
from mobilesam_core.files import atomic_path
from mobilesam_core.models.fingerprint import weights_sha256
from mobilesam_core.models.lora import A, B, split_state
from mobilesam_core.models.lora_linear import low_rank_change
from mobilesam_core.models.sam import Sam

_LORA, _BASE = "lora", "base_sha256"


def save_adapter(model: Sam, config: LoraConfig, path: Path, metadata: Mapping[str, str]) -> None:
    """Write what ``model`` learnt: the adapters of ``config`` and its full parts, under official names, as float32.

    ``metadata`` goes with them, and so do ``config`` (``lora``), the weights they belong to (``base_sha256``) and the
    architecture.

    Raises:
        OutputError: the file cannot be written.
    """
    base, learnt = split_state(model, config.full)
    facts = {**metadata, **describe(model), _LORA: config.model_dump_json(), _BASE: weights_sha256(base)}
    state = {key: value.detach().cpu().contiguous() for key, value in to_official(learnt).items()}
    data = safetensors.torch.save(state, facts)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def is_adapter(file: WeightFile) -> bool:
    """Whether a file is one of :func:`save_adapter`."""
    return _LORA in file.metadata and _BASE in file.metadata


def apply_adapter(model: Sam, path: Path) -> None:
    """Merge the adapter of ``path`` into the weights of ``model``, which stays one of plain layers.

    Raises:
        CheckpointError: the file cannot be read or is no adapter, or it belongs to other weights; the model is
            unchanged.
    """
    file = read_weights(path)
    if not is_adapter(file):
        raise CheckpointError(
            f"{path} is no adapter.", "Name a best.lora.safetensors or last.lora.safetensors, or a model.checkpoint."
        )
    try:
        config = LoraConfig.model_validate_json(file.metadata[_LORA])
    except ValidationError as error:
        raise CheckpointError(
            f"{path} describes its adapter in a way this version does not know.", "Update mobilesam."
        ) from error
    learnt, state = to_ours(file.state), dict(model.state_dict())
    found = weights_sha256({name: value for name, value in state.items() if name not in learnt})
    if found != file.metadata[_BASE]:
        raise CheckpointError(
            f"{path} was trained on other weights (sha256 {file.metadata[_BASE][:12]}…) than these ({found[:12]}…).",
            "Set model.checkpoint to the weights that its run started from.",
        )
    try:
        for name, value in learnt.items():
            layer = name.removesuffix(A)
            if layer != name:
                state[f"{layer}.weight"] = state[f"{layer}.weight"] + low_rank_change(
                    value, learnt[layer + B], config.alpha
                )
            elif not name.endswith(B):
                state[name] = value
        model.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"{path} is damaged: its adapters are not whole.", "Copy it again.") from error
