"""Milliseconds of one core to draw an image, against reading the same image and its id mask from PNG files.

Training on drawn images must not wait for them: the last column is how many images a second 16 cores would bring to a
step, with prompts and targets made and views magnified as `examples/configs/pretrain_shapes.yaml` has it.

    python benchmarks/draw_shapes.py --json draw_shapes.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import get_args

import cv2
import torch
from PIL import Image

from mobilesam_core.config.data import AugmentConfig, DataConfig, FolderConfig, ShapesConfig, ShapesDomain
from mobilesam_core.config.prompts import PromptConfig
from mobilesam_core.data.build import build_source
from mobilesam_core.data.sample import SampleSource
from mobilesam_core.data.training_set import TrainingSet

SIZE = 256


def write_png(source: SampleSource, folder: Path) -> SampleSource:
    """The same images as files."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for index in range(len(source)):
        sample = source[index]
        Image.fromarray(sample.image).save(folder / "images" / f"{index:06d}.png")
        labels = sample.masks.dense(range(len(sample.masks))).argmax(axis=0) + 1
        labels *= sample.masks.dense(range(len(sample.masks))).any(axis=0)
        Image.fromarray(labels.astype("uint16")).save(folder / "masks" / f"{index:06d}.png")
    config = FolderConfig(format="folder", images=Path("images"), masks=Path("masks"), mask_mode="instances")
    return build_source(config, folder)


def milliseconds(act: Callable[[int], object], index: int) -> float:
    start = time.perf_counter()
    act(index)
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100, help="of each domain")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    results = {}
    print(f"{'domain':<10} {'draw ms':>8} {'read ms':>8} {'ratio':>6} {'sample ms':>10} {'16 cores: images/s':>20}")
    for domain in get_args(ShapesDomain):
        config = ShapesConfig(format="shapes", domains=(domain,), count=args.images, size=SIZE, seed=1)
        drawn = build_source(config, Path())
        data = DataConfig(train=config, max_objects=12, min_object_area=32, augment=AugmentConfig(scale=(0.8, 2.0)))
        samples = TrainingSet(drawn, data, PromptConfig(), SIZE, SIZE // 4, seed=0)
        with tempfile.TemporaryDirectory() as folder:
            read = write_png(drawn, Path(folder))
            times: dict[str, list[float]] = {"draw": [], "read": [], "sample": []}
            for index in range(args.images):
                times["draw"].append(milliseconds(drawn.__getitem__, index))
                times["read"].append(milliseconds(read.__getitem__, index))
                times["sample"].append(milliseconds(samples.__getitem__, index))
        medians = {name: median(values) for name, values in times.items()}
        ratio = median(r / d for r, d in zip(times["read"], times["draw"], strict=True))
        results[domain] = {**medians, "read_over_draw": ratio}
        rate = 16_000 / medians["sample"]
        print(
            f"{domain:<10} {medians['draw']:>8.2f} {medians['read']:>8.2f} {ratio:>6.2f} "
            f"{medians['sample']:>10.2f} {rate:>20.0f}"
        )
    if args.json:
        args.json.write_text(json.dumps({"size": SIZE, "median_ms": results}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
