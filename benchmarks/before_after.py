"""A picture of what fine-tuning changed: rows of images, with the masks of one checkpoint, of another, and the truth.

Each object is asked for by one point at its centre, marked in the first column.

    python benchmarks/before_after.py nano runs/nuclei/nano/best.safetensors \
        --config examples/configs/nuclei_nano_cpu.yaml --image-size 768 --images 4 11 20 --out docs/images/nuclei.png
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from mobilesam_core.checkpoints.loading import open_checkpoint
from mobilesam_core.config.loading import load_train_config
from mobilesam_core.data.build import build_source
from mobilesam_core.data.sample import Sample
from mobilesam_core.ops.drawing import (
    distinct_color,
    draw_points,
    fill_mask,
    line_width,
    new_canvas,
    outline_mask,
    write_png,
)
from mobilesam_core.prediction.requests import ObjectRequest
from mobilesam_core.prediction.segment import segment
from mobilesam_core.prompts.sampling import center_point
from mobilesam_core.runtime.torch_runtime import TorchRuntime

HEIGHT, GAP = 256, 8


def picture(image: np.ndarray, masks: Iterable[np.ndarray]) -> np.ndarray:
    canvas = new_canvas(image)
    for number, mask in enumerate(masks):
        color = distinct_color(number)
        fill_mask(canvas, mask, color)
        outline_mask(canvas, mask, color, line_width(canvas))
    return canvas


def row(sample: Sample, checkpoints: list[str], image_size: int | None) -> np.ndarray:
    truth = sample.masks.dense(range(len(sample.masks)))
    centers = [center_point(mask) for mask in truth]
    asked = new_canvas(sample.image)
    draw_points(asked, np.array(centers), np.ones(len(centers)), radius=1 + line_width(asked))
    panels = [asked]
    for checkpoint in checkpoints:
        runtime = TorchRuntime(open_checkpoint(checkpoint, image_size=image_size).model)
        objects = [ObjectRequest(points=((float(x), float(y)),), labels=(1,)) for x, y in centers]
        panels.append(picture(sample.image, [found.mask for found in segment(runtime, sample.image, objects)]))
    panels.append(picture(sample.image, truth))
    width = round(sample.image.shape[1] * HEIGHT / sample.image.shape[0])
    scaled = [cv2.resize(panel, (width, HEIGHT), interpolation=cv2.INTER_AREA) for panel in panels]
    gap = np.full((HEIGHT, GAP, 3), 255, np.uint8)
    return np.hstack([part for panel in scaled for part in (panel, gap)][:-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs=2, metavar="CHECKPOINT")
    parser.add_argument("--config", required=True)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--images", type=int, nargs="+", default=[0], help="indices into the validation set")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    data = load_train_config(args.config, args.overrides).data
    assert data.val is not None, "the config has no data.val"
    source = build_source(data.val, data.root)
    rows = [row(source[index], args.checkpoints, args.image_size) for index in args.images]
    width = max(each.shape[1] for each in rows)
    padded = [np.pad(each, ((0, GAP), (0, width - each.shape[1]), (0, 0)), constant_values=255) for each in rows]
    write_png(args.out, np.vstack(padded)[:-GAP])


if __name__ == "__main__":
    main()
