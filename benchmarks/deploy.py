"""What an image costs to encode, by what runs the encoder (torch, ONNX Runtime, and OpenVINO where it is installed), in
float32 and in smaller numbers.

    python benchmarks/deploy.py                                  # vit_t at 1024², random weights
    python benchmarks/deploy.py --checkpoint best.safetensors --json deploy.json

All variants take turns in one process, with the same number of threads; medians, relative to ONNX Runtime in float32.
Likeness is the cosine to torch's float32 embedding, the least of the images. What quantising costs in mIoU,
`mobilesam quantize` says.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch

from mobilesam_core.checkpoints.loading import OpenedCheckpoint, open_checkpoint, sam_model_registry
from mobilesam_core.data.reading import list_images, read_image
from mobilesam_core.export.dynamic import to_dynamic
from mobilesam_core.export.metadata import describe
from mobilesam_core.export.rewriting import prepared
from mobilesam_core.export.workflow import ExportOptions, drawn_image, export_onnx
from mobilesam_core.models.sam import Sam
from mobilesam_core.ops.metrics import cosine
from mobilesam_core.quantization.graphs import calibrate, static
from mobilesam_core.quantization.workflow import QuantizeOptions
from mobilesam_core.runtime.exported import ExportedModel
from mobilesam_core.runtime.facts import ModelFacts
from mobilesam_core.runtime.onnx_session import OnnxModel
from mobilesam_core.runtime.preprocess import encoder_input

_REST = 0.2  # seconds, after which threads of the runtime before no longer wait busily for work

Encode = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="weights; without, vit_t with random ones")
    parser.add_argument("--images", type=Path, help="a folder of images; without, a drawn one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        opened = open_checkpoint(args.checkpoint) if args.checkpoint else random_weights(folder)
        images = [read_image(path) for path in list_images(args.images)[:4]] if args.images else [drawn_image(3)]
        rows = measure(opened, images, folder, args.threads, args.runs)
    print(
        f"{opened.model.config.name} at {opened.model.image_size}², {args.threads} threads, {args.runs} runs in turns"
    )
    print(f"{'':28}{'ms':>8}{'':>9}{'MB':>8}{'cosine':>10}")
    for variant, row in rows.items():
        print(f"{variant:28}{row['ms']:8.1f}{row['speedup']:8.2f}x{row['mb']:8.1f}{row['cosine']:10.5f}")
    if args.json:
        args.json.write_text(json.dumps({"threads": args.threads, "runs": args.runs, "variants": rows}, indent=2))


def random_weights(folder: Path) -> OpenedCheckpoint:
    torch.manual_seed(0)
    return OpenedCheckpoint(sam_model_registry["vit_t"]().eval(), folder / "random.pt", "0" * 64, {})


def measure(
    opened: OpenedCheckpoint, images: list[np.ndarray], folder: Path, threads: int, runs: int
) -> dict[str, dict[str, float]]:
    """Milliseconds, megabytes and likeness of every variant; the first is what the others are compared with."""
    model = opened.model.to(memory_format=torch.channels_last)
    half = copy.deepcopy(model).in_precision(torch.bfloat16)
    paths = export(opened, folder)
    files: dict[str, ExportedModel] = {
        f"ONNX Runtime, {name}": OnnxModel(path, threads=threads) for name, path in paths.items()
    }
    exact, facts = paths["float32"], files["ONNX Runtime, float32"].facts
    inputs = [encoder_input(facts, image) for image in images]
    for name, graph in (
        ("dynamic int8", to_dynamic(onnx.load(exact))),
        ("static int8", static(calibrate(prepared(onnx.load(exact)), feeds(inputs), QuantizeOptions.method))),
    ):
        describe(graph, facts)
        path = folder / f"{name.replace(' ', '_')}.onnx"
        onnx.save(graph, path)
        files[f"ONNX Runtime, {name}"] = OnnxModel(path, threads=threads)
    if importlib.util.find_spec("nncf"):
        files |= by_openvino(exact, inputs, facts, folder, threads)
    encoders: dict[str, Encode] = {"torch, float32": by_torch(model), "torch, bfloat16": by_torch(half)}
    encoders |= {name: by_file(each) for name, each in files.items()}
    weights = sum(each.numel() for each in model.image_encoder.parameters()) / 1e6
    sizes = [4 * weights, 2 * weights, *(megabytes_of(each.path) for each in files.values())]
    megabytes = dict(zip(encoders, sizes, strict=True))
    taken: dict[str, list[float]] = {name: [] for name in encoders}
    alike = dict.fromkeys(encoders, 1.0)
    expected = [encoders["torch, float32"](each) for each in inputs]
    for turn in range(runs + 1):
        number = turn % len(inputs)
        for name, encode in encoders.items():
            time.sleep(_REST)
            start = time.perf_counter()
            found = encode(inputs[number])
            if turn:  # the first warms up
                taken[name].append(1000 * (time.perf_counter() - start))
            alike[name] = min(alike[name], cosine(found, expected[number]))
    ms = {name: statistics.median(times) for name, times in taken.items()}
    base = ms["ONNX Runtime, float32"]
    return {
        name: {"ms": ms[name], "speedup": base / ms[name], "mb": megabytes[name], "cosine": alike[name]}
        for name in encoders
    }


def export(opened: OpenedCheckpoint, folder: Path) -> dict[str, Path]:
    """The encoder in float32 and float16."""
    found = {}
    for name, fp16 in (("float32", False), ("float16", True)):
        options = ExportOptions(folder / name, parts=["encoder"], fp16=fp16)
        (exported,) = export_onnx(opened, options)
        found[name] = exported.path  # of random weights float16 may be rejected: likeness is shown either way
    return found


def by_torch(model: Sam) -> Encode:
    @torch.inference_mode()
    def encode(image: np.ndarray) -> np.ndarray:
        given = torch.from_numpy(image).to(memory_format=torch.channels_last)
        return model.encode(given).float().numpy()

    return encode


def by_openvino(
    exact: Path, inputs: list[np.ndarray], facts: ModelFacts, folder: Path, threads: int
) -> dict[str, ExportedModel]:
    """OpenVINO as it is told, and as it chooses by itself."""
    from mobilesam_core.quantization.openvino import quantized
    from mobilesam_core.runtime.openvino_model import OpenVinoModel

    artifact = quantized(exact, feeds(inputs), len(inputs))
    artifact.describe(facts)
    small = folder / "openvino_int8.xml"
    artifact.save(small)
    return {
        "OpenVINO, float32": OpenVinoModel(exact, threads, "f32"),
        "OpenVINO, its own choice": OpenVinoModel(exact, threads),
        "OpenVINO, int8": OpenVinoModel(small, threads),
    }


def feeds(inputs: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
    return [{"input_image": each} for each in inputs]


def megabytes_of(path: Path) -> float:
    weights = path.with_suffix(".bin")
    return sum(each.stat().st_size for each in (path, weights) if each.is_file()) / 1e6


def by_file(model: ExportedModel) -> Encode:
    return lambda image: model.run({"input_image": image})["image_embeddings"]


if __name__ == "__main__":
    main()
