"""Evaluating a model on a data set: one pass over the images, each (or each tile of it) encoded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mobilesam_core.data.sample import BadFile, Sample, SampleSource
from mobilesam_core.data.subset import spread
from mobilesam_core.errors import DataError
from mobilesam_core.evaluation.prompting import Answers, Objects, answer, ask
from mobilesam_core.evaluation.summary import Evaluation
from mobilesam_core.evaluation.types import EvalOptions, ObjectScore, Observation, PromptKind, size_class
from mobilesam_core.ops.masks import Window
from mobilesam_core.ops.metrics import boundary_iou, dice_from_iou, fill_box_iou, mask_iou
from mobilesam_core.ops.tiles import whole_in
from mobilesam_core.prediction.stored import StoredEmbeddings, refuse_tiles
from mobilesam_core.progress import NullReporter, Reporter
from mobilesam_core.prompts.types import Prompt
from mobilesam_core.runtime.opening import as_runtime
from mobilesam_core.runtime.protocol import EncodedImage, Runtime, objects_at_once

if TYPE_CHECKING:
    from mobilesam_core.models.sam import Sam

__all__ = ["EvalOptions", "Evaluation", "ObjectScore", "Observation", "evaluate", "read_sample"]


def evaluate(
    model: Sam | Runtime,
    source: SampleSource,
    options: EvalOptions,
    reporter: Reporter | None = None,
    observe: Callable[[Observation], None] | None = None,
    stored: StoredEmbeddings | None = None,
    teacher: Sam | Runtime | None = None,
) -> Evaluation:
    """Score ``model`` on every object of ``source``, at the images' own resolution.

    A torch model runs on its device, without gradients, in evaluation mode; each module gets its mode back
    afterwards. An image that cannot be read and an object without a pixel become
    :attr:`Evaluation.failures`, with a warning each; the rest goes on. ``observe`` is shown every chunk of
    objects as it is scored. With ``stored``, images are not encoded; one whose embedding is missing is a failure.
    ``teacher`` is given the same prompts, and its masks are compared with the model's.

    Raises:
        UsageError: ``stored`` embeddings, which are of whole images, and tiles.
    """
    reporter = reporter or NullReporter()
    refuse_tiles(stored, options.tiling is not None)
    scores: dict[PromptKind, list[ObjectScore]] = {kind: [] for kind in options.prompts}
    failures: list[BadFile] = []
    images = 0
    indices = spread(len(source), options.max_images)
    runtime = as_runtime(model)
    other = None if teacher is None else as_runtime(teacher)
    with ExitStack() as running, reporter.task("Evaluating", len(indices), "images") as task:
        for each in (runtime, other):
            if each is not None:
                running.enter_context(each.running())
        for index in indices:
            read = read_sample(source, index, options.max_objects, stored, failures, reporter)
            if read is not None:
                images += 1
                rows: list[ObjectScore] = []
                for observation in _observations(runtime, other, *read, options):
                    rows.extend(observation.scores)
                    if observe is not None:
                        observe(observation)
                for score in sorted(rows, key=lambda score: score.object):  # tile by tile they come in another order
                    scores[score.kind].append(score)
            task.advance()
    return Evaluation(
        options, images, tuple(score for kind in options.prompts for score in scores[kind]), tuple(failures)
    )


def read_sample(
    source: SampleSource,
    index: int,
    max_objects: int | None,
    stored: StoredEmbeddings | None,
    failures: list[BadFile],
    reporter: Reporter,
) -> tuple[Sample, list[int], EncodedImage | None] | None:
    """A sample, the indices of its objects to evaluate, at most ``max_objects``, and its encoding if that is
    ``stored``; None if one of them cannot be read.

    That, and objects without a pixel, which are left out, are warned of and added to ``failures``.
    """
    try:
        sample = source[index]
        encoded = None if stored is None else stored.of(Path(sample.source))
    except DataError as error:
        failures.append(BadFile(index, source.describe(index), error.message))
        reporter.warning(error.message)
        return None
    chosen = spread(len(sample.masks), max_objects)
    for i in chosen:
        if sample.masks.areas[i] == 0:
            problem = f"Object {i} of {sample.source} has no pixel; it is left out."
            failures.append(BadFile(index, sample.source, problem))
            reporter.warning(problem)
    return sample, [i for i in chosen if sample.masks.areas[i] > 0], encoded


def _observations(
    runtime: Runtime,
    teacher: Runtime | None,
    sample: Sample,
    chosen: Sequence[int],
    encoded: EncodedImage | None,
    options: EvalOptions,
) -> Iterator[Observation]:
    """What is said of the objects ``chosen``, window by window, each encoded once."""
    for window, indices in _windows(sample, chosen, options).items():
        left, top, right, bottom = window
        pixels = np.ascontiguousarray(sample.image[top:bottom, left:right])
        image = runtime.encode(pixels) if encoded is None else encoded
        seen_by_teacher = None if teacher is None else teacher.encode(pixels)
        size = options.object_chunk or objects_at_once(runtime, image.frame)
        for start in range(0, len(indices), size):
            objects = Objects.of(sample.masks, indices[start : start + size], window)
            box_boundaries = _fill_box_boundaries(objects, sample.masks.shape, options)
            for kind in options.prompts:
                answers = ask(runtime, image, kind, objects, options)
                candidates = runtime.masks(answers.low_res_logits, image.frame, options.mask_threshold)
                masks = candidates[np.arange(len(candidates)), answers.selected]
                agreement: list[float | None] = [None] * len(masks)
                if teacher is not None and seen_by_teacher is not None:
                    wanted = _teacher_masks(teacher, seen_by_teacher, answers.prompts, options.mask_threshold)
                    agreement = mask_iou(masks, wanted).tolist()
                yield Observation(
                    sample=sample,
                    window=window,
                    frame=image.frame,
                    kind=kind,
                    object_indices=objects.indices,
                    prompts=answers.prompts,
                    low_res_logits=answers.low_res_logits,
                    iou_predictions=answers.iou_predictions,
                    targets=objects.targets,
                    masks=masks,
                    scores=_scores(sample, kind, objects, answers, candidates, masks, box_boundaries, agreement),
                )


def _windows(sample: Sample, chosen: Sequence[int], options: EvalOptions) -> dict[Window, list[int]]:
    """The parts of the image to look at, and which of the objects ``chosen`` to ask about in each.

    Each lies there whole, so that a mask is as right or wrong there as in the whole image.
    """
    height, width = sample.masks.shape
    if options.tiling is None:
        return {(0, 0, width, height): list(chosen)} if chosen else {}
    found: dict[Window, list[int]] = {}
    homes = whole_in(sample.masks.boxes[chosen], options.tiling, height, width)
    for index, window in zip(chosen, homes, strict=True):
        found.setdefault(window, []).append(index)
    return found


def _teacher_masks(teacher: Runtime, image: EncodedImage, prompts: Sequence[Prompt], threshold: float) -> np.ndarray:
    """The ``(n, H, W)`` masks that a user of the teacher would get."""
    answers = answer(teacher, image, prompts)
    candidates = teacher.masks(answers.low_res_logits, image.frame, threshold)
    chosen: np.ndarray = candidates[np.arange(len(candidates)), answers.selected]
    return chosen


def _scores(
    sample: Sample,
    kind: PromptKind,
    objects: Objects,
    answers: Answers,
    candidates: np.ndarray,
    masks: np.ndarray,
    box_boundaries: Sequence[float | None],
    agreement: Sequence[float | None],
) -> list[ObjectScore]:
    ious = mask_iou(candidates, objects.targets[:, None])
    rows = np.arange(len(ious))
    oracle = ious[:, 1:].max(axis=1).tolist()
    iou = ious[rows, answers.selected].tolist()
    predicted = answers.iou_predictions[rows, answers.selected].tolist()
    boundaries: list[float | None] = [None] * len(iou)
    if box_boundaries[0] is not None:
        pairs = zip(masks, objects.targets, strict=True)
        boundaries = [boundary_iou(mask, target, sample.masks.shape) for mask, target in pairs]
    areas = sample.masks.areas[objects.indices]
    box_ious = fill_box_iou(areas, objects.boxes).tolist()
    return [
        ObjectScore(
            image=sample.key,
            object=number,
            label=int(sample.masks.labels[number]),
            area=int(areas[i]),
            size=size_class(int(areas[i])),
            kind=kind,
            predicted_iou=predicted[i],
            iou=iou[i],
            iou_oracle=oracle[i],
            dice=dice_from_iou(iou[i]),
            boundary_iou=boundaries[i],
            fill_box_iou=box_ious[i],
            fill_box_boundary_iou=box_boundaries[i],
            click_ious=answers.click_ious[i] if answers.click_ious else (),
            agreement=agreement[i],
        )
        for i, number in enumerate(objects.indices)
    ]


def _fill_box_boundaries(objects: Objects, shape: tuple[int, int], options: EvalOptions) -> list[float | None]:
    """Boundary IoU of the answer that needs no model, all of the box, in an image of ``shape``."""
    if not options.boundary:
        return [None] * len(objects.indices)
    found: list[float | None] = []
    for target, box in zip(objects.targets, objects.boxes.astype(int), strict=True):
        filled = np.zeros_like(target)
        filled[box[1] : box[3], box[0] : box[2]] = True
        found.append(boundary_iou(filled, target, shape))
    return found
