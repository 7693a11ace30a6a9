"""Opening ONNX models with ONNX Runtime, with errors that a user can act on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from mobilesam_core.errors import CheckpointError, UsageError
from mobilesam_core.runtime.facts import ModelFacts

CPU_PROVIDER = "CPUExecutionProvider"


class OnnxModel:
    """An exported model that ONNX Runtime has loaded.

    facts: what the file says of itself.

    Args:
        path: an ``.onnx`` file that mobilesam exported.
        providers: ONNX Runtime's execution providers, the preferred one first; their ``ExecutionProvider`` may be
            left out (``CUDA``).
        threads: that compute one operator; None leaves it to ONNX Runtime.

    Raises:
        UsageError: a provider is not installed here.
        CheckpointError: the file is missing, no ONNX model, cut short, or not one of ours.
    """

    def __init__(self, path: Path, providers: Sequence[str] = (CPU_PROVIDER,), threads: int | None = None) -> None:
        self.path = path
        options = ort.SessionOptions()
        options.log_severity_level = 3  # of notes on the graph users can do nothing about
        if threads is not None:
            options.intra_op_num_threads = threads
        chosen = available_providers(providers)
        if not path.is_file():
            raise CheckpointError(f"There is no ONNX model {path}.", "Make it with mobilesam export onnx.")
        try:
            self._session = ort.InferenceSession(str(path), options, providers=chosen)
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise CheckpointError(
                f"{path} is no ONNX model that ONNX Runtime {ort.__version__} can load ({reason}).",
                "Export or copy it again.",
            ) from error
        self.facts = ModelFacts.from_metadata(self._session.get_modelmeta().custom_metadata_map, str(path))

    @property
    def input_names(self) -> list[str]:
        return [each.name for each in self._session.get_inputs()]

    @property
    def output_names(self) -> list[str]:
        return [each.name for each in self._session.get_outputs()]

    def size_of(self, input_name: str, dimension: int) -> int | None:
        """The size of an input along a dimension; None where it is free."""
        shape = next(each.shape for each in self._session.get_inputs() if each.name == input_name)
        return shape[dimension] if isinstance(shape[dimension], int) else None

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs, by name."""
        return dict(zip(self.output_names, self._session.run(None, dict(inputs)), strict=True))


def available_providers(wanted: Sequence[str]) -> list[str]:
    """The full names of ``wanted`` execution providers, then the CPU's, which takes what they cannot.

    Raises:
        UsageError: one is not there.
    """
    here = ort.get_available_providers()
    stems = [name.strip().removesuffix("ExecutionProvider") for name in wanted]
    names = [f"{stem}ExecutionProvider" for stem in stems if stem]
    for name in names:
        if name not in here:
            raise UsageError(
                f"ONNX Runtime has no {name} on this machine.",
                f"Choose from {', '.join(here)}, or install the onnxruntime package that has it.",
            )
    return list(dict.fromkeys([*names, CPU_PROVIDER]))
