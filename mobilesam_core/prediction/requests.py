"""What a user wants segmented: from the command line's flags or a prompt file, checked before any work."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobilesam_core.config.loading import validate
from mobilesam_core.config.prompt_file import ObjectPrompts, PromptFile
from mobilesam_core.errors import ConfigError, PromptError, UsageError
from mobilesam_core.prompts.types import NEGATIVE, POSITIVE, Prompt

Point = tuple[float, float]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class ObjectRequest:
    """One object, in pixels of the upright image: points with labels (1 on it, 0 not), a box, a mask file."""

    points: tuple[Point, ...] = ()
    labels: tuple[int, ...] = ()
    box: Box | None = None
    mask: Path | None = None

    def problems(self) -> list[str]:
        """What is wrong with it in any image, one phrase each."""
        found = []
        if not self.points and self.box is None and self.mask is None:
            found.append("it has no point, box or mask")
        if len(self.labels) != len(self.points):
            found.append(f"it has {len(self.points)} points but {len(self.labels)} labels")
        found += [f"the label {n} is neither 1 nor 0" for n in self.labels if n not in (POSITIVE, NEGATIVE)]
        found += [f"the point {_text(p)} is not finite" for p in self.points if not all(map(math.isfinite, p))]
        if self.box is not None:
            x1, y1, x2, y2 = self.box
            if not all(map(math.isfinite, self.box)):
                found.append(f"the box {_text(self.box)} is not finite")
            elif not (x1 < x2 and y1 < y2):
                found.append(f"the box {_text(self.box)} must have x1 < x2 and y1 < y2")
        return found

    def problems_in(self, height: int, width: int) -> list[str]:
        """What lies outside an image of this size, one phrase each; its edge is inside."""
        found = [f"the point {_text(p)}" for p in self.points if not _inside(p, height, width)]
        if self.box is not None and not (_inside(self.box[:2], height, width) and _inside(self.box[2:], height, width)):
            found.append(f"the box {_text(self.box)}")
        return [f"{what} is outside the image (x from 0 to {width}, y from 0 to {height})" for what in found]

    def prompt(self, mask: np.ndarray | None) -> Prompt:
        """As the model takes it; ``mask`` is what :attr:`mask` names, as low-resolution logits."""
        box = None if self.box is None else np.asarray(self.box, np.float32)
        points = np.asarray(self.points, np.float32).reshape(-1, 2)
        return Prompt(points, np.asarray(self.labels, np.int64), box, mask)


@dataclass(frozen=True)
class ImageRequest:
    """An image file and the objects to find in it."""

    image: Path
    objects: tuple[ObjectRequest, ...]


def objects_from_flags(
    points: Sequence[Point], negatives: Sequence[Point], boxes: Sequence[Box], mask: Path | None
) -> tuple[ObjectRequest, ...]:
    """The object of points, a box and a mask; or, of several boxes alone, one object each.

    Raises:
        UsageError: there is nothing to go by, or several boxes come with points or a mask.
        PromptError: a number is not finite, or a box is inside out.
    """
    labels = (POSITIVE,) * len(points) + (NEGATIVE,) * len(negatives)
    if len(boxes) > 1:
        if labels or mask is not None:
            raise UsageError(
                "Several boxes with points or a mask do not say which belong together.",
                "Write them to a file, object by object, and pass it with --prompts.",
            )
        objects = tuple(ObjectRequest(box=box) for box in boxes)
    else:
        objects = (ObjectRequest((*points, *negatives), labels, boxes[0] if boxes else None, mask),)
        if objects == (ObjectRequest(),):
            raise UsageError(
                "Nothing says what to segment.", "Give --point x,y, --box x1,y1,x2,y2, --mask or --prompts."
            )
    _refuse([problem for request in objects for problem in request.problems()], "The prompt cannot be used")
    return objects


def read_prompt_file(path: Path) -> list[ImageRequest]:
    """Read the JSON of :class:`~mobilesam_core.config.prompt_file.PromptFile`; its paths are relative to it.

    Raises:
        PromptError: with every problem found.
    """
    try:
        tree = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise PromptError(f"The prompt file {path} cannot be read: {error.strerror}.", "Check the path.") from error
    except ValueError as error:
        raise PromptError(f"The prompt file {path} is not JSON: {error}.", "Correct the file.") from error
    try:
        prompts = validate(PromptFile, tree, f"The prompt file {path}")
    except ConfigError as error:
        raise PromptError(error.message, "`mobilesam predict --help` shows the format.") from error
    requests, problems = [], []
    for entry in prompts.images:
        objects = tuple(_object(given, path.parent) for given in entry.objects)
        requests.append(ImageRequest(path.parent / entry.image, objects))
        for number, request in enumerate(objects):
            problems += [f"{entry.image}, object {number}: {problem}" for problem in request.problems()]
    _refuse(problems, f"The prompt file {path} has prompts that cannot be used")
    return requests


def check_inside(request: ImageRequest, height: int, width: int) -> None:
    """Check that every prompt lies in the image.

    Raises:
        PromptError: naming the image, each value that does not, and what is allowed.
    """
    problems = [
        f"object {number}: {problem}"
        for number, wanted in enumerate(request.objects)
        for problem in wanted.problems_in(height, width)
    ]
    _refuse(problems, f"{request.image} has prompts that cannot be used")


def _object(given: ObjectPrompts, folder: Path) -> ObjectRequest:
    labels = [POSITIVE] * len(given.points) if given.labels is None else given.labels
    mask = None if given.mask is None else folder / given.mask
    return ObjectRequest(tuple(given.points), tuple(labels), given.box, mask)


def _inside(point: Sequence[float], height: int, width: int) -> bool:
    return 0 <= point[0] <= width and 0 <= point[1] <= height


def _text(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _refuse(problems: Sequence[str], what: str) -> None:
    if len(problems) == 1:
        raise PromptError(f"{what}: {problems[0]}.", "Coordinates are pixels of the upright image.")
    if problems:
        raise PromptError(f"{what}:\n  " + "\n  ".join(problems), "Coordinates are pixels of the upright image.")
