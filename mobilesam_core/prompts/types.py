"""What a user, a sampler or a file asks the model to segment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

# Labels of the tokens of a prompt, as SAM and its ONNX export number them.
NEGATIVE, POSITIVE, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT, PAD = 0, 1, 2, 3, -1
# Ours alone: fills the short prompts of a ragged batch; the decoder masks such tokens out, so a prompt gives
# the same masks alone and in a batch.
ABSENT = -2


@dataclass(frozen=True)
class Prompt:
    """One object's prompt, in pixels of some frame (the caller says which).

    points: ``(n, 2)`` float32, ``(x, y)``. labels: ``(n,)`` int64, 1 foreground and 0 background.
    box: ``(4,)`` float32 ``(x1, y1, x2, y2)`` or None. mask: ``(h, w)`` float32 low-resolution logits or None.
    """

    points: np.ndarray
    labels: np.ndarray
    box: np.ndarray | None = None
    mask: np.ndarray | None = None

    @staticmethod
    def from_box(box: Sequence[float] | np.ndarray) -> Prompt:
        """A prompt of one box ``(x1, y1, x2, y2)`` and no points."""
        return Prompt(np.zeros((0, 2), np.float32), np.zeros((0,), np.int64), np.asarray(box, np.float32).reshape(4))

    @staticmethod
    def from_points(
        points: Sequence[Sequence[float]] | np.ndarray, labels: Sequence[int] | np.ndarray | None = None
    ) -> Prompt:
        """A prompt of points ``(x, y)``; all foreground unless ``labels`` says otherwise."""
        xy = np.asarray(points, np.float32).reshape(-1, 2)
        kinds = np.ones(len(xy), np.int64) if labels is None else np.asarray(labels, np.int64).reshape(-1)
        return Prompt(xy, kinds)

    def scaled(self, scale_x: float, scale_y: float) -> Prompt:
        """The same prompt in a frame whose axes are stretched by the two factors."""
        factors = np.array([scale_x, scale_y], np.float32)
        box = None if self.box is None else self.box * np.tile(factors, 2)
        return Prompt(self.points * factors, self.labels, box, self.mask)


class PromptArrays(NamedTuple):
    """N prompts, the short ones filled up.

    points: ``(N, T, 2)`` float32, ``(x, y)``. labels: ``(N, T)`` int64 of the constants above; a short prompt ends in
    :data:`ABSENT`. masks: ``(N, 1, h, w)`` float32 low-resolution logits, or None when no prompt has one. has_mask:
    ``(N,)`` bool: which rows of ``masks`` are real; None exactly when ``masks`` is.
    """

    points: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None
    has_mask: np.ndarray | None


def prompt_arrays(prompts: Sequence[Prompt]) -> PromptArrays:
    """Collate prompts of one frame.

    Points come first, then a :data:`PAD` token when the prompt has no box, else the box's two corners: the
    order in which SAM builds its tokens.
    """
    rows = [_tokens(prompt) for prompt in prompts]
    width = max((len(labels) for _, labels in rows), default=0)
    points = np.zeros((len(rows), width, 2), np.float32)
    labels = np.full((len(rows), width), ABSENT, np.int64)
    for i, (xy, kinds) in enumerate(rows):
        points[i, : len(kinds)] = xy
        labels[i, : len(kinds)] = kinds
    given = [prompt.mask for prompt in prompts if prompt.mask is not None]
    if not given:
        return PromptArrays(points, labels, None, None)
    masks = np.zeros((len(rows), 1, *given[0].shape[-2:]), np.float32)
    for i, prompt in enumerate(prompts):
        if prompt.mask is not None:
            masks[i, 0] = prompt.mask
    return PromptArrays(points, labels, masks, np.array([prompt.mask is not None for prompt in prompts]))


def _tokens(prompt: Prompt) -> tuple[np.ndarray, np.ndarray]:
    if prompt.box is None:
        # A prompt of a mask alone has no token at all; SAM pads only beside points.
        pad = len(prompt.points) > 0
        extra, kinds = np.zeros((int(pad), 2), np.float32), [PAD] * int(pad)
    else:
        extra, kinds = prompt.box.reshape(2, 2), [BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]
    return np.concatenate([prompt.points, extra]), np.concatenate([prompt.labels, np.array(kinds, np.int64)])
