"""Every shell command of the README and of the example configs, run as it stands there.

What they need lies where they look for it, drawn; ``/data`` is a folder of the test's. Work is made less by documented
options that are added, below, and nothing else. Start weights that cannot be had here are replaced by ``nano``.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from mobilesam_core.checkpoints.keys import to_official
from mobilesam_core.checkpoints.loading import embedded_weights
from mobilesam_core.config.data import ShapesConfig
from mobilesam_core.config.loading import load_train_config
from mobilesam_core.config.model import ModelConfig
from mobilesam_core.data.convert import convert
from mobilesam_core.data.shapes import ShapesSource
from mobilesam_core.models.registry import build_sam

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
CONFIGS = sorted((REPOSITORY / "examples/configs").glob("*.yaml"))
SMALL = "--set model.image_size=64 --set data.max_objects=2 --set train.validation.everything=1"
LESS = {
    "demo": "--images 16 --image-size 64",
    "train": f"{SMALL} --set train.epochs=1",
    "data preview": "--count 2",
    "amg": "--points-per-side 4 --image-size 128",
    "app": "--image-size 128",
    "embed": "--image-size 128",
    "predict": "--image-size 128",
    "eval": "--image-size 64",
    "distill extract": "--image-size 64",
    "export onnx": "--image-size 64",
    "export verify": "--image-size 64",
    "quantize": "--max-drop 100",
}
"""Command to options that make it quick; one that the command has already stays."""
OWN_SIZE = ("examples/configs/distill", "examples/configs/nuclei_nano_cpu", "examples/configs/pretrain_shapes")
"""Teachers and students see images at one size, and what is drawn must be seen."""


def commands_of(block: str) -> list[str]:
    """The lines of a shell block, continued ones joined, without comments."""
    lines = block.replace("\\\n", " ").splitlines()
    return [line for line in (re.sub(r"\s+#.*$", "", each).strip() for each in lines) if line and line[0] != "#"]


def shortened(line: str) -> str:
    """A line with the options of ``LESS``, which go to the command they are for."""
    return " ".join(part if part in ("&&", "|") else _shortened(part) for part in re.split(r" (&&|\|) ", line))


def _shortened(command: str) -> str:
    if not command.startswith("mobilesam "):
        return command
    words = shlex.split(command, posix=False)
    name = next((name for name in (" ".join(words[1:3]), words[1]) if name in LESS), None)
    if name is None:
        return command
    added = shlex.split(LESS[name])
    for at in range(0, len(added), 2):
        option, value = added[at : at + 2]
        given = option in words if option != "--set" else value.split("=")[0] in command
        exported = option == "--image-size" and "--onnx-encoder" in words
        fixed = value.startswith("model.image_size") and any(name in command for name in OWN_SIZE)
        if not (given or exported or fixed):
            command += f" {option} {value}"
    return command


class Sandbox:
    """A working directory that commands are run in, and the ``/data`` that they name."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, folder / "data"
        (folder / "examples").symlink_to(REPOSITORY / "examples")

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        line = shortened(line.replace("/data/", f"{self.data}/"))
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "MOBILESAM_CACHE": str(self.folder / "cache"),
            "MOBILESAM_WEIGHTS_URL": "http://127.0.0.1:9",  # nobody there: no weights but nano
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
            "SLURM_ARRAY_TASK_ID": "3",
        }
        return subprocess.run(
            ["bash", "-c", f"set -o pipefail; {line}"],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )


def draw(folder: Path, to: str, count: int, seed: int = 0) -> None:
    shapes = ShapesConfig(format="shapes", domains=("heap",), count=count, size=96, max_shapes=4, seed=seed)
    convert(shapes, Path(), to, folder)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn sets in the layouts that configs name."""
    root = tmp_path_factory.mktemp("sets")
    for name in ("nuclei", "leaf", "pothole", "mine"):
        draw(root / name / "train", "instances", 4)
        draw(root / name / "val", "instances", 2, seed=1)
    draw(root / "few", "instances", 2)
    draw(root / "coco_train", "coco", 4)
    shutil.copytree(root / "coco_train/images", root / "coco/images")
    for split in ("train", "val"):
        shutil.copy(root / "coco_train/annotations.json", root / f"coco/{split}.json")
    return root


@pytest.fixture
def sandbox(sets: Path, tmp_path: Path) -> Sandbox:
    box = Sandbox(tmp_path)
    box.data.symlink_to(sets)
    return box


def _header(path: Path) -> list[str]:
    """The commands after Run: and Then:."""
    return re.findall(r"^# (?:Run|Then): +(mobilesam .*)$", path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_commands_in_the_header_of_an_example(path: Path, sandbox: Sandbox) -> None:
    teacher = sandbox.folder / "runs/nuclei/nano/best.safetensors"
    if path.stem.startswith("distill"):
        teacher.parent.mkdir(parents=True)
        shutil.copy(embedded_weights(), teacher)
    Image.new("RGB", (400, 300), "grey").save(sandbox.folder / "photo.jpg")
    commands = _header(path)
    assert len(commands) == 2
    for command in commands:
        line = command.replace("eval official ", "eval nano ")
        if line.startswith("mobilesam train") and load_train_config(str(path)).model.checkpoint == "official":
            line += " --set model.name=vit_nano --set model.checkpoint=nano"
        if path.stem == "pretrain_shapes" and line.startswith("mobilesam train"):
            line += " --set data.train.count=16 --set data.val.count=2"
        ended = sandbox.run(line)
        assert ended.returncode == 0, f"{line}\n{ended.stderr[-2000:]}"


def _of_readme() -> Iterator[str]:
    for block in re.findall(r"```sh\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL):
        yield from commands_of(block)


def test_the_commands_of_the_readme_one_after_the_other(sandbox: Sandbox) -> None:
    folder = sandbox.folder
    drawn = [ShapesSource(ShapesConfig(format="shapes", count=2, size=96))[number].image for number in range(2)]
    big = Image.fromarray(drawn[0]).resize((600, 500))
    for name in ("photos/a.jpg", "photos/b.jpg", "plates/one/well.tif", "scans/1.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        big.save(folder / name)
    big.save(folder / "photo.jpg")
    prompts = {"images": [{"image": "photo.jpg", "objects": [{"points": [[20, 30]], "labels": [1]}]}]}
    (folder / "prompts.json").write_text(json.dumps(prompts))
    shutil.copy(embedded_weights(), folder / "best.safetensors")
    torch.manual_seed(0)
    torch.save(to_official(build_sam(ModelConfig(name="vit_b")).state_dict()), folder / "sam_vit_b_01ec64.pth")
    failed = []
    for line in _of_readme():
        line = line.replace("pip install . && ", "").replace("pip install '.[app]' && ", "")
        if line.startswith("pip install"):
            continue
        if line.startswith("mobilesam app"):
            line = f"timeout --signal INT --kill-after 30 25 {line} --image-size 128; test $? = 124"
        ended = sandbox.run(line)
        if ended.returncode:
            failed.append(f"{line}\n{ended.stderr[-2000:]}")
    assert not failed, "\n".join(failed)
