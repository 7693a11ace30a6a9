"""Opening exported models with OpenVINO, with errors that a user can act on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from mobilesam_core.errors import CheckpointError, UsageError
from mobilesam_core.runtime.facts import ModelFacts


class OpenVinoModel:
    """An OpenVINO IR (``.xml`` with its ``.bin``) or an ``.onnx`` file that OpenVINO has compiled for the CPU.

    OpenVINO computes what is not quantised in bfloat16 where the processor has units for that.

    Args:
        precision: ``f32`` or ``bf16`` for what is not quantised; None leaves it to OpenVINO.

    Raises:
        UsageError: OpenVINO is not installed.
        CheckpointError: the file is missing, cannot be loaded, or is not one of ours.
    """

    def __init__(self, path: Path, threads: int | None = None, precision: str | None = None) -> None:
        self.path = path
        openvino = import_openvino()
        if not path.is_file():
            raise CheckpointError(
                f"There is no exported model {path}.", "Make it with mobilesam quantize --backend openvino."
            )
        options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        if precision is not None:
            options["INFERENCE_PRECISION_HINT"] = precision
        core = openvino_core()
        try:
            model = core.read_model(path)
            compiled = core.compile_model(model, "CPU", options)
        except RuntimeError as error:
            raise CheckpointError(
                f"{path} is no model that OpenVINO {openvino.__version__} can load.",
                "Make or copy it again; an .xml needs its .bin beside it.",
            ) from error
        self._request = compiled.create_infer_request()
        self._turn = Lock()  # a request computes for one thread at a time
        self._inputs = {each.get_any_name(): each for each in model.inputs}
        self._outputs = [each.get_any_name() for each in model.outputs]
        self.facts = ModelFacts.from_metadata(_metadata(path, model), str(path))

    @property
    def input_names(self) -> list[str]:
        return list(self._inputs)

    def size_of(self, input_name: str, dimension: int) -> int | None:
        """The size of an input along a dimension; None where it is free."""
        size = self._inputs[input_name].get_partial_shape()[dimension]
        return int(size.get_length()) if size.is_static else None

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs, by name."""
        with self._turn:
            found = self._request.infer(dict(inputs))
            # The arrays of a request are overwritten by its next run.
            return {name: np.array(value) for name, value in zip(self._outputs, found.values(), strict=True)}


def import_openvino() -> Any:
    """The package.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise UsageError("OpenVINO is not installed.", 'Install it: pip install "mobilesam[openvino]".') from error
    return openvino


@cache
def openvino_core() -> Any:
    """The one ``Core`` of the process, which lives as long as that.

    A ``Core`` gives the calling thread a stack for signals where the processor has AMX, and takes it back when it is
    freed; of two that overlap, the second then leaves behind that of the first, which is gone, and the next signal
    ends the process.

    Raises:
        UsageError: OpenVINO is not installed.
    """
    return import_openvino().Core()


def _metadata(path: Path, model: Any) -> dict[str, str]:
    if path.suffix == ".onnx":
        import onnx

        return {each.key: each.value for each in onnx.load(path).metadata_props}
    key = ModelFacts.KEY
    return {key: str(model.get_rt_info(key).value)} if model.has_rt_info(key) else {}
