"""Whether an exported model says what the model it was made from says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from mobilesam_core.export.parts import CombinedPart, DecoderPart
from mobilesam_core.models.sam import Sam
from mobilesam_core.ops.frame import Frame, resize_image
from mobilesam_core.ops.metrics import cosine
from mobilesam_core.ops.resize import restore_masks, to_tensor
from mobilesam_core.prompts.types import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, NEGATIVE, PAD, POSITIVE
from mobilesam_core.runtime.exported import ExportedModel
from mobilesam_core.runtime.facts import ModelFacts

EXACT = 1e-4
"""The largest difference of a float32 graph, as a share of the largest value."""
CLOSE_COSINE, CLOSE_IOU = 0.999, 0.99
"""The least cosine and mask IoU of a graph that computes something slightly else: float16, or its own
preprocessing, which rounds a few pixels differently from PIL."""
ROUGH_COSINE, ROUGH_IOU = 0.97, 0.9
"""The same of int8. Whether masks are still good enough, a labelled set says: mobilesam quantize."""


@dataclass(frozen=True)
class Comparison:
    """One output for one prompt. max_abs: the largest difference; relative: that as a share of the largest value (of
    predicted IoUs, of 1 at least).

    cosine: of the angle between the two. mask_iou: IoU of the masks that follow from it (of an embedding, those that
    the decoder makes of it), all of them together: one pixel may be a tenth of the smallest; None for predicted IoUs.
    """

    output: str
    prompt: str
    max_abs: float
    relative: float
    cosine: float
    mask_iou: float | None


@dataclass(frozen=True)
class Verification:
    """What came of a comparison. passed: whether every output lies within ``tolerance``, which is for a reader."""

    comparisons: tuple[Comparison, ...]
    passed: bool
    tolerance: str


@dataclass(frozen=True)
class _Case:
    """B prompts of one kind in pixels of the input frame, by input name."""

    name: str
    inputs: Mapping[str, np.ndarray]


@torch.no_grad()
def verify(model: Sam, exported: ExportedModel, image: np.ndarray) -> Verification:
    """Run both on an ``(H, W, C)`` uint8 image, and unless ``exported`` is an encoder on several kinds of prompts."""
    facts = exported.facts
    frame = Frame.of(image.shape[0], image.shape[1], model.image_size)
    pixels = model.preprocess(to_tensor(resize_image(image, frame))[None])
    if facts.part == "encoder":
        comparisons = list(_compare_encoder(model, exported, image, pixels))
    else:
        comparisons = list(_compare_masks(model, exported, image, pixels, frame))
    if facts.precision == "fp32" and not facts.preprocessing:
        passed, tolerance = all(each.relative <= EXACT for each in comparisons), f"relative difference up to {EXACT:g}"
    else:
        cosine_from, iou_from = (ROUGH_COSINE, ROUGH_IOU) if facts.precision == "int8" else (CLOSE_COSINE, CLOSE_IOU)
        passed = all(each.cosine >= cosine_from for each in comparisons) and _least_iou(comparisons) >= iou_from
        tolerance = f"cosine from {cosine_from} and mask IoU, of all prompts on average, from {iou_from}"
    return Verification(tuple(comparisons), bool(comparisons) and passed, tolerance)


def _least_iou(comparisons: Sequence[Comparison]) -> float:
    """That of the worst output; of a single prompt, masks may be so small that a pixel makes a percent."""
    by_output: dict[str, list[float]] = {}
    for each in comparisons:
        if each.mask_iou is not None:
            by_output.setdefault(each.output, []).append(each.mask_iou)
    return min((fmean(ious) for ious in by_output.values()), default=1.0)


def _compare_encoder(model: Sam, exported: ExportedModel, image: np.ndarray, pixels: Tensor) -> Iterator[Comparison]:
    wanted = model.encode(pixels)
    decoder = DecoderPart(model, single_mask=False)
    (box,) = (case for case in _cases(model, 1) if case.name == "box")
    prompt = {name: torch.from_numpy(value) for name, value in box.inputs.items()}
    reference = decoder(wanted, **prompt)[0].numpy()
    batches = [1] if exported.facts.preprocessing or exported.size_of("input_image", 0) is not None else [1, 2]
    for batch in batches:
        given = image if exported.facts.preprocessing else np.repeat(pixels.numpy(), batch, axis=0)
        found = exported.run({"input_image": given})["image_embeddings"]
        for number, embedding in enumerate(found):
            masks = decoder(torch.from_numpy(embedding[None]).float(), **prompt)[0].numpy()
            iou = _masks_iou(masks, reference, model.mask_threshold)
            label = "image" if batch == 1 else f"image {number + 1} of {batch}"
            yield _comparison("image_embeddings", label, embedding[None], wanted.numpy(), iou)


def _compare_masks(
    model: Sam, exported: ExportedModel, image: np.ndarray, pixels: Tensor, frame: Frame
) -> Iterator[Comparison]:
    facts = exported.facts
    part = (CombinedPart if facts.part == "combined" else DecoderPart)(model, facts.single_mask)
    source = pixels if facts.part == "combined" else model.encode(pixels)
    for case in _cases(model, 3 if facts.style == "batched" else 1, exported.size_of("point_coords", 1)):
        low_res, iou = part(source, *(torch.from_numpy(value) for value in case.inputs.values()))
        wanted = {"low_res_masks": low_res, "iou_predictions": iou}
        if facts.style == "official":
            wanted["masks"] = restore_masks(low_res, frame)
        found = exported.run(_feed(facts, case, source, image, frame, exported.input_names))
        for name, value in wanted.items():
            reference = value.numpy()
            masks = None if name == "iou_predictions" else _masks_iou(found[name], reference, facts.mask_threshold)
            yield _comparison(name, case.name, found[name], reference, masks)


def _feed(
    facts: ModelFacts, case: _Case, source: Tensor, image: np.ndarray, frame: Frame, names: Sequence[str]
) -> dict[str, np.ndarray]:
    given: dict[str, np.ndarray] = dict(case.inputs)
    if facts.preprocessing:
        given["input_image"] = image
        given["point_coords"] = given["point_coords"] / np.array(frame.scale_xy, np.float32)
    else:
        given["input_image" if facts.part == "combined" else "image_embeddings"] = source.numpy()
    given["orig_im_size"] = np.array(frame.original, np.float32)
    return {name: given[name] for name in names}


def _cases(model: Sam, count: int, tokens: int | None = None) -> Iterator[_Case]:
    """Prompts of every kind, ``count`` of each, at places that are drawn once and for all.

    tokens: of a prompt, where their number is fixed: shorter ones are padded, longer ones left out.
    """
    rng, side, grid = np.random.default_rng(0), model.image_size, model.prompt_encoder.mask_input_size[0]
    y, x = np.mgrid[:grid, :grid] / grid
    blob = np.clip(20 * (0.3 - np.hypot(x - 0.5, y - 0.5)), -6, 6).astype(np.float32)
    box = [BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]
    kinds = {
        "point": ([POSITIVE, PAD], False),
        "points": ([POSITIVE, POSITIVE, NEGATIVE, PAD], False),
        "box": (box, False),
        "box and points": ([POSITIVE, NEGATIVE, *box], False),
        "points and mask": ([POSITIVE, NEGATIVE, PAD], True),
    }
    if tokens is not None:
        kinds["points alone"] = ([POSITIVE] * tokens, False)
        fitting = {name: kind for name, kind in kinds.items() if len(kind[0]) <= tokens}
        kinds = {name: (labels + [PAD] * (tokens - len(labels)), mask) for name, (labels, mask) in fitting.items()}
    for name, (labels, has_mask) in kinds.items():
        points = rng.uniform(0.2, 0.8, (count, len(labels), 2)) * side
        if BOX_TOP_LEFT in labels:
            corner = labels.index(BOX_TOP_LEFT)
            points[:, corner : corner + 2] = np.sort(points[:, corner : corner + 2], axis=1)
        yield _Case(
            name,
            {
                "point_coords": points.astype(np.float32),
                "point_labels": np.tile(np.array(labels, np.float32), (count, 1)),
                "mask_input": np.tile(blob if has_mask else np.zeros_like(blob), (count, 1, 1, 1)),
                "has_mask_input": np.full(count, has_mask, np.float32),
            },
        )


def _masks_iou(found: np.ndarray, wanted: np.ndarray, threshold: float) -> float:
    if found.shape != wanted.shape:
        return 0.0
    a, b = found > threshold, wanted > threshold
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0


def _comparison(output: str, prompt: str, found: np.ndarray, wanted: np.ndarray, iou: float | None) -> Comparison:
    if found.shape != wanted.shape or not np.isfinite(found).all():
        return Comparison(output, prompt, float("inf"), float("inf"), 0.0, iou)
    max_abs = float(np.abs(found - wanted).max())
    # An IoU is one of a whole: the only one of a single mask may be near zero.
    largest = max(float(np.abs(wanted).max()), 1.0 if output == "iou_predictions" else 1e-30)
    return Comparison(output, prompt, max_abs, max_abs / largest, cosine(found, wanted), iou)
