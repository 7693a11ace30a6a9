"""Which device to run on."""

from __future__ import annotations

from typing import Literal

import torch

from mobilesam_core.errors import UsageError

DeviceName = Literal["auto", "cpu", "cuda", "mps"]


def resolve_device(name: DeviceName) -> torch.device:
    """``auto`` is CUDA where there is a device for it, else the CPU.

    Raises:
        UsageError: torch sees no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[name]:
        raise UsageError(f"torch sees no {name} device on this machine.", "Choose 'auto' or 'cpu'.")
    return torch.device(name)
