"""The command line as a user meets it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from mobilesam_core import __version__


def run(*arguments: str, cwd: Path | None = None, timeout: float = 300, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mobilesam_cli", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=timeout,
        env={**os.environ, "COLUMNS": "120", **env},
    )


HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "cv2",
    "onnx",
    "onnxruntime",
    "numpy",
    "PIL",
    "yaml",
    "faster_coco_eval",
    "gradio",
)


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["demo"],
        ["train"],
        ["eval"],
        ["predict"],
        ["app"],
        ["data", "convert"],
        ["data", "check"],
        ["config", "init"],
        ["config", "convert"],
        ["doctor"],
    ],
)
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    program = (
        "import sys\n"
        "from mobilesam_cli.app import app\n"
        f"try: app({[*command, '--help']!r})\n"
        "except SystemExit as stop: code = stop.code\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "sys.exit(f'loaded {loaded}' if loaded else code)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "Usage:" in result.stdout
    if command:
        assert re.search(r"Examples", result.stdout) and f"mobilesam {command[0]} " in result.stdout


def test_importing_the_core_imports_nothing_heavy() -> None:
    program = f"import sys, mobilesam_core; sys.exit(any(name in sys.modules for name in {HEAVY!r}))"
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


def test_every_public_name_can_be_had() -> None:
    import mobilesam_core

    for name in mobilesam_core.__all__:
        assert getattr(mobilesam_core, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mobilesam_core.nothing  # noqa: B018


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "photo.png", "--point", "20,30", "--checkpoint", "nano"],
        ["amg", "photo.png", "--points-per-side", "2", "--checkpoint", "nano"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_masks_do_not_wait_for_what_takes_seconds_to_import(tmp_path: Path, arguments: list[str]) -> None:
    Image.new("RGB", (60, 40), "grey").save(tmp_path / "photo.png")
    program = (
        "import sys\n"
        "from mobilesam_cli.app import main\n"
        f"sys.argv = ['mobilesam', *{arguments!r}, '--out', 'masks', '--image-size', '64']\n"
        "try: main()\n"
        "except SystemExit as stop: code = stop.code\n"
        "loaded = [name for name in ('torchvision', 'timm', 'torch._dynamo') if name in sys.modules]\n"
        "sys.exit(f'loaded {loaded}' if loaded else code)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr


def test_version() -> None:
    assert run("--version").stdout == f"mobilesam {__version__}\n"


def test_wrong_use_exits_with_2() -> None:
    assert run("trian").returncode == 2
    assert run("train").returncode == 2


def test_a_config_error_is_a_sentence_and_debug_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("data: {train: {format: shapes, cuont: 3}}\n")
    plain = run("train", "bad.yaml", cwd=tmp_path)
    assert plain.returncode == 2 and plain.stdout == ""
    assert "data.train.cuont: unknown key; did you mean 'count'?" in plain.stderr
    assert "Traceback" not in plain.stderr
    debug = run("--debug", "train", "bad.yaml", cwd=tmp_path)
    assert debug.returncode != 0 and "Traceback" in debug.stderr


CONFIG = """
model: {name: vit_nano, checkpoint: null, image_size: 64}
data:
  train: {format: shapes, count: 64, size: 64, max_shapes: 3}
  max_objects: 2
optim: {batch_size: 2}
train: {epochs: 200, log_every: 1}
"""


@pytest.mark.parametrize(
    ("number", "whole_group"), [(signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGTERM, True)]
)
def test_a_signal_saves_and_the_run_can_go_on(tmp_path: Path, number: signal.Signals, whole_group: bool) -> None:
    """A terminal's Ctrl-C and some batch systems signal every process of the group, data workers included."""
    (tmp_path / "c.yaml").write_text(CONFIG)
    process = subprocess.Popen(
        [sys.executable, "-m", "mobilesam_cli", "train", "c.yaml"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    folder = tmp_path / "runs" / "mobilesam" / "run"
    try:
        deadline = time.monotonic() + 120
        while not (folder / "metrics.jsonl").exists() or not (folder / "metrics.jsonl").read_text():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        (os.killpg if whole_group else os.kill)(process.pid, number)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert "Traceback" not in said and "--resume" in said
    steps = int(re.search(r"interrupted at step (\d+)", said).group(1))  # type: ignore[union-attr]
    refused = run("train", "c.yaml", "--set", "train.epochs=1", "--resume", cwd=tmp_path)
    assert refused.returncode == 2 and "train.epochs: 200 → 1" in refused.stderr
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == steps
    assert (folder / "last.safetensors").exists() and (folder / "state.pt").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission_to_write(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG)
    (tmp_path / "locked").mkdir(mode=0o500)
    result = run("train", "c.yaml", "--set", "train.output_dir=locked", cwd=tmp_path)
    assert result.returncode == 1 and "No permission to write" in result.stderr


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG)
    (tmp_path / "file").write_text("")
    result = run("train", "c.yaml", "--set", "train.output_dir=file", cwd=tmp_path)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr and "file" in result.stderr


@pytest.mark.slow
def test_quickstart_runs_from_anywhere_and_learns(tmp_path: Path) -> None:
    import json

    result = run("train", "quickstart", "--json", cwd=tmp_path, timeout=900)
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    for figure in ("box_miou", "point_miou"):
        assert document["metrics"][figure] > document["before"][figure]
    best = tmp_path / document["best"]
    check = run("eval", str(best), "--config", "quickstart", "--max-images", "4", "--json", cwd=tmp_path)
    assert check.returncode == 0, check.stderr


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, "10000"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "None"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
    ],
)
def test_threads_wait_busily_for_a_moment_only(given: dict[str, str], found: str) -> None:
    program = "import atexit, os, sys; atexit.register(lambda: print(os.environ.get('GOMP_SPINCOUNT')))\n"
    program += "sys.argv = ['mobilesam', '--version']\nfrom mobilesam_cli.app import main\nmain()"
    plain = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=plain | given, check=True
    )
    assert ended.stdout.splitlines()[-1] == found


def test_garbage_goes_while_a_command_runs_and_not_as_it_ends() -> None:
    program = (
        "import atexit, gc, sys\n"
        "from mobilesam_cli.app import main\n"
        "class Loop:\n"
        "    def __init__(self, name): self.me, self.name = self, name\n"
        "    def __del__(self): print(self.name)\n"
        "atexit.register(print, 'the end')\n"
        "stays = Loop('visited at the end')\n"
        "sys.argv = ['mobilesam', '--version']\n"
        "try: main()\n"
        "except SystemExit: Loop('garbage'); gc.collect(); print('still here')\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[1:] == ["garbage", "still here", "the end"]
