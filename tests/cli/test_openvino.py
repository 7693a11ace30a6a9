"""OpenVINO: quantising for it, and running with it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mobilesam_core.data.shapes.domains import DOMAINS
from mobilesam_core.data.shapes.scene import draw_scene
from mobilesam_core.errors import CheckpointError
from mobilesam_core.runtime.exported import open_exported

pytest.importorskip("openvino", reason="needs the extra 'openvino'")
pytest.importorskip("nncf", reason="needs the extra 'openvino'")

Run = Callable[..., Any]


def drawn() -> tuple[np.ndarray, str]:
    """An image and the box of the largest object on it, which is no matter of opinion."""
    image, labels = draw_scene(np.random.default_rng(3), 128, DOMAINS["polygons"])
    areas = np.bincount(labels.ravel())[1:]
    rows, columns = np.nonzero(labels == areas.argmax() + 1)
    return image, f"{columns.min()},{rows.min()},{columns.max() + 1},{rows.max() + 1}"


@pytest.fixture(scope="module")
def folder(exported_nano: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shutil.copytree(exported_nano, tmp_path_factory.mktemp("openvino") / "nano")
    cv2.imwrite(str(folder / "drawn.png"), drawn()[0])
    return folder


def test_quantise_and_run(run_cli: Run, folder: Path, tmp_path: Path) -> None:
    encoder, decoder = folder / "nano_encoder.onnx", folder / "nano_decoder_batched.onnx"
    quick = ("--images", "3", "--calibration-images", "12", "--max-drop", "10", "--json")
    ran = run_cli("quantize", encoder, "--backend", "openvino", "--out", tmp_path / "q.xml", *quick)
    assert ran.code == 0, ran.err
    assert ran.json["mode"] == "OpenVINO int8" and ran.json["cosine"] > 0.9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["q.bin", "q.xml"]
    assert ran.json["size"]["after"] == sum(path.stat().st_size for path in tmp_path.iterdir())
    again = run_cli("quantize", encoder, "--backend", "openvino", "--out", tmp_path / "q.xml", *quick)
    assert again.code == 2 and "there already" in again.err

    original, quantised = open_exported(encoder), open_exported(tmp_path / "q.xml")
    assert quantised.facts.precision == "int8"
    assert quantised.facts.checkpoint_sha256 == original.facts.checkpoint_sha256
    prompts = ("--box", drawn()[1], "--json", "--overwrite")
    small = ("--onnx-encoder", tmp_path / "q.xml", "--onnx-decoder", decoder, "--out", tmp_path / "p")
    found = run_cli("predict", folder / "drawn.png", *prompts, *small)
    assert found.code == 0, found.err
    exact = ("--onnx-encoder", encoder, "--onnx-decoder", decoder, "--out", tmp_path / "p")
    expected = run_cli("predict", folder / "drawn.png", *prompts, *exact)
    areas = [ran.json["images"][0]["masks"][0]["area"] for ran in (found, expected)]
    assert areas[0] == pytest.approx(areas[1], rel=0.2)

    (tmp_path / "q.xml").rename(tmp_path / "r.xml")
    beside = run_cli("quantize", encoder, "--backend", "openvino", "--out", tmp_path / "q.xml", *quick)
    assert beside.code == 2 and "q.bin is there already" in beside.err
    (tmp_path / "r.xml").rename(tmp_path / "q.xml")
    cuda = run_cli("predict", folder / "drawn.png", *prompts, *small, "--providers", "CUDA,CPU")
    assert cuda.code == 2 and "not on CUDA,CPU" in cuda.err
    (tmp_path / "q.bin").unlink()
    with pytest.raises(CheckpointError, match=r"q\.xml is no model"):
        open_exported(tmp_path / "q.xml")


def test_onnx_files_run_on_it_too(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("nano_encoder.onnx", "nano_decoder_batched.onnx"):
        ours, theirs = open_exported(folder / name, ["OpenVINO"]), open_exported(folder / name)
        assert ours.facts == theirs.facts and set(ours.input_names) == set(theirs.input_names)
        image = "input_image" if "input_image" in ours.input_names else "image_embeddings"
        shape = [ours.size_of(image, dimension) for dimension in range(4)]
        feed = {image: rng.normal(size=shape).astype(np.float32)}
        if "point_coords" in ours.input_names:
            assert ours.size_of("point_coords", 0) is None
            feed["point_coords"] = rng.uniform(0, 128, (3, 2, 2)).astype(np.float32)
            feed["point_labels"] = np.array([[1, -1], [2, 3], [1, 0]], np.float32)
            feed["mask_input"], feed["has_mask_input"] = np.zeros((3, 1, 32, 32), np.float32), np.zeros(3, np.float32)
        expected = theirs.run(feed)
        for key, value in ours.run(feed).items():
            assert value.shape == expected[key].shape
            # Up to bfloat16, which OpenVINO takes where the processor has units for it.
            assert np.abs(value - expected[key]).max() < 0.05 * np.abs(expected[key]).max()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--mode", "dynamic"), "has no --mode dynamic"),
        (("--method", "minmax"), "--backend onnxruntime"),
        (("--out", "q.onnx"), "does not end in .xml"),
    ],
)
def test_bad_input(run_cli: Run, folder: Path, arguments: tuple[str, ...], message: str) -> None:
    ran = run_cli("quantize", folder / "nano_encoder.onnx", "--backend", "openvino", *arguments)
    assert ran.code != 0 and message in ran.err


def test_not_one_of_ours(run_cli: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "e.xml").write_text("<net/>")
    given = ("--onnx-encoder", tmp_path / "e.xml", "--onnx-decoder", folder / "nano_decoder_batched.onnx")
    ran = run_cli("predict", folder / "drawn.png", "--point", "5,5", *given, "--out", tmp_path / "p")
    assert ran.code == 1 and "e.xml is no model that OpenVINO" in ran.err


def test_signals_still_arrive_when_models_are_gone(folder: Path) -> None:
    script = """
import signal, subprocess, sys
from pathlib import Path
from mobilesam_core.runtime.openvino_model import OpenVinoModel
models = [OpenVinoModel(Path(sys.argv[1])) for _ in range(2)]
del models[0]
del models[0]
signal.signal(signal.SIGCHLD, lambda *_: None)
for _ in range(3):
    subprocess.run([sys.executable, "-c", ""])
print("fine")
"""
    ran = subprocess.run(
        [sys.executable, "-c", script, folder / "nano_encoder.onnx"], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "fine\n"), ran.stderr


def test_a_full_disk_leaves_nothing(
    run_cli: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("basic_ios::clear: iostream error")

    monkeypatch.setattr("openvino.save_model", full)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 0})())
    given = ("--backend", "openvino", "--out", tmp_path / "q.xml", "--images", "1", "--calibration-images", "2")
    ran = run_cli("quantize", folder / "nano_encoder.onnx", *given)
    assert ran.code == 1 and "The disk is full" in ran.err and not list(tmp_path.iterdir())
