"""Training throughput: instances a second, ours against a plain loop over the reference model.

The plain loop encodes the image anew for every instance, as fine-tuning scripts for SAM commonly do; ours encodes
each image once and decodes all its instances together. Both train every parameter of `vit_t` at 1024² on the same
images, prompts and targets, with the same loss and optimizer, in alternating processes of one run.

    python benchmarks/train_throughput.py --data ../shared/data/nuclei --json throughput.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from mobilesam_core.config.data import DataConfig, FolderConfig
from mobilesam_core.config.loss import LossConfig
from mobilesam_core.config.model import ModelConfig
from mobilesam_core.config.prompts import PromptConfig
from mobilesam_core.data.batch import Batch
from mobilesam_core.data.build import build_source
from mobilesam_core.data.loader import build_loader
from mobilesam_core.data.training_set import TrainingSet
from mobilesam_core.data.verify import Subset
from mobilesam_core.losses.total import SegLoss
from mobilesam_core.models.registry import build_sam
from mobilesam_core.training.memory import peak_memory_mb
from mobilesam_core.training.step import TrainingStep

SIZE = 1024


def batches(root: Path, images: int, objects: int) -> list[Batch]:
    """The same batches for both sides: one image each, boxes, drawn with a fixed seed."""
    train = FolderConfig(format="folder", images=Path("train/images"), masks=Path("train/masks"), mask_mode="instances")
    data = DataConfig(root=root, train=train, max_objects=objects)
    source = Subset(build_source(train, root), range(images))
    training_set = TrainingSet(source, data, PromptConfig(point=0.0), SIZE, SIZE // 4, seed=0)
    return list(build_loader(training_set, batch_size=1, workers=0, seed=0, epoch=0))


def train_ours(data: list[Batch]) -> None:
    model = build_sam(ModelConfig(checkpoint=None)).train()
    step = TrainingStep(model, SegLoss(LossConfig()), PromptConfig())
    optimizer = torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)
    yield_to_timer()
    for batch in data:
        step(batch)["total"].backward()
        optimizer.step()
        optimizer.zero_grad()


def train_reference(data: list[Batch]) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mobile_sam import sam_model_registry

    model = sam_model_registry["vit_t"](checkpoint=None).train()
    loss = SegLoss(LossConfig())
    optimizer = torch.optim.AdamW(model.parameters())
    yield_to_timer()
    for batch in data:
        for i in range(len(batch.targets)):
            height, width = batch.sizes[0].tolist()
            image = model.preprocess(batch.images[0, :, :height, :width].float())
            embedding = model.image_encoder(image[None])
            box = batch.prompts.points[i].reshape(1, 4)
            sparse, dense = model.prompt_encoder(points=None, boxes=box, masks=None)
            logits, scores = model.mask_decoder.predict_masks(
                embedding, model.prompt_encoder.get_dense_pe(), sparse, dense
            )
            loss(logits, scores, batch.targets[i : i + 1]).total.backward()
            optimizer.step()
            optimizer.zero_grad()


_began = 0.0


def yield_to_timer() -> None:
    """Building the model is not training: the clock starts here."""
    global _began
    _began = time.perf_counter()


SIDES = {"ours": train_ours, "reference": train_reference}


def measure(side: str, options: argparse.Namespace) -> dict[str, Any]:
    """One epoch in this process."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    data = batches(options.data, options.images, options.objects)
    SIDES[side](data)
    seconds = time.perf_counter() - _began
    instances = sum(len(batch.targets) for batch in data)
    return {
        "instances": instances,
        "seconds": seconds,
        "instances_per_s": instances / seconds,
        "peak_memory_mb": peak_memory_mb(torch.device("cpu")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the nuclei set: train/images, train/masks")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--objects", type=int, default=16, help="instances of an image")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--only", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, options)))
        return
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(options.repeats):
        for side, results in runs.items():
            command = [sys.executable, *sys.argv, "--only", side]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results.append(json.loads(output.splitlines()[-1]))
            print(f"{side}: {results[-1]['instances_per_s']:.2f} instances/s", file=sys.stderr, flush=True)
    table = {
        side: {key: median(result[key] for result in results) for key in results[0]} for side, results in runs.items()
    }
    ratio = table["ours"]["instances_per_s"] / table["reference"]["instances_per_s"]
    for side, row in table.items():
        print(f"{side:>10}  {row['instances_per_s']:7.2f} instances/s  {row['peak_memory_mb']:7.0f} MiB peak")
    print(f"ours is {ratio:.1f}x as fast (medians of {options.repeats})")
    if options.json:
        options.json.write_text(json.dumps({"ratio": ratio, "median": table, "runs": runs}, indent=2))


if __name__ == "__main__":
    main()
