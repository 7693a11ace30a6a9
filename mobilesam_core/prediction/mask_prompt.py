"""A mask file as a prompt: what the prompt encoder reads are low-resolution logits in the model's frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mobilesam_core.data.reading import read_binary_mask
from mobilesam_core.errors import DataError, PromptError
from mobilesam_core.ops.frame import Frame
from mobilesam_core.ops.masks import mask_coverage, resize_masks

_CERTAINTY = 0.999
"""The probability that a mask file's pixels are taken to have: logits within ±6.9, as SAM's own are."""


def read_mask_prompt(path: Path, frame: Frame, orientation: int) -> np.ndarray:
    """``(S/4, S/4)`` float32 logits of a mask of the whole image, or of a ``.npy`` of logits.

    path: a mask image at the image's size (not 0 is object), or a ``.npy`` array of shape ``(S/4, S/4)`` or
    ``(1, S/4, S/4)``, such as earlier ``low_res_logits``. orientation: the image's EXIF orientation.

    Raises:
        PromptError: the file cannot be read, is of another size, or is not finite.
    """
    if path.suffix.lower() == ".npy":
        return _read_logits(path, frame.size // 4)
    try:
        mask = read_binary_mask(path, frame.original, orientation)
    except DataError as error:
        raise PromptError(error.message, error.remedy) from error
    return mask_logits(mask, frame)


def mask_logits(mask: np.ndarray, frame: Frame) -> np.ndarray:
    """A ``(H, W)`` bool mask as ``(S/4, S/4)`` float32 logits: log odds of the share of each cell it covers."""
    share = mask_coverage(resize_masks(mask[None], frame.scaled), frame.size, frame.size // 4)[0]
    likely = np.clip(share, 1 - _CERTAINTY, _CERTAINTY)
    return np.asarray(np.log(likely / (1 - likely)), np.float32)


def _read_logits(path: Path, side: int) -> np.ndarray:
    try:
        with path.open("rb") as file:  # not numpy.load, which also opens archives
            logits = np.lib.format.read_array(file, allow_pickle=False)
    except OSError as error:
        raise PromptError(f"The mask prompt {path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, EOFError) as error:
        raise PromptError(
            f"The mask prompt {path} is not a plain .npy array.", "Save it with numpy.save, without pickled objects."
        ) from error
    if logits.shape not in ((side, side), (1, side, side)):
        raise PromptError(
            f"The mask prompt {path} has the shape {logits.shape}; "
            f"this model's low-resolution logits are ({side}, {side}).",
            "Use the low_res_logits of the same model, or a mask image.",
        )
    if logits.dtype.kind not in "fiu" or not np.isfinite(logits).all():
        raise PromptError(f"The mask prompt {path} holds values that are not finite numbers.")
    return logits.reshape(side, side).astype(np.float32)
