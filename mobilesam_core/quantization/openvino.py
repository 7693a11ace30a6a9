"""int8 by NNCF, for OpenVINO."""

from __future__ import annotations

import errno
import io
import logging
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from mobilesam_core.errors import UsageError
from mobilesam_core.files import make_folder, output_error
from mobilesam_core.runtime.facts import ModelFacts
from mobilesam_core.runtime.openvino_model import OpenVinoModel, import_openvino, openvino_core

_LEFT_OF_A_FULL_DISK = 2**16


class OpenVinoArtifact:
    """An OpenVINO model; on disk an ``.xml`` with its weights in a ``.bin`` beside it."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @property
    def bytes(self) -> int:
        with self._written() as path:
            return path.stat().st_size + _weights(path).stat().st_size

    def describe(self, facts: ModelFacts) -> None:
        self._model.set_rt_info(facts.to_metadata()[ModelFacts.KEY], ModelFacts.KEY)

    @contextmanager
    def opened(self) -> Iterator[OpenVinoModel]:
        with self._written() as path:
            yield OpenVinoModel(path)

    def save(self, path: Path) -> None:
        make_folder(path.parent)
        try:
            with self._written(path) as temporary:
                # Weights without a graph are harmless; a graph without weights is not.
                _weights(temporary).replace(_weights(path))
                temporary.replace(path)
        except OSError as error:
            raise output_error(path, error) from error

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        _weights(path).unlink(missing_ok=True)

    @contextmanager
    def _written(self, target: Path | None = None) -> Iterator[Path]:
        """The model on disk, for a while: beside ``target``, or where temporary files go.

        Raises:
            OutputError: it cannot be written.
        """
        parent = None if target is None else target.parent
        with tempfile.TemporaryDirectory(dir=parent, prefix=".openvino.") as folder:
            path = Path(folder) / "model.xml"
            try:
                import_openvino().save_model(self._model, path, compress_to_fp16=False)
            except RuntimeError as error:  # all that OpenVINO tells of a full disk
                full = shutil.disk_usage(folder).free < _LEFT_OF_A_FULL_DISK
                why = OSError(errno.ENOSPC if full else errno.EIO, str(error).strip().splitlines()[-1])
                raise output_error(target or path, why) from error
            yield path


def quantized(path: Path, feeds: Iterable[Mapping[str, np.ndarray]], count: int) -> OpenVinoArtifact:
    """An exported encoder with int8 weights and activations, as NNCF chooses them for transformers.

    Args:
        path: the float32 ONNX file.
        feeds: the inputs to calibrate on, which NNCF goes over several times; one need be in memory at a time.
        count: how many they are.

    Raises:
        UsageError: OpenVINO or NNCF is not installed.
    """
    nncf = import_nncf()
    model = openvino_core().read_model(path)
    # What NNCF prints is not ours to say; our own output may be a JSON document.
    with redirect_stdout(io.StringIO()):
        quantised = nncf.quantize(model, nncf.Dataset(feeds), model_type=nncf.ModelType.TRANSFORMER, subset_size=count)
    return OpenVinoArtifact(quantised)


def import_nncf() -> Any:
    """The package; OpenVINO is looked for too, since it works on that.

    Raises:
        UsageError: one of them is not installed.
    """
    import_openvino()
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # which NNCF wakes: there is no CUDA
    try:
        import nncf
    except ImportError as error:
        raise UsageError("NNCF is not installed.", 'Install it: pip install "mobilesam[openvino]".') from error
    nncf.set_log_level(logging.ERROR)
    return nncf


def _weights(path: Path) -> Path:
    return path.with_suffix(".bin")
