"""The README's example for machines without torch, as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).parents[2]
ONLY = """
import sys
class Only:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "cv2", "mobilesam_core", "mobilesam_cli", "onnx", "scipy"):
            raise ImportError(f"{name} is not to be imported")
sys.meta_path.insert(0, Only())
"""


def test_it_segments_with_numpy_pillow_and_onnxruntime_alone(
    run_cli: Callable[..., Any], data_root: Path, tmp_path: Path
) -> None:
    (example,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
        if "onnxruntime" in block
    )
    photo = data_root / "photos/mobilesam_picture2.jpg"
    (tmp_path / "photo.jpg").write_bytes(photo.read_bytes())
    exported = run_cli(
        *("export", "onnx", "--checkpoint", "nano", "--combined", "--embed-preprocessing", "--single-mask"),
        *("--out", tmp_path / "one_file"),
    )
    assert exported.code == 0, exported.err
    ended = subprocess.run(
        [sys.executable, "-c", ONLY + example], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    mask = np.asarray(Image.open(tmp_path / "mask.png"))
    ran = run_cli("predict", photo, "--point", "320,240", "--checkpoint", "nano", "--out", tmp_path / "p")
    assert ran.code == 0, ran.err
    expected = np.asarray(Image.open(tmp_path / "p" / photo.stem / "0.png")) > 0
    assert mask.shape == expected.shape
    assert (mask & expected).sum() >= 0.99 * (mask | expected).sum()
