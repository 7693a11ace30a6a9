"""How much memory a run needs."""

from __future__ import annotations

import sys

import torch


def peak_memory_mb(device: torch.device) -> float | None:
    """Peak memory in MiB: of the GPU where the model runs on one, else of this process; None where unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return None
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
