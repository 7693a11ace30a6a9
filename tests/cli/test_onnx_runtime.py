"""The commands that run a model, on exported files and without torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mobilesam_core.config.data import ShapesConfig
from mobilesam_core.data.shapes import ShapesSource

Run = Callable[..., Any]
WITHOUT_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "timm"):
            raise ImportError(f"{name} is not to be imported")
sys.meta_path.insert(0, Refuse())
from mobilesam_cli.app import main
main()
"""


@pytest.fixture(scope="module")
def folder(exported_nano: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``nano`` exported at 128², an image and its labels."""
    folder = shutil.copytree(exported_nano, tmp_path_factory.mktemp("exported") / "nano")
    sample = ShapesSource(ShapesConfig(format="shapes", domains=("polygons",), count=1, size=96, seed=5))[0]
    masks = sample.masks.dense(range(len(sample.masks)))
    labels = (np.arange(1, len(masks) + 1, dtype=np.uint8)[:, None, None] * masks).max(axis=0)
    for name, pixels in (("images", sample.image), ("masks", labels)):
        (folder / name).mkdir()
        Image.fromarray(pixels).save(folder / name / "one.png")
    return folder


@pytest.fixture(scope="module")
def exported(folder: Path) -> Sequence[str]:
    return (
        *("--onnx-encoder", str(folder / "nano_encoder.onnx")),
        *("--onnx-decoder", str(folder / "nano_decoder_batched.onnx")),
    )


def _without_torch(*arguments: object) -> Any:
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_every_command_runs_without_torch_and_agrees_with_it(
    folder: Path, exported: Sequence[str], run_cli: Run, tmp_path: Path
) -> None:
    image, torch = folder / "images/one.png", ("--checkpoint", "nano", "--image-size", "128", "--device", "cpu")
    prompts = ("--point", "40,40", "--box", "10,10,60,60")
    found = _without_torch("predict", image, *prompts, *exported, "--out", tmp_path / "p", "--json")
    expected = run_cli("predict", image, *prompts, *torch, "--out", tmp_path / "q", "--json").json
    for ours, theirs in zip(found["images"][0]["masks"], expected["images"][0]["masks"], strict=True):
        assert ours["predicted_iou"] == pytest.approx(theirs["predicted_iou"], abs=1e-4)
        assert ours["area"] == pytest.approx(theirs["area"], abs=2)
        assert ours["checkpoint_sha256"] == theirs["checkpoint_sha256"]

    grid = ("--points-per-side", "6", "--pred-iou-thresh", "0.5", "--stability-score-thresh", "0.5")
    found = _without_torch("amg", image, *grid, *exported, "--out", tmp_path / "a", "--json")
    expected = run_cli("amg", image, *grid, *torch, "--out", tmp_path / "b", "--json").json
    assert found["masks"] == expected["masks"] > 0

    assert _without_torch("embed", image, *exported, "--out", tmp_path / "e", "--json")["images"] == 1
    read = run_cli(
        "predict", image, *prompts, *torch, "--embeddings", tmp_path / "e", "--out", tmp_path / "r", "--json"
    )
    assert read.code == 0, read.err

    data = ("--images", folder / "images", "--masks", folder / "masks", "--json")
    found = _without_torch("eval", *data, *exported)["checkpoints"]
    expected = run_cli("eval", "nano", "--image-size", "128", "--device", "cpu", *data, *exported).json["checkpoints"]
    assert len(expected) == 2
    assert found[0]["prompts"] == expected[1]["prompts"]
    assert found[0]["prompts"]["box"]["miou"] == pytest.approx(expected[0]["prompts"]["box"]["miou"], abs=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda given: given[:2], "--onnx-decoder is missing"),
        (lambda given: (*given, "--checkpoint", "nano"), "--checkpoint is for torch"),
        (lambda given: (*given, "--providers", "Quantum"), "no QuantumExecutionProvider"),
        (lambda given: (*given[:3], given[1]), "not its decoder"),
        (lambda given: ("--onnx-encoder", "missing.onnx", *given[2:]), "no ONNX model missing.onnx"),
    ],
)
def test_bad_input(
    folder: Path, exported: Sequence[str], run_cli: Run, tmp_path: Path, change: Callable[..., Any], message: str
) -> None:
    ran = run_cli("amg", folder / "images/one.png", *change(exported), "--out", tmp_path / "out")
    assert ran.code != 0 and message in ran.err
    assert not (tmp_path / "out").exists()
