"""Files we write are files the reference reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mobile_sam
import pytest
import torch
from safetensors.torch import load_file

from mobilesam_core.checkpoints.weights import save_weights
from mobilesam_core.models.sam import Sam


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_reference_loads_our_file_strictly(vit_t: tuple[Any, Sam], tmp_path: Path, suffix: str) -> None:
    oracle, ours = vit_t
    path = tmp_path / f"ours{suffix}"
    save_weights(ours, path, {})
    state = torch.load(path, weights_only=True) if suffix == ".pt" else load_file(path)
    fresh = mobile_sam.sam_model_registry["vit_t"]()
    fresh.load_state_dict(state, strict=True)
    for key, value in oracle.state_dict().items():
        assert torch.equal(fresh.state_dict()[key], value), key
