from __future__ import annotations

from pathlib import Path

import onnx
import onnx.parser
import pytest

from mobilesam_core.errors import CheckpointError, UsageError
from mobilesam_core.runtime.facts import ModelFacts
from mobilesam_core.runtime.onnx_session import OnnxModel, available_providers


def test_a_provider_may_go_by_its_short_name() -> None:
    assert available_providers(["CPU"]) == ["CPUExecutionProvider"]
    with pytest.raises(UsageError, match="no QuantumExecutionProvider"):
        available_providers(["Quantum"])


def test_files_that_are_no_model_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(CheckpointError, match="There is no ONNX model"):
        OnnxModel(path)
    path.write_bytes(b"\x00not a model")
    with pytest.raises(CheckpointError, match="no ONNX model that"):
        OnnxModel(path)
    onnx.save(
        onnx.parser.parse_model(
            '<ir_version: 10, opset_import: ["" : 20]> g (float[1] a) => (float[1] b) {b = Abs(a)}'
        ),
        path,
    )
    with pytest.raises(CheckpointError, match="was not exported by mobilesam"):
        OnnxModel(path)
    with pytest.raises(CheckpointError, match="does not know"):
        ModelFacts.from_metadata({"mobilesam": '{"part": "tail"}'}, "x.onnx")
