from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mobilesam_cli.app import main
from mobilesam_core.checkpoints.weights import save_weights
from mobilesam_core.config.data import ShapesConfig
from mobilesam_core.config.model import ModelConfig
from mobilesam_core.data.shapes import ShapesSource
from mobilesam_core.models.registry import build_sam


@dataclass(frozen=True)
class Ran:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line in this process, error boundary included."""

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["mobilesam", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        printed = capsys.readouterr()
        return Ran(code, printed.out, printed.err)

    return run


@pytest.fixture
def run_process() -> Run:
    """Runs the command line as users do, in a process of its own."""

    def run(*arguments: object) -> Ran:
        ended = subprocess.run(
            [sys.executable, "-m", "mobilesam_cli", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            env={**os.environ, "COLUMNS": "300"},
        )
        return Ran(ended.returncode, ended.stdout, ended.stderr)

    return run


@pytest.fixture(scope="session")
def nano_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``vit_nano`` of random weights, small enough to be quick."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "nano.safetensors"
    save_weights(build_sam(ModelConfig(name="vit_nano", checkpoint=None, image_size=64)), path, {})
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three images and their masks of ids."""
    source = ShapesSource(ShapesConfig(format="shapes", domains=("polygons",), count=3, size=96, seed=5))
    for index in range(3):
        sample = source[index]
        labels = sum(
            (i + 1) * mask.astype(np.uint8) for i, mask in enumerate(sample.masks.dense(range(len(sample.masks))))
        )
        for folder, pixels in (("images", sample.image), ("masks", labels)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / f"{index}.png")
    return tmp_path / "images"
