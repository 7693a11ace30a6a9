from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(exported_nano: Path) -> Path:
    return exported_nano


def test_quantize(run_cli: Run, folder: Path, tmp_path: Path) -> None:
    quick = ("--images", "2", "--calibration-images", "2", "--max-drop", "100", "--out", tmp_path / "q.onnx")
    encoder = folder / "nano_encoder.onnx"
    ran = run_cli("quantize", encoder, *quick, "--report", tmp_path / "q.md", "--json")
    assert ran.code == 0, ran.err
    assert len(ran.json["sensitivity"]) > 40
    assert ran.json["passed"] and ran.json["path"] == str(tmp_path / "q.onnx")
    assert (tmp_path / "q.md").read_text().startswith("# q.onnx")
    printed = run_cli(
        "quantize", encoder, *quick, "--overwrite", "--method", "percentile", "--no-sensitivity", "--json"
    )
    assert printed.json["mode"] == "static int8, percentile"  # what the calibrator prints is kept out
    again = run_cli("quantize", encoder, *quick)
    assert again.code == 2 and "there already" in again.err
    table = run_cli("quantize", encoder, *quick[:2], *quick[4:], "--mode", "dynamic", "--overwrite")
    assert table.code == 0 and "latency" in table.out


def test_what_loses_too_much(run_cli: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mobilesam_core.quantization import workflow

    losses = iter([80.0, 20.0])
    monkeypatch.setattr(workflow, "miou_of", lambda *_: ({"box": next(losses), "point": 0.0}, 7))
    out = tmp_path / "q.onnx"
    ran = run_cli("quantize", folder / "nano_encoder.onnx", "--mode", "fp16", "--images", "2", "--out", out)
    assert ran.code == 1
    assert "60.00 points of mIoU are lost" in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["q.rejected.onnx"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--calibration", "missing.png"), "missing.png"),
        (("--set", "data.root=x"), "no --config"),
        (("--mode", "fp16", "--method", "entropy"), "--method goes only with --mode static"),
        (("--exclude", "nothing"), "No node is called 'nothing'"),
        (("--onnx-decoder", "missing.onnx"), "no ONNX model missing.onnx"),
    ],
)
def test_bad_input(run_cli: Run, folder: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    out = ("--out", tmp_path / "q.onnx", "--images", "2")
    ran = run_cli("quantize", folder / "nano_encoder.onnx", *out, *arguments)
    assert ran.code != 0 and message in ran.err
    assert not list(tmp_path.iterdir())
