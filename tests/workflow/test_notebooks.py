"""The example notebooks, from top to bottom."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.slow

NOTEBOOKS = sorted((Path(__file__).parents[2] / "examples/notebooks").glob("*.ipynb"))


def _pictures(notebook: nbformat.NotebookNode) -> list[int]:
    """How many each cell shows."""
    outputs = [cell.get("outputs", []) for cell in notebook.cells]
    return [sum(kind.startswith("image/") for each in of_cell for kind in each.get("data", ())) for of_cell in outputs]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_it_was_kept_with(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert path.stat().st_size < 400_000
    notebook = nbformat.read(path, as_version=4)
    kept = _pictures(notebook)
    assert sum(kept) >= 2
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("COLUMNS", "100")
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert _pictures(notebook) == kept


def test_there_is_one_for_each_of_the_first_steps() -> None:
    assert {path.stem for path in NOTEBOOKS} == {"predictor", "automatic_masks", "fine_tune", "onnx_and_int8"}
