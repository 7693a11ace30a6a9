"""Latency and peak memory of the `vit_t` image encoder, ours against the reference, at 1024², one image.

Both hold the same random weights and see the same image; their runs alternate, so that a slow moment of the machine
hits both. Peak memory is that of a fresh process which builds one of the two and encodes twice.

    python benchmarks/encode.py --json encode.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from mobilesam_core.checkpoints.keys import to_ours
from mobilesam_core.config.model import ModelConfig
from mobilesam_core.models.registry import build_sam
from mobilesam_core.training.memory import peak_memory_mb

SIZE = 1024


def build_reference() -> nn.Module:
    with warnings.catch_warnings():
        # It takes over timm's names of its models, and warns of it.
        warnings.simplefilter("ignore")
        import mobile_sam
    return mobile_sam.sam_model_registry["vit_t"]().train().eval()


def build_ours() -> nn.Module:
    return build_sam(ModelConfig(checkpoint=None)).eval()


SIDES = {"reference": build_reference, "ours": build_ours}


@torch.inference_mode()
def encode(model: nn.Module, image: Tensor) -> tuple[Tensor, float]:
    """The embedding, and the seconds it took."""
    start = time.perf_counter()
    embedding = model.image_encoder(image)
    return embedding, time.perf_counter() - start


def peak_memory(side: str, threads: int) -> float:
    """MB of a process of its own."""
    command = [sys.executable, __file__, "--memory-of", side, "--threads", str(threads)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory-of", choices=list(SIDES), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    image = torch.randn(1, 3, SIZE, SIZE)
    if args.memory_of:
        model = SIDES[args.memory_of]()
        encode(model, image)
        encode(model, image)
        print(peak_memory_mb(torch.device("cpu")))
        return

    # First, while this process is small: on Linux a child's peak starts at the size of its parent.
    memory = {side: peak_memory(side, args.threads) for side in SIDES}
    models = {side: build() for side, build in SIDES.items()}
    models["ours"].load_state_dict(to_ours(models["reference"].state_dict()))
    first = {side: encode(model, image)[0] for side, model in models.items()}
    difference = (first["ours"] - first["reference"]).abs().max() / first["reference"].abs().max()
    seconds: dict[str, list[float]] = {side: [] for side in models}
    for _ in range(args.repeats):
        for side, model in models.items():
            seconds[side].append(encode(model, image)[1])
    medians = {side: median(times) for side, times in seconds.items()}
    # Pair by pair, each pair seconds apart: steadier on a busy machine than the ratio of the medians.
    ratio = median(r / o for r, o in zip(seconds["reference"], seconds["ours"], strict=True))
    print(f"{'':<10} {'median s':>9} {'peak MB':>9}")
    for side in SIDES:
        print(f"{side:<10} {medians[side]:>9.3f} {memory[side]:>9.0f}")
    print(f"ours is {ratio:.2f} times as fast; largest difference {difference:.1e} of the output's scale")
    if args.json:
        result = {
            "image_size": SIZE,
            "threads": args.threads,
            "repeats": args.repeats,
            "torch": torch.__version__,
            "median_seconds": medians,
            "speed_ratio": ratio,
            "peak_memory_mb": memory,
            "relative_difference": float(difference),
        }
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
