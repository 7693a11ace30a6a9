from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def test_export_and_verify(run_cli: Run, nano_checkpoint: Path, tmp_path: Path) -> None:
    ran = run_cli("export", "onnx", "--checkpoint", nano_checkpoint, "--out", tmp_path, "--json")
    assert ran.code == 0, ran.err
    assert [Path(each["path"]).name for each in ran.json] == ["nano_encoder.onnx", "nano_decoder.onnx"]
    assert all(each["passed"] for each in ran.json)
    assert {each["prompt"] for each in ran.json[1]["comparisons"]} >= {"point", "box", "points and mask"}
    decoder = ran.json[1]["path"]
    assert run_cli("export", "verify", decoder, "--checkpoint", nano_checkpoint).code == 0
    again = run_cli("export", "onnx", "--checkpoint", nano_checkpoint, "--out", tmp_path)
    assert again.code == 2 and "there already" in again.err
    other = run_cli("export", "verify", decoder, "--checkpoint", "nano")
    assert other.code == 1 and "another checkpoint" in other.err


def test_one_part_is_shown_as_a_table(run_cli: Run, nano_checkpoint: Path, tmp_path: Path) -> None:
    ran = run_cli(
        *("export", "onnx", "--checkpoint", nano_checkpoint, "--out", tmp_path),
        *("--decoder", "--decoder-style", "low-res", "--num-points", "2"),
    )
    assert ran.code == 0, ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["nano_decoder_low_res.onnx"]
    assert "verified" in ran.out and "iou_predictions" in ran.out


def test_one_part_once_more_in_int8(run_cli: Run, nano_checkpoint: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.onnx"
    given = ("export", "onnx", "--checkpoint", nano_checkpoint, "--encoder", "--out", tmp_path)
    ran = run_cli(*given, "--quantize-out", small, "--json")
    assert ran.code == 0, ran.err
    exact, quantised = ran.json
    assert quantised["path"] == str(small) and quantised["facts"]["precision"] == "int8"
    assert quantised["bytes"] == small.stat().st_size < 0.8 * exact["bytes"]
    same = run_cli(*given[:-1], tmp_path / "o", "--quantize-out", tmp_path / "o/nano_encoder.onnx")
    assert same.code == 2 and "where the float32 export goes" in same.err
    again = run_cli(*given, "--quantize-out", small)
    assert again.code == 2 and "there already" in again.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--opset", "9"), "Opset 9"),
        (("--quantize-out", "small.onnx"), "names one file"),
        (("--encoder", "--quantize-out", "small.bin"), "end in .onnx"),
        (("--decoder", "--embed-preprocessing"), "takes no images"),
        (("--image", "missing.png"), "no image missing.png"),
        (("--checkpoint", "missing.safetensors"), "no checkpoint"),
    ],
)
def test_bad_input(
    run_cli: Run, nano_checkpoint: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    named = () if "--checkpoint" in arguments else ("--checkpoint", nano_checkpoint)
    ran = run_cli("export", "onnx", *named, "--out", tmp_path / "out", *arguments)
    assert ran.code != 0 and message in ran.err
    assert not (tmp_path / "out").exists()


def test_verify_wants_an_exported_file(run_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_text("text")
    ran = run_cli("export", "verify", tmp_path / "x.onnx", "--checkpoint", "nano")
    assert ran.code == 1 and "no ONNX model" in ran.err
