"""Memory of `mobilesam amg` over many images: it must not grow with their number.

Draws the images, finds what is in them with `nano` and a sparse grid, and reads this process's resident memory after
each. The slope is fitted to the later three quarters, when caches are warm.

    python benchmarks/amg_memory.py --json amg_memory.json
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mobilesam_core.amg.workflow import AmgOptions, generate_masks
from mobilesam_core.checkpoints.loading import open_checkpoint
from mobilesam_core.config.amg import AmgConfig
from mobilesam_core.config.data import ShapesConfig
from mobilesam_core.data.shapes import ShapesSource
from mobilesam_core.jobs.inputs import ImageFile
from mobilesam_core.ops.drawing import write_png
from mobilesam_core.progress import NullReporter, ProgressTask
from mobilesam_core.runtime.torch_runtime import TorchRuntime


class MemoryWatch(NullReporter):
    """Notes the resident memory, in MiB, whenever an image is done."""

    def __init__(self) -> None:
        self.resident: list[float] = []

    @contextmanager
    def task(self, description: str, total: int | None, unit: str = "", start: int = 0) -> Iterator[ProgressTask]:
        yield self

    def advance(self, steps: int = 1, **fields: str) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.resident.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--points-per-side", type=int, default=8)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    watch = MemoryWatch()
    with tempfile.TemporaryDirectory() as folder:
        images = []
        drawn = ShapesSource(ShapesConfig(format="shapes", count=args.count, size=args.size, seed=77))
        for index in range(args.count):
            path = Path(folder) / f"{index:04d}.png"
            write_png(path, drawn[index].image)
            images.append(ImageFile(path, path.stem))
        # Thresholds that nano's masks pass: without any there would be nothing to keep.
        settings = AmgConfig(points_per_side=args.points_per_side, pred_iou_thresh=0.7, stability_score_thresh=0.8)
        options = AmgOptions(Path(folder) / "masks")
        result = generate_masks(images, TorchRuntime(open_checkpoint("nano").model), settings, options, watch)
    later = np.array(watch.resident[args.count // 4 :])
    slope = float(np.polyfit(np.arange(len(later)), later, 1)[0]) * 100
    summary = {
        "images": result.images,
        "masks": result.masks,
        "seconds": round(result.seconds, 1),
        "mib_after_first": round(watch.resident[0]),
        "mib_highest": round(max(watch.resident)),
        "mib_per_100_images": round(slope, 2),
        "resident_mib": [round(each, 1) for each in watch.resident],
    }
    print(", ".join(f"{name} {value}" for name, value in summary.items() if name != "resident_mib"))
    if args.json:
        args.json.write_text(json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
