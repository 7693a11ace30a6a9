"""What tiles bring: small objects in a large image, made by joining the images of a set edge to edge.

Evaluates a checkpoint on it twice, looking at the whole image and in tiles: from boxes and centre points, and with
no prompt at all.

    python benchmarks/tiles.py nano --config examples/configs/nuclei_nano_cpu.yaml --set data.root=/data/nuclei
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np

from mobilesam_core.amg.workflow import build_generator
from mobilesam_core.checkpoints.loading import open_checkpoint
from mobilesam_core.config.amg import AmgConfig
from mobilesam_core.config.loading import load_train_config
from mobilesam_core.data.build import build_source
from mobilesam_core.data.sample import Sample, SampleSource
from mobilesam_core.evaluation.everything import evaluate_everything
from mobilesam_core.evaluation.scoring import EvalOptions, evaluate
from mobilesam_core.ops.masks import LabelMapMasks
from mobilesam_core.ops.tiles import Tiling
from mobilesam_core.runtime.torch_runtime import TorchRuntime


class Joined:
    """One sample: all images of ``source`` that have its most frequent size, in rows of ``columns``."""

    def __init__(self, source: SampleSource, columns: int) -> None:
        samples = [source[index] for index in range(len(source))]
        shape, _ = Counter(sample.masks.shape for sample in samples).most_common(1)[0]
        alike = [sample for sample in samples if sample.masks.shape == shape]
        alike = alike[: len(alike) // columns * columns]
        labels, count = [], 0
        for sample in alike:
            label_map = np.zeros(shape, np.int64)
            for number, mask in enumerate(sample.masks.dense(range(len(sample.masks))), count + 1):
                label_map[mask] = number
            labels.append(label_map)
            count += len(sample.masks)
        image, label_map = (_join(parts, columns) for parts in ([sample.image for sample in alike], labels))
        self._sample = Sample("joined", image, LabelMapMasks(label_map), "joined")

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        return self._sample

    def describe(self, index: int) -> str:
        return "joined"


def _join(parts: list[np.ndarray], columns: int) -> np.ndarray:
    rows = [np.concatenate(parts[start : start + columns], axis=1) for start in range(0, len(parts), columns)]
    return np.concatenate(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--config", required=True, help="Its data.val is joined.")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--columns", type=int, default=5)
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--overlap", type=int, default=64)
    parser.add_argument("--points", type=int, nargs=2, default=(96, 16), help="A side: of the whole image, of a tile.")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    data = load_train_config(args.config, args.overrides).data
    assert data.val is not None
    source = Joined(build_source(data.val, data.root), args.columns)
    sample, runtime = source[0], TorchRuntime(open_checkpoint(args.checkpoint).model)
    height, width = sample.masks.shape
    sides = np.sqrt(sample.masks.areas)
    print(f"{width} x {height} pixels, {len(sides)} objects of {np.quantile(sides, 0.05):.0f} to "
          f"{np.quantile(sides, 0.95):.0f} px, the model's input {runtime.image_size}²")  # fmt: skip
    print(f"{'':20} {'box':>6} {'point':>6} {'found@0.5':>10} {'found@0.7':>10} {'AR@1000':>8} {'masks':>6} {'s':>6}")
    rows = {}
    for name, tiling, points in (
        ("whole", None, args.points[0]),
        (f"tiles of {args.tile}", Tiling(args.tile, args.overlap), args.points[1]),
    ):
        asked = evaluate(runtime, source, EvalOptions(boundary=False, tiling=tiling))
        settings = AmgConfig(
            tile=None if tiling is None else tiling.tile,
            overlap=args.overlap,
            points_per_side=points,
            pred_iou_thresh=0.5,
            stability_score_thresh=0.5,
        )
        found = evaluate_everything(build_generator(runtime, settings), settings, source).summary
        rows[name] = {
            "box": asked.summary("box").miou,
            "point": asked.summary("point").miou,
            "found": found.found,
            "ar_1000": found.ar_1000,
            "masks": found.masks_per_image,
            "seconds": found.seconds_per_image,
        }
        print(
            f"{name:20} {rows[name]['box']:6.3f} {rows[name]['point']:6.3f} {found.found[0.5]:10.3f} "
            f"{found.found[0.7]:10.3f} {found.ar_1000:8.3f} {found.masks_per_image:6.0f} {found.seconds_per_image:6.0f}"
        )
    if args.json is not None:
        args.json.write_text(json.dumps({"arguments": vars(args), "rows": rows}, default=str, indent=2) + "\n")


if __name__ == "__main__":
    main()
