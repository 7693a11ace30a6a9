"""Which of the decoder's outputs answers a prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mobilesam_core.prompts.types import Prompt


def is_ambiguous(prompt: Prompt) -> bool:
    """Whether a prompt is a single point, which may mean a whole, a part or a subpart."""
    return len(prompt.points) == 1 and prompt.box is None


def select_masks(iou_predictions: np.ndarray, prompts: Sequence[Prompt]) -> np.ndarray:
    """``(n,)`` int64: which of the four outputs answers each prompt, as SAM does it, by ``(n, 4)`` predicted IoUs.

    An ambiguous prompt takes the best-scored of the multimask outputs 1..3, any other output 0.
    """
    ambiguous = np.array([is_ambiguous(prompt) for prompt in prompts], bool)
    return np.where(ambiguous, 1 + iou_predictions[:, 1:].argmax(axis=1), 0)
