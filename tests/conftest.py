"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

# As the command line does for itself, before torch reads it: on shared cores, threads that wait busily keep others
# waiting.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch

REPOSITORY = Path(__file__).parent.parent


def pytest_configure() -> None:
    # One of several processes of tests has a core; alone, two threads serve the small tensors of tests best.
    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, os.cpu_count() or 1))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real sample data; tests that need it are skipped where it is absent."""
    root = Path(os.environ.get("MOBILESAM_TEST_DATA", REPOSITORY / "../shared/data")).resolve()
    if not root.is_dir() and os.environ.get("MOBILESAM_REQUIRE_TEST_DATA"):
        pytest.fail(f"sample data not found at {root}")
    if not root.is_dir():
        pytest.skip(f"sample data not found at {root}; set MOBILESAM_TEST_DATA")
    return root


@pytest.fixture
def foreground() -> Iterator[None]:
    """Ctrl-C interrupts: a shell's background job starts with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def interrupted_as(foreground: None) -> Callable[[Exception], NoReturn]:
    """Has Ctrl-C come, and raises another error in its place, as native code may that is calling Python."""

    def interrupt(error: Exception) -> NoReturn:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise error from None
        raise AssertionError("the signal did not come")

    return interrupt


@pytest.fixture(scope="session")
def exported_nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``nano`` at 128²: ``nano_encoder.onnx`` and ``nano_decoder_batched.onnx``. Of all tests: not to be
    written to."""
    from mobilesam_core.checkpoints.loading import open_checkpoint
    from mobilesam_core.export.workflow import ExportOptions, export_onnx

    folder = tmp_path_factory.mktemp("exported_nano")
    export_onnx(open_checkpoint("nano", image_size=128), ExportOptions(folder, style="batched"))
    return folder
