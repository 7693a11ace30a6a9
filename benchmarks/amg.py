"""Seconds an image of automatic mask generation, ours against `mobile_sam`, `vit_t` at 1024², a 32 x 32 grid.

Both hold the same random weights. Random masks are noise that fills the image, the worst there is for ours: the
mask threshold is raised until masks cover a twentieth of the image, on both sides alike. The IoU threshold lets 10 or
50 percent of the candidates through, the stability threshold half of those. Each run is a process of its own, so that
its peak memory is its own; sides alternate.

    python benchmarks/amg.py --photos ../shared/data/photos --json amg.json
    python benchmarks/amg.py --photos ../shared/data/photos --ours-only        # the stages, in a minute
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from mobilesam_core.amg import generator as ours
from mobilesam_core.amg.grid import Crop, point_grid
from mobilesam_core.checkpoints.loading import sam_model_registry
from mobilesam_core.prediction.encoded import encode_image
from mobilesam_core.training.memory import peak_memory_mb

SHARES = (0.1, 0.5)
POINTS = 32
VARIANTS = {
    "float32": ("32", "grid"),
    "bf16": ("bf16", "grid"),
    "coarse-to-fine": ("32", "coarse-to-fine"),
    "bf16 coarse-to-fine": ("bf16", "coarse-to-fine"),
}


def reference_package() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it takes over timm's names of its models, and warns of it
        import mobile_sam
    return mobile_sam


def write_weights(path: Path) -> None:
    """Random weights whose predicted IoUs are above zero, as the least threshold that filters is."""
    torch.manual_seed(0)
    model = reference_package().sam_model_registry["vit_t"]()
    state = model.state_dict()
    for name, value in state.items():
        if value.ndim > 1 and "embed" not in name:
            value.normal_(std=value[0].numel() ** -0.5)
    state["mask_decoder.iou_prediction_head.layers.2.bias"] += 2
    torch.save(state, path)


def calibrate(weights: Path, photo: Path) -> dict[str, Any]:
    """Thresholds for one photograph."""
    model = sam_model_registry["vit_t"](checkpoint=weights)
    image = load(photo)
    generator = ours.SamAutomaticMaskGenerator(model, POINTS, pred_iou_thresh=0.0, stability_score_thresh=0.0)
    with torch.no_grad():
        encoded = encode_image(model, image)
        search = ours._Search(generator, encoded, Crop((0, 0, *image.shape[1::-1]), 0), image.shape[:2])
        points = point_grid(POINTS)[:: POINTS + 5] * np.array(image.shape[1::-1])
        search.ask(points)
        logits = torch.cat([part.logits for part in search._parts])
        predicted_iou = torch.cat([part.predicted_iou for part in search._parts])
        threshold = float(logits.flatten()[::31].quantile(0.95))
        offset = 0.05 * float(logits.std())
        stability = search._upscaler.measure(logits, threshold, offset).stability
    return {
        "mask_threshold": threshold,
        "offset": offset,
        "stability": float(stability.nanmedian()),
        "pred_iou": {str(share): float(predicted_iou.quantile(1 - share)) for share in SHARES},
    }


def load(photo: Path) -> np.ndarray:
    return np.asarray(Image.open(photo).convert("RGB"))


def run_one(side: str, weights: Path, photo: Path, share: str, thresholds: dict[str, Any], masks: Path) -> None:
    """In a process of its own: time one image, and say what it took as JSON."""
    given = {
        "points_per_side": POINTS,
        "pred_iou_thresh": thresholds["pred_iou"][share],
        "stability_score_thresh": thresholds["stability"],
        "stability_score_offset": thresholds["offset"],
        "box_nms_thresh": 0.9,
        "output_mode": "coco_rle",
    }
    if side == "reference":
        model = reference_package().sam_model_registry["vit_t"](checkpoint=str(weights)).train().eval()
        model.mask_threshold = thresholds["mask_threshold"]
        generator = reference_package().SamAutomaticMaskGenerator(model, **given)
    else:
        precision, strategy = VARIANTS[side]
        model = sam_model_registry["vit_t"](checkpoint=weights)
        model.to(torch.bfloat16 if precision == "bf16" else torch.float32, memory_format=torch.channels_last)
        model.mask_threshold = thresholds["mask_threshold"]
        generator = ours.SamAutomaticMaskGenerator(model, **given, strategy=strategy)
        model.encode(torch.zeros(1, 3, 1024, 1024))  # kernels are chosen and compiled on first use
    image = load(photo)
    with staged(side) as stages:
        start = time.perf_counter()
        records = generator.generate(image)
        seconds = time.perf_counter() - start
    masks.write_text(json.dumps([record["segmentation"] for record in records]))
    result = {"seconds": seconds, "masks": len(records), "peak_mb": peak_memory_mb(torch.device("cpu"))}
    print(json.dumps({**result, "stages": dict(stages)}))


@contextmanager
def staged(side: str) -> Iterator[dict[str, float]]:
    """Seconds spent in each stage of ours."""
    seconds: dict[str, float] = defaultdict(float)
    if side == "reference":
        yield seconds
        return

    def timed(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[stage] += time.perf_counter() - start

        return call

    places: list[tuple[Any, str, str]] = [
        (ours, "encode_image", "encode"),
        (ours.SharedImageDecoder, "__call__", "decode"),
        (ours.SharedImageDecoder, "draw_masks", "draw masks"),
        (ours.MaskUpscaler, "measure", "upscale and measure"),
        (ours, "best_of_each", "suppress"),
        (ours.MaskUpscaler, "mask", "upscale the kept"),
        (ours, "encode_rle", "RLE"),
    ]
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    for owner, name, stage in places:
        setattr(owner, name, timed(stage, getattr(owner, name)))
    try:
        yield seconds
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


def fidelity(found: Path, expected: Path) -> dict[str, float]:
    """Mean best IoU of the one's masks among the other's, both ways."""
    from pycocotools import mask as coco_mask

    a, b = (json.loads(path.read_text()) for path in (found, expected))
    if not a or not b:
        return {"iou_of_theirs": 0.0, "iou_of_ours": 0.0}
    ious = coco_mask.iou(a, b, [0] * len(b))
    return {"iou_of_theirs": float(ious.max(axis=0).mean()), "iou_of_ours": float(ious.max(axis=1).mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--ours-only", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--run", nargs=6, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        side, weights, photo, share, thresholds, masks = args.run
        run_one(side, Path(weights), Path(photo), share, json.loads(thresholds), Path(masks))
        return
    photos = sorted(args.photos.glob("*.jpg"))[: args.count]
    sides = ["reference", *VARIANTS][args.ours_only :]
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "vit_t.pt"
        write_weights(weights)
        for photo in photos:
            thresholds = calibrate(weights, photo)
            for share in map(str, SHARES):
                paths = {side: Path(folder) / f"{side}.json" for side in sides}
                for side in sides:
                    given = [side, weights, photo, share, json.dumps(thresholds), paths[side]]
                    command = [sys.executable, __file__, "--photos", args.photos, "--run", *given]
                    ended = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True)
                    result = json.loads(ended.stdout.splitlines()[-1])
                    result |= {"side": side, "photo": photo.name, "share": share}
                    if side != sides[0]:
                        result |= fidelity(paths[side], paths[sides[0]])
                    runs.append(result)
                    print(json.dumps(result), flush=True)
    for share in map(str, SHARES):
        print(f"\nsurvival {share}: seconds, speed-up, masks, peak MB, worst fidelity both ways")
        per_side = {side: [r for r in runs if r["side"] == side and r["share"] == share] for side in sides}
        baseline = {r["photo"]: r["seconds"] for r in per_side[sides[0]]}
        for side, of_side in per_side.items():
            print(
                f"{side:22}{median(r['seconds'] for r in of_side):8.2f}"
                f"{median(baseline[r['photo']] / r['seconds'] for r in of_side):7.2f}x"
                f"{median(r['masks'] for r in of_side):7.0f}{max(r['peak_mb'] for r in of_side):8.0f}"
                f"{min(r.get('iou_of_theirs', 1.0) for r in of_side):8.4f}"
                f"{min(r.get('iou_of_ours', 1.0) for r in of_side):8.4f}"
            )
    if args.json:
        args.json.write_text(json.dumps(runs, indent=2) + "\n")


if __name__ == "__main__":
    main()
