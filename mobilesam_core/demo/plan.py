"""What the demo is asked, where it puts things, and the configs it writes."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from mobilesam_core.config.loading import load_train_config
from mobilesam_core.config.train import TrainConfig
from mobilesam_core.errors import UsageError
from mobilesam_core.files import make_folder, output_error, write_text
from mobilesam_core.training.run_folder import RunFolder

_DRAW = """\
# Images of thin tools that lie across one another: outlines and textures that the weights `nano` have never seen.
#
# Run:      mobilesam data convert --config {draw} --split val --to coco --out my_tools

data:
  train: {{format: shapes, domains: [tools], count: {images}, size: {side}}}
  val: {{format: shapes, domains: [tools], count: {measured}, size: {side}, seed: 1000}}
"""
_TRAIN = """\
# Teach the weights `nano` the tools that were drawn beside this file.
#
# Run:      mobilesam train {train}
# Then:     mobilesam report {run}

model: {{name: vit_nano, checkpoint: nano, image_size: {image_size}}}
data:
  root: {data}
  train: {{format: coco, images: train/images, annotations: train/annotations.json}}
  val: {{format: coco, images: val/images, annotations: val/annotations.json}}
  max_objects: 8
  augment: {{horizontal_flip: 0.5, vertical_flip: 0.5, transpose: 0.5}}
prompts: {{point_mode: mixed, box_noise: 0.05}}
loss: {{focal: 0.0, bce: 1.0, dice: 1.0, iou: 0.5}}
optim: {{lr: 1.0e-3, warmup_steps: 10, batch_size: 4}}
train:
  output_dir: {runs}
  project: tools
  run: first
  on_taken: number
  epochs: 2
  validation: {{every: 2, max_images: 4, overlays: 2}}   # mobilesam eval measures on all
"""
_SIDE = 256  # of a drawn image, in pixels
_SHARE = 16  # one image to measure on for so many to learn from


@dataclass(frozen=True)
class DemoOptions:
    """out: a new folder, or an empty one. images: drawn to learn from, in two epochs; a sixteenth as many are drawn
    to measure on. image_size: side of the model's input frame in pixels."""

    out: Path
    images: int
    image_size: int

    def __post_init__(self) -> None:
        if self.images < _SHARE:
            raise UsageError(f"{self.images} images are too few to learn from.", f"Draw {_SHARE} or more.")
        if self.image_size < 64 or self.image_size % 64:
            raise UsageError(f"An image size of {self.image_size} cannot be.", "It is a multiple of 64, at least 64.")

    @property
    def measured(self) -> int:
        """Images to measure on."""
        return self.images // _SHARE


@dataclass(frozen=True)
class DemoFolder:
    """Where the demo puts what."""

    path: Path

    @property
    def page(self) -> Path:
        return self.path / "index.html"

    @property
    def draw_config(self) -> Path:
        return self.path / "draw.yaml"

    @property
    def train_config(self) -> Path:
        return self.path / "train.yaml"

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def measured_images(self) -> Path:
        return self.data / "val" / "images"

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.path / "runs" / "tools" / "first")

    @property
    def prompts(self) -> Path:
        return self.path / "prompts.json"

    @property
    def onnx(self) -> Path:
        return self.path / "onnx"

    def evaluation(self, when: str) -> Path:
        return self.path / "eval" / when

    def predictions(self, of: str) -> Path:
        return self.path / "predict" / of

    @property
    def masks(self) -> Path:
        return self.path / "amg"

    def config(self) -> TrainConfig:
        """What :attr:`train_config` says."""
        return load_train_config(str(self.train_config))

    def write_configs(self, options: DemoOptions) -> None:
        """Write both configs.

        Raises:
            OutputError: one cannot be written.
        """
        draw = _DRAW.format(
            draw=shlex.quote(self.draw_config.as_posix()), images=options.images, measured=options.measured, side=_SIDE
        )
        train = _TRAIN.format(
            train=shlex.quote(self.train_config.as_posix()),
            run=shlex.quote(self.run.path.as_posix()),
            image_size=options.image_size,
            data=_quoted(self.data),
            runs=_quoted(self.path / "runs"),
        )
        write_text(self.draw_config, draw)
        write_text(self.train_config, train)


def _quoted(path: Path) -> str:
    """As YAML reads it, whatever the name."""
    return json.dumps(path.as_posix(), ensure_ascii=False)


def claim_folder(path: Path) -> DemoFolder:
    """The folder of a demo, created if need be.

    Raises:
        UsageError: it is a file, holds something, or has a name that no command could show.
        OutputError: it cannot be created or read.
    """
    if not str(path).isprintable():
        raise UsageError(f"The name {str(path)!r} cannot be printed.", "Choose another folder with --out.")
    try:
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file.", "Choose another folder with --out.")
        if path.exists() and any(path.iterdir()):
            raise UsageError(f"{path} holds something already.", "Choose another folder with --out, or remove it.")
    except OSError as error:
        raise output_error(path, error) from error
    return DemoFolder(make_folder(path))
