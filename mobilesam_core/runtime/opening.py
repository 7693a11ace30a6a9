"""From whatever a user has to a runtime; what computes is imported only when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from mobilesam_core.runtime.protocol import Runtime

if TYPE_CHECKING:
    from mobilesam_core.models.sam import Sam


def as_runtime(model: Sam | Runtime) -> Runtime:
    """A torch model as a runtime on its device; a runtime stays as it is."""
    if hasattr(model, "search"):
        return cast("Runtime", model)
    from mobilesam_core.runtime.torch_runtime import TorchRuntime

    return TorchRuntime(cast("Sam", model))


def open_onnx(encoder: Path, decoder: Path, providers: Sequence[str] = ("CPU",), force: bool = False) -> Runtime:
    """An exported encoder and decoder, run by ONNX Runtime or OpenVINO.

    Raises:
        UsageError: a provider is not here, or the two do not fit together.
        CheckpointError: a file cannot be loaded.
    """
    from mobilesam_core.runtime.exported import open_exported
    from mobilesam_core.runtime.onnx_runtime import OnnxRuntime

    return OnnxRuntime(open_exported(encoder, providers), open_exported(decoder, providers), force)
