"""Seconds an image of automatic mask generation, ours against `mobile_sam`, at 1024², a 32 x 32 grid.

Two models, each with the same weights on both sides:

- `vit_t` with random ones. Their masks are noise that fills the image, so the mask threshold is raised, on both sides
  alike, until few and varied specks are left. The IoU threshold lets 10 or 50 percent of the candidates through, the
  stability threshold half of those.
- `nano`, whose weights mean something on drawn images, put together from the reference's own classes around our image
  encoder: it says what bfloat16 and coarse-to-fine change.

Each run is a process of its own, so that its peak memory is its own; sides alternate. Memory is also given without what
importing the libraries takes, which is the same 0.7 GB on both sides.

    python benchmarks/amg.py --photos ../shared/data/photos --json amg.json
    python benchmarks/amg.py --photos ../shared/data/photos --ours-only        # the stages, in two minutes
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from mobilesam_core.amg import generator as ours
from mobilesam_core.amg.formats import ImageMasks, PngFormat
from mobilesam_core.amg.grid import Crop, point_grid
from mobilesam_core.checkpoints.keys import to_official
from mobilesam_core.checkpoints.loading import open_checkpoint, sam_model_registry
from mobilesam_core.config.data import ShapesConfig
from mobilesam_core.data.shapes import ShapesSource
from mobilesam_core.jobs.inputs import ImageFile
from mobilesam_core.models.sam import Sam
from mobilesam_core.ops.rle import rle_ious
from mobilesam_core.runtime.torch_runtime import TorchRuntime, TorchSearch
from mobilesam_core.training.memory import peak_memory_mb

POINTS = 32
FRAME = 1024
SHARES = ("0.1", "0.5")
VARIANTS = {
    "float32": ("32", "grid"),
    "bf16": ("bf16", "grid"),
    "coarse-to-fine": ("32", "coarse-to-fine"),
    "bf16 coarse-to-fine": ("bf16", "coarse-to-fine"),
}
# Of the specks of random weights so many lie on top of each other that the usual 0.7 would leave one.
RANDOM_NMS = 0.99
NANO = {"pred_iou_thresh": 0.7, "stability_score_thresh": 0.8}


def reference_package() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it takes over timm's names of its models, and warns of it
        import mobile_sam
    return mobile_sam


def write_random_weights(path: Path) -> None:
    """Weights without zeros and ones, so that masks differ; predicted IoUs are above zero, the least that filters."""
    torch.manual_seed(7)
    state = reference_package().sam_model_registry["vit_t"]().state_dict()
    tables = ("attention_biases", "iou_token", "mask_tokens")
    for name, value in state.items():
        if not value.is_floating_point():
            continue
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif value.ndim > 1 and not any(table in name for table in tables):
            value.normal_(std=value[0].numel() ** -0.5)
        else:
            value.normal_(float(value.ndim == 1 and name.endswith("weight")), 0.3)
    state["mask_decoder.iou_prediction_head.layers.2.bias"] += 2
    torch.save(state, path)


@torch.no_grad()
def calibrate(weights: Path, photo: Path) -> dict[str, dict[str, float]]:
    """Settings of random weights for one photograph, by share of survivors."""
    model = sam_model_registry["vit_t"](checkpoint=weights)
    model.mask_threshold = float("-inf")
    image = load(photo)
    generator = ours.SamAutomaticMaskGenerator(model, POINTS, pred_iou_thresh=0.0, stability_score_thresh=0.0)
    encoded = generator.runtime.encode(image)
    search = ours._Search(generator, encoded, Crop((0, 0, *image.shape[1::-1]), 0), (image.shape[0], image.shape[1]))
    search.ask(point_grid(POINTS)[::13] * np.array(image.shape[1::-1]))
    logits = torch.cat([part.logits for part in search._parts])
    predicted_iou = torch.from_numpy(np.concatenate([part.predicted_iou for part in search._parts]))
    settings = {}
    for share in SHARES:
        least = float(predicted_iou.quantile(1 - float(share)))
        survivors = logits[predicted_iou > least]
        threshold, offset = float(survivors.flatten()[::31].quantile(0.99)), 0.05 * float(survivors.std())
        settings[share] = {
            "mask_threshold": threshold,
            "stability_score_offset": offset,
            "stability_score_thresh": float(
                np.nanmedian(search._search.measure(survivors, threshold, offset).stability)
            ),
            "pred_iou_thresh": least,
            "box_nms_thresh": RANDOM_NMS,
        }
    return settings


def draw(folder: Path, count: int) -> list[Path]:
    """Images of the kinds that `nano` knows, half the frame's size, as it was trained on."""
    domains = ("crowd", "heap", "polygons", "texture", "holes")
    paths = []
    for number in range(count):
        domain = domains[number % len(domains)]
        source = ShapesSource(ShapesConfig(format="shapes", domains=(domain,), count=count, size=FRAME // 2, seed=77))
        paths.append(folder / f"{number}-{domain}.png")
        Image.fromarray(source[number].image).save(paths[-1])
    return paths


def load(photo: Path) -> np.ndarray:
    return np.asarray(Image.open(photo).convert("RGB"))


def reference_nano(model: Sam) -> Any:
    """The reference's model with our weights: its prompt encoder and decoder, with the widths of ``vit_nano``."""
    package = reference_package().modeling
    grid = model.image_size // 16
    dim = model.prompt_encoder.no_mask_embed.weight.shape[1]
    block = model.mask_decoder.transformer.layers[0]
    heads, hidden = block.self_attn.num_heads, block.mlp.lin1.out_features
    reference = package.Sam(
        image_encoder=model.image_encoder,
        prompt_encoder=package.PromptEncoder(
            embed_dim=dim, image_embedding_size=(grid, grid), input_image_size=(FRAME, FRAME), mask_in_chans=16
        ),
        mask_decoder=package.MaskDecoder(
            num_multimask_outputs=3,
            transformer=package.TwoWayTransformer(depth=2, embedding_dim=dim, mlp_dim=hidden, num_heads=heads),
            transformer_dim=dim,
            iou_head_hidden_dim=dim,
        ),
    )
    official = to_official(model.state_dict())
    for part in ("prompt_encoder", "mask_decoder"):
        own = {key.removeprefix(f"{part}."): value for key, value in official.items() if key.startswith(part)}
        getattr(reference, part).load_state_dict(own)
    return reference.eval()


def build(side: str, weights: str, settings: dict[str, Any]) -> Any:
    """The generator of one side; ``settings`` may hold the model's mask threshold too."""
    given = {"points_per_side": POINTS, "output_mode": "coco_rle", **settings}
    threshold = given.pop("mask_threshold", 0.0)
    if weights == "nano":
        model = open_checkpoint("nano", image_size=FRAME).model
    elif side != "reference":
        model = sam_model_registry["vit_t"](checkpoint=weights)
    if side == "reference":
        package = reference_package()
        # It keeps a table of biases from before the weights unless it leaves evaluation mode once.
        reference = reference_nano(model) if weights == "nano" else package.sam_model_registry["vit_t"](weights).train()
        reference.eval().mask_threshold = threshold
        return package.SamAutomaticMaskGenerator(reference, **given)
    precision, strategy = VARIANTS[side]
    model.in_precision(torch.bfloat16 if precision == "bf16" else torch.float32)
    model.to(memory_format=torch.channels_last)
    model.mask_threshold = threshold
    with torch.no_grad():
        model.encode(torch.zeros(1, 3, FRAME, FRAME))  # kernels are chosen and compiled on first use
    return ours.SamAutomaticMaskGenerator(model, **given, strategy=strategy)


def run_one(side: str, weights: str, photo: Path, settings: dict[str, Any], masks: Path) -> None:
    """In a process of its own: time one image, and say what it took as JSON."""
    reference_package()  # both sides pay for all imports
    cpu = torch.device("cpu")
    imports = peak_memory_mb(cpu)
    generator = build(side, weights, settings)
    image = load(photo)
    with staged(side) as stages:
        start = time.perf_counter()
        records = generator.generate(image)
        seconds = time.perf_counter() - start
    if side != "reference":
        stages["write"] = seconds_to_write(records, image.shape)
    masks.write_text(json.dumps([record["segmentation"] for record in records]))
    result = {"seconds": seconds, "masks": len(records), "peak_mb": peak_memory_mb(cpu), "imports_mb": imports}
    print(json.dumps({**result, "stages": dict(stages)}))


def seconds_to_write(records: Sequence[dict[str, Any]], shape: Sequence[int]) -> float:
    """As PNG files, besides what is timed: `mobilesam amg` writes while it looks at the next image."""
    crop = Crop((0, 0, shape[1], shape[0]), 0)
    found = tuple(
        ours.FoundMask(
            rle=record["segmentation"],
            area=record["area"],
            box=tuple(record["bbox"]),
            predicted_iou=record["predicted_iou"],
            stability_score=record["stability_score"],
            point=tuple(record["point_coords"][0]),
            crop=crop,
        )
        for record in records
    )
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        PngFormat(Path(folder)).write(ImageMasks(ImageFile(Path("photo"), "photo"), shape[0], shape[1], found))
        return time.perf_counter() - start


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
        (TorchRuntime, "encode", "encode"),
        (TorchSearch, "ask", "decode"),
        (TorchSearch, "draw", "draw masks"),
        (TorchSearch, "measure", "upscale and filter"),
        (ours, "best_of_each", "NMS"),
        (TorchSearch, "mask", "upscale the kept"),
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
    """Mean best IoU of the reference's masks among ours, and of ours among the reference's."""
    a, b = (json.loads(path.read_text()) for path in (found, expected))
    ious = rle_ious(a, b)
    if not ious.size:
        return {"iou_of_theirs": 0.0, "iou_of_ours": 0.0, "masks_of_theirs": len(b)}
    return {
        "iou_of_theirs": float(ious.max(axis=0).mean()),
        "iou_of_ours": float(ious.max(axis=1).mean()),
        "masks_of_theirs": len(b),
    }


def child(*arguments: Any) -> Any:
    """What this script prints as JSON when run with ``arguments``."""
    command = [sys.executable, __file__, "--photos", ".", *(str(each) for each in arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(ended.stdout.splitlines()[-1])


def show(case: str, runs: Sequence[dict[str, Any]], sides: Sequence[str]) -> None:
    """The medians over photographs, and the worst of what should be alike."""
    print(f"\n{case}: seconds, speed-up, masks, peak MB (without imports), mean best IoU of theirs and ours")
    of_side = {side: [run for run in runs if run["case"] == case and run["side"] == side] for side in sides}
    first = {run["photo"]: run["seconds"] for run in of_side[sides[0]]}
    for side, own in of_side.items():
        peak = max(run["peak_mb"] for run in own)
        beyond = max(run["peak_mb"] - run["imports_mb"] for run in own)
        print(
            f"{side:22}{median(run['seconds'] for run in own):8.2f}"
            f"{median(first[run['photo']] / run['seconds'] for run in own):7.2f}x"
            f"{'/'.join(str(run['masks']) for run in own):>14}{peak:8.0f} ({beyond:.0f})"
            f"{min(run.get('iou_of_theirs', 1.0) for run in own):9.4f}"
            f"{min(run.get('iou_of_ours', 1.0) for run in own):8.4f}"
        )
    for side in sides:
        stages = [run["stages"] for run in of_side[side] if run["stages"]]
        if stages:
            parts = (f"{stage} {median(s.get(stage, 0.0) for s in stages):.3f}" for stage in stages[0])
            print(f"  {side}: " + ", ".join(parts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--ours-only", action="store_true")
    parser.add_argument("--case", choices=("vit_t", "nano"), help="one of the two models (both)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--run", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--calibrate", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.weights:
        write_random_weights(args.weights)
        print("{}")
        return
    if args.calibrate:
        print(json.dumps(calibrate(*args.calibrate)))
        return
    if args.run:
        side, weights, photo, settings, masks = args.run
        run_one(side, weights, Path(photo), json.loads(settings), Path(masks))
        return
    photos = sorted(args.photos.glob("*.jpg"))[: args.count]
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        random = Path(folder) / "vit_t.pt"
        # In processes of their own too: a child's peak starts at the size of its parent.
        child("--weights", random)
        # Coarse-to-fine for its time: what it finds of noise, says nothing.
        of_noise = ["float32", "bf16", "coarse-to-fine"]
        cases: dict[str, list[str]] = {f"vit_t, survival {share}": of_noise for share in SHARES}
        cases["nano"] = list(VARIANTS)
        cases = {case: own for case, own in cases.items() if args.case is None or case.startswith(args.case)}
        for photo, drawn in zip(photos, draw(Path(folder), args.count), strict=True):
            shares = child("--calibrate", random, photo)
            settings = {f"vit_t, survival {share}": shares[share] for share in SHARES} | {"nano": NANO}
            for case, own in cases.items():
                weights, image = ("nano", drawn) if case == "nano" else (random, photo)
                sides = own if args.ours_only else ["reference", *own]
                paths = {side: Path(folder) / f"{side}.json" for side in sides}
                for side in sides:
                    result = child("--run", side, weights, image, json.dumps(settings[case]), paths[side])
                    result |= {"case": case, "side": side, "photo": image.name}
                    if side != sides[0]:
                        result |= fidelity(paths[side], paths[sides[0]])
                    runs.append(result)
                    print(json.dumps(result), flush=True)
    for case, own in cases.items():
        show(case, runs, own if args.ours_only else ["reference", *own])
    if args.json:
        args.json.write_text(json.dumps(runs, indent=2) + "\n")


if __name__ == "__main__":
    main()
