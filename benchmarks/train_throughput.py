"""Training throughput: instances a second, ours against a plain loop over the reference model.

The plain loop encodes the image anew for every instance, as fine-tuning scripts for SAM commonly do; ours encodes
each image once and decodes all its instances together. Both train every parameter of `vit_t` at 1024² on the same
images, prompts and targets, with the same loss and optimizer, in alternating processes of one run.

With `--frozen` the decoder alone learns, and a third side is ours as it is from the second epoch on: every step reads
the embedding of its image from the store. Then the reference's encoder runs without gradients.

    python benchmarks/train_throughput.py --data ../shared/data/nuclei --json throughput.json
    python benchmarks/train_throughput.py --data ../shared/data/nuclei --frozen --objects 1 --images 8
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch

from mobilesam_core.config.data import DataConfig, FolderConfig
from mobilesam_core.config.loss import LossConfig
from mobilesam_core.config.model import ModelConfig
from mobilesam_core.config.optim import OptimConfig
from mobilesam_core.config.prompts import PromptConfig
from mobilesam_core.data.batch import Batch
from mobilesam_core.data.build import build_source
from mobilesam_core.data.loader import build_loader
from mobilesam_core.data.subset import Subset
from mobilesam_core.data.training_set import TrainingSet
from mobilesam_core.losses.total import SegLoss
from mobilesam_core.machine import keep_memory
from mobilesam_core.models.registry import build_sam
from mobilesam_core.models.sam import Sam
from mobilesam_core.ops.layout import NECK
from mobilesam_core.stores.features import FeatureStore, FeatureWriter
from mobilesam_core.stores.producer import Producer
from mobilesam_core.training.memory import peak_memory_mb
from mobilesam_core.training.optimizer import build_optimizer, freeze_parts, set_train_mode
from mobilesam_core.training.step import TrainingStep

SIZE = 1024


def batches(root: Path, images: int, objects: int) -> list[Batch]:
    """The same batches for both sides: one image each, boxes, drawn with a fixed seed."""
    train = FolderConfig(format="folder", images=Path("train/images"), masks=Path("train/masks"), mask_mode="instances")
    data = DataConfig(root=root, train=train, max_objects=objects)
    source = Subset(build_source(train, root), range(images))
    training_set = TrainingSet(source, data, PromptConfig(point=0.0), SIZE, SIZE // 4, seed=0)
    return list(build_loader(training_set, batch_size=1, workers=0, seed=0, epoch=0))


def train_ours(data: list[Batch], frozen: bool) -> None:
    _, step, optimizer = ours(frozen)
    for batch in timed(data):
        step(batch)["total"].backward()
        optimizer.step()
        optimizer.zero_grad()


def train_cached(data: list[Batch], frozen: bool) -> None:
    model, step, optimizer = ours(frozen)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        with FeatureWriter(Path(folder), Producer.of(model)) as writer:
            for number, batch in enumerate(data):
                embedding = model.encode(model.preprocess(batch.images, batch.sizes))[0].half().numpy()
                writer.add(str(number), str(number), (SIZE, SIZE), {NECK: (embedding, "CHW")})
        store = FeatureStore(Path(folder))
        with torch.enable_grad():
            for number, batch in enumerate(timed(data)):
                embeddings = torch.from_numpy(store.read(str(number)))[None]
                step(batch._replace(embeddings=embeddings))["total"].backward()
                optimizer.step()
                optimizer.zero_grad()


def ours(frozen: bool) -> tuple[Sam, TrainingStep, torch.optim.Optimizer]:
    model = build_sam(ModelConfig(checkpoint=None))
    parts = {"image_encoder"} if frozen else set()
    freeze_parts(model, parts)
    set_train_mode(model, parts, batch_norm_frozen=False)
    step = TrainingStep(model, SegLoss(LossConfig()), PromptConfig())
    return model, step, build_optimizer(model, OptimConfig(lr=1e-3), fused=True)


def train_reference(data: list[Batch], frozen: bool) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mobile_sam import sam_model_registry

    model = sam_model_registry["vit_t"](checkpoint=None).train()
    loss = SegLoss(LossConfig())
    if frozen:
        model.image_encoder.requires_grad_(False).eval()
    optimizer = torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)
    for batch in timed(data):
        for i in range(len(batch.targets)):
            height, width = batch.sizes[0].tolist()
            image = model.preprocess(batch.images[0, :, :height, :width].float())
            with torch.set_grad_enabled(not frozen):
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


def timed(data: list[Batch]) -> Iterator[Batch]:
    """The batches; the clock starts after the first, when memory has been had once and caches are warm."""
    global _began
    for number, batch in enumerate(data):
        if number == 1:
            _began = time.perf_counter()
        yield batch


SIDES = {"ours": train_ours, "reference": train_reference, "cached": train_cached}


def measure(side: str, options: argparse.Namespace) -> dict[str, Any]:
    """One epoch in this process."""
    torch.set_num_threads(options.threads)
    if side != "reference":
        keep_memory()  # as the command line does
    torch.manual_seed(0)
    data = batches(options.data, options.images + 1, options.objects)
    SIDES[side](data, options.frozen)
    seconds = time.perf_counter() - _began
    instances = sum(len(batch.targets) for batch in data[1:])
    return {
        "instances": instances,
        "seconds": seconds,
        "instances_per_s": instances / seconds,
        "peak_memory_mb": peak_memory_mb(torch.device("cpu")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the nuclei set: train/images, train/masks")
    parser.add_argument("--images", type=int, default=2, help="beside one that comes first and does not count")
    parser.add_argument("--objects", type=int, default=16, help="instances of an image")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frozen", action="store_true", help="the decoder alone learns")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--only", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, options)))
        return
    sides = ("cached", "ours", "reference") if options.frozen else ("ours", "reference")
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for _ in range(options.repeats):
        for side, results in runs.items():
            command = [sys.executable, *sys.argv, "--only", side]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results.append(json.loads(output.splitlines()[-1]))
            print(f"{side}: {results[-1]['instances_per_s']:.2f} instances/s", file=sys.stderr, flush=True)
    table = {
        side: {key: median(result[key] for result in results) for key in results[0]} for side, results in runs.items()
    }
    first, *others = sides
    ratios = {each: table[first]["instances_per_s"] / table[each]["instances_per_s"] for each in others}
    for side, row in table.items():
        print(f"{side:>10}  {row['instances_per_s']:7.2f} instances/s  {row['peak_memory_mb']:7.0f} MiB peak")
    for each, ratio in ratios.items():
        print(f"{first} is {ratio:.1f}x as fast as {each} (medians of {options.repeats})")
    if options.json:
        options.json.write_text(json.dumps({"ratios": ratios, "median": table, "runs": runs}, indent=2))


if __name__ == "__main__":
    main()
