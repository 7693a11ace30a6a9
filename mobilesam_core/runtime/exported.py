"""What runs an exported file, whichever library does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from mobilesam_core.errors import UsageError
from mobilesam_core.runtime.facts import ModelFacts

OPENVINO_SUFFIX = ".xml"
OPENVINO = "OpenVINO"
"""The provider that stands for the OpenVINO runtime itself."""


class ExportedModel(Protocol):
    """An exported part of a model, loaded. path: its file. facts: what that says of itself."""

    path: Path
    facts: ModelFacts

    @property
    def input_names(self) -> list[str]: ...

    def size_of(self, input_name: str, dimension: int) -> int | None:
        """The size of an input along a dimension; None where it is free."""

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs, by name."""


def open_exported(path: Path, providers: Sequence[str] = ("CPU",)) -> ExportedModel:
    """Load an exported file: an OpenVINO IR, or any file if the provider is ``OpenVINO``, with OpenVINO; else with
    ONNX Runtime.

    Raises:
        UsageError: the library or a provider is not installed, or the provider is not for such a file.
        CheckpointError: the file cannot be loaded.
    """
    if path.suffix == OPENVINO_SUFFIX and list(providers) not in (["CPU"], [OPENVINO]):
        raise UsageError(f"{path} runs on OpenVINO's CPU, not on {','.join(providers)}.", "Leave out --providers.")
    if path.suffix == OPENVINO_SUFFIX or list(providers) == [OPENVINO]:
        from mobilesam_core.runtime.openvino_model import OpenVinoModel

        return OpenVinoModel(path)
    from mobilesam_core.runtime.onnx_session import OnnxModel

    return OnnxModel(path, providers)
