"""Does the feature store get in the way? Reading it against what a training step needs; writing it against encoding.

Reading: batches from the loader (images, prompts and the teacher's stored embeddings, one worker) against the step that
learns from them, encoder-only, of `vit_nano` at 512². Writing: `distill extract` of the same images against a loop that
encodes them and keeps nothing. The two sides alternate in one run; figures are medians.

    python benchmarks/distill_store.py --images ../shared/data/nuclei/train/images --json distill_store.json
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from mobilesam_core.checkpoints.loading import load_model
from mobilesam_core.config.data import DataConfig, ImagesConfig
from mobilesam_core.config.distill import DistillConfig
from mobilesam_core.config.loss import LossConfig
from mobilesam_core.config.model import ModelConfig
from mobilesam_core.config.prompts import PromptConfig
from mobilesam_core.data.build import build_source
from mobilesam_core.data.loader import build_loader
from mobilesam_core.data.reading import read_image
from mobilesam_core.data.subset import Subset
from mobilesam_core.data.training_set import TrainingSet
from mobilesam_core.distillation.stored import TeacherFeatures, TeacherStore
from mobilesam_core.distillation.teacher import LevelExtractor, Teacher, open_teacher
from mobilesam_core.embedding.workflow import store_features
from mobilesam_core.jobs.inputs import ImageFile
from mobilesam_core.losses.total import SegLoss
from mobilesam_core.progress import NullReporter
from mobilesam_core.runtime.torch_runtime import TorchRuntime
from mobilesam_core.stores.features import FeatureStore
from mobilesam_core.training.distilling import DistillingStep

BATCH = 4


def extract_seconds(images: list[ImageFile], teacher: TorchRuntime, folder: Path) -> float:
    """Into a store that is not there yet."""
    shutil.rmtree(folder, ignore_errors=True)
    began = time.perf_counter()
    store_features(images, LevelExtractor(teacher, ["neck"]), folder)
    return time.perf_counter() - began


def encode_seconds(images: list[ImageFile], teacher: TorchRuntime) -> float:
    """The same images through the same encoder, and nothing kept."""
    began = time.perf_counter()
    for image in images:
        with teacher.running():
            teacher.encode(read_image(image.path))
    return time.perf_counter() - began


def training_set(folder: Path, count: int, teacher: Teacher, store: Path) -> TrainingSet:
    config = ImagesConfig(format="images", images=Path())
    source = Subset(build_source(config, folder), range(count))
    names = [source.describe(i) for i in range(count)]
    features = TeacherFeatures([TeacherStore(teacher, FeatureStore(store), ["neck"])], names, NullReporter())
    data = DataConfig(train=config, max_objects=1)
    return TrainingSet(source, data, PromptConfig(), 512, 128, 0, features)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="a folder")
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    source = build_source(ImagesConfig(format="images", images=Path()), args.images)
    images = [ImageFile(Path(source.describe(i)), str(i)) for i in range(min(args.count, len(source)))]
    runtime = open_teacher("nano", NullReporter(), device=torch.device("cpu"))
    with tempfile.TemporaryDirectory() as temporary:
        store = Path(temporary) / "store"
        writing: dict[str, list[float]] = {"extract": [], "encode": []}
        encode_seconds(images[:4], runtime)
        for _ in range(args.repeats):
            writing["extract"].append(extract_seconds(images, runtime, store))
            writing["encode"].append(encode_seconds(images, runtime))
        overhead = median(e / p for e, p in zip(writing["extract"], writing["encode"], strict=True)) - 1

        teachers = [{"checkpoint": "nano", "features": [{}], "store": store}]
        config = DistillConfig(teachers=teachers, ground_truth=0.0)  # type: ignore[arg-type]
        teacher = Teacher(config.teachers[0], runtime.torch_model, runtime.sha256)
        loader = build_loader(training_set(args.images, len(images), teacher, store), BATCH, workers=1, seed=0)
        student = load_model(ModelConfig(name="vit_nano", checkpoint=None)).train()
        step = DistillingStep(student, SegLoss(LossConfig()), config, [teacher])
        batches = list(loader)
        reading: dict[str, list[float]] = {"loader": [], "step": []}
        for epoch in range(1, args.repeats + 1):
            loader.set_epoch(epoch)
            began = time.perf_counter()
            count = sum(len(batch.sources) for batch in loader)
            reading["loader"].append(count / (time.perf_counter() - began))
            began = time.perf_counter()
            for batch in batches[:4]:
                step(batch)["total"].backward()
            reading["step"].append(4 * BATCH / (time.perf_counter() - began))
        loader.close()
        size = sum(file.stat().st_size for file in store.iterdir())
    ratio = median(a / b for a, b in zip(reading["loader"], reading["step"], strict=True))
    print(f"{len(images)} images, {size / 2**20:.1f} MiB stored")
    print(f"reading: loader {median(reading['loader']):.0f} images/s, step {median(reading['step']):.1f}: {ratio:.1f}x")
    extract, encode = (median(writing[side]) for side in ("extract", "encode"))
    print(f"writing: {extract:.2f} s, encoding alone {encode:.2f} s: {overhead:+.1%}")
    if args.json:
        result = {
            "images": len(images),
            "threads": args.threads,
            "torch": torch.__version__,
            "images_per_s": {side: median(rates) for side, rates in reading.items()},
            "loader_over_step": ratio,
            "seconds": {side: median(times) for side, times in writing.items()},
            "extraction_overhead": overhead,
            "store_bytes": size,
        }
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
