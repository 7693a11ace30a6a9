"""How long the server of `mobilesam app` takes for a click: from the click to the picture of its mask.

Every click is one more prompt of the same object, positive and negative by turns, up to five; then it begins anew. The
image is encoded once, before. Time on the wire and in the browser is not in it. "processors" is the time of all threads
together, which other work on the machine changes little.

    python benchmarks/app_click.py --json app_click.json
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.random import default_rng

from mobilesam_core.app.pictures import layer
from mobilesam_core.app.session import Click, Session
from mobilesam_core.app.uploads import NamedImage, read_bounded
from mobilesam_core.checkpoints.loading import open_checkpoint
from mobilesam_core.config.model import ModelConfig
from mobilesam_core.models.registry import build_sam
from mobilesam_core.runtime.torch_runtime import TorchRuntime

_PROMPTS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="weights; without, vit_t with random ones, which take as long")
    parser.add_argument("--image", type=Path, help="without, noise of 1024 x 768")
    parser.add_argument("--clicks", type=int, default=50)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = (
        open_checkpoint(args.checkpoint).model if args.checkpoint else build_sam(ModelConfig(checkpoint=None)).eval()
    )
    session = Session(TorchRuntime(model.to(memory_format=torch.channels_last)))
    rng = default_rng(0)
    noise = NamedImage("noise.png", rng.integers(0, 256, (768, 1024, 3), np.uint8))
    image = read_bounded(args.image, args.image.name) if args.image else noise
    height, width = image.pixels.shape[:2]

    start = time.perf_counter()
    session.open(image)
    encoded = time.perf_counter() - start
    decode_ms, total_ms, processor_ms = [], [], []
    for number in range(args.clicks + _PROMPTS):
        if number % _PROMPTS == 0:
            session.clear()
        click = Click((float(rng.integers(width)), float(rng.integers(height))), number % 2 == 0)
        start, processor = time.perf_counter(), time.process_time()
        session.add(click)
        answered = time.perf_counter()
        layer(session)
        if number >= _PROMPTS:  # the first ones warm up
            decode_ms.append(1000 * (answered - start))
            total_ms.append(1000 * (time.perf_counter() - start))
            processor_ms.append(1000 * (time.process_time() - processor))

    result = {
        "model": session.runtime.model,
        "image_size": session.runtime.image_size,
        "image": [width, height],
        "threads": args.threads,
        "clicks": args.clicks,
        "encode_ms": round(1000 * encoded, 1),
        "decode_ms": _figures(decode_ms),
        "with_picture_ms": _figures(total_ms),
        "processor_ms": _figures(processor_ms),
    }
    print(f"{result['model']} at {result['image_size']}, {width} x {height} px, {args.threads} threads")
    print(f"{'':16}{'least':>9}{'median':>9}{'p95':>9}{'most':>9}  ms")
    shown = {"decode": "decode_ms", "with its picture": "with_picture_ms", "processors": "processor_ms"}
    for name, figures in ((name, result[key]) for name, key in shown.items()):
        print(f"{name:16}" + "".join(f"{value:9.1f}" for value in figures.values()))
    print(f"{'encode, once':16}{result['encode_ms']:9.1f}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _figures(milliseconds: list[float]) -> dict[str, float]:
    return {
        "least": round(min(milliseconds), 1),
        "median": round(median(milliseconds), 1),
        "p95": round(float(np.percentile(milliseconds, 95)), 1),
        "most": round(max(milliseconds), 1),
    }


if __name__ == "__main__":
    main()
