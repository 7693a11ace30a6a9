"""The model that others learn from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mobilesam_core.checkpoints.loading import open_checkpoint, resolve_checkpoint
from mobilesam_core.config.precision import Precision
from mobilesam_core.embedding.workflow import Features
from mobilesam_core.errors import UsageError
from mobilesam_core.models.features import FeatureHookManager, level_shapes
from mobilesam_core.progress import Reporter
from mobilesam_core.runtime.torch_runtime import TorchRuntime


def open_teacher(
    checkpoint: str,
    reporter: Reporter,
    *,
    model_name: str | None = None,
    image_size: int | None = None,
    device: torch.device,
    precision: Precision = "32",
) -> TorchRuntime:
    """Load a teacher, strictly, onto its device.

    Raises:
        CheckpointError: the weights cannot be read, or fit no model.
        UsageError: they are larger than the memory that is free.
    """
    path = resolve_checkpoint(checkpoint, model_name or "vit_t", reporter)
    _require_memory(path)
    opened = open_checkpoint(path, model_name, reporter, image_size)
    opened.model.to(device).to(memory_format=torch.channels_last)
    return TorchRuntime(opened.model, opened.path, opened.sha256, precision)


class LevelExtractor:
    """The :class:`~mobilesam_core.embedding.workflow.Extractor` of a torch model's levels, inner ones included.

    Raises:
        UsageError: the model has no such level.
    """

    def __init__(self, runtime: TorchRuntime, levels: Sequence[str]) -> None:
        self._runtime = runtime
        self.levels = tuple(levels)
        self.source, self.channels, self.producer = runtime.source, runtime.channels, runtime.producer
        shapes = level_shapes(runtime.torch_model.image_encoder, self.levels, runtime.image_size)
        self.image_bytes = sum(2 * math.prod(shape) for shape in shapes.values())

    def extract(self, image: np.ndarray) -> Features:
        encoder = self._runtime.torch_model.image_encoder
        with self._runtime.running(), FeatureHookManager(encoder, self.levels) as features:
            self._runtime.encode(image)
            return {
                level: (features[level][0].to("cpu", torch.float16).numpy(), layout)
                for level, layout in features.layouts.items()
            }


def _require_memory(path: Path) -> None:
    """Raise a UsageError if a model of the weights in ``path`` does not fit beside them."""
    free = _available_memory()
    if free is None or not path.is_file():
        return
    needed = 2 * path.stat().st_size
    if needed > free:
        raise UsageError(
            f"{path} needs {needed / 2**30:.1f} GiB to load; {free / 2**30:.1f} GiB of memory are free.",
            "Close other programs, use a smaller teacher, or extract on a larger machine and copy the store.",
        )


def _available_memory() -> int | None:
    """Bytes that programs can still have; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)
