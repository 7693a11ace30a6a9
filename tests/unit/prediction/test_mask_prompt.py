from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mobilesam_core.errors import PromptError
from mobilesam_core.ops.drawing import write_png
from mobilesam_core.ops.frame import Frame
from mobilesam_core.prediction.mask_prompt import mask_logits, read_mask_prompt

FRAME = Frame.of(48, 96, 64)  # the image takes the upper half of the frame


def left_half() -> np.ndarray:
    mask = np.zeros((48, 96), bool)
    mask[:, :48] = True
    return mask


def test_logits_are_positive_on_the_mask_and_negative_elsewhere_padding_included() -> None:
    logits = mask_logits(left_half(), FRAME)
    assert logits.shape == (16, 16) and logits.dtype == np.float32
    assert (logits[:8, :8] > 6.9).all()
    assert (logits[:8, 8:] < -6.9).all() and (logits[8:] < -6.9).all()


def test_a_cell_covered_by_half_is_undecided() -> None:
    mask = np.zeros((64, 64), bool)
    mask[:, :30] = True
    assert mask_logits(mask, Frame.of(64, 64, 64))[3, 7] == pytest.approx(0.0)


def test_an_image_file_or_logits_of_the_right_shape(tmp_path: Path) -> None:
    write_png(tmp_path / "mask.png", left_half())
    from_image = read_mask_prompt(tmp_path / "mask.png", FRAME, orientation=1)
    assert np.array_equal(from_image, mask_logits(left_half(), FRAME))
    for shape in ((16, 16), (1, 16, 16)):
        np.save(tmp_path / "logits.npy", from_image.astype(np.float64).reshape(shape))
        assert np.array_equal(read_mask_prompt(tmp_path / "logits.npy", FRAME, 1), from_image)


def test_masks_that_cannot_be_used(tmp_path: Path) -> None:
    write_png(tmp_path / "small.png", np.zeros((10, 10), bool))
    np.save(tmp_path / "shape.npy", np.zeros((8, 8)))
    np.save(tmp_path / "nan.npy", np.full((16, 16), np.nan))
    np.save(tmp_path / "text.npy", np.full((16, 16), "x"))
    np.save(tmp_path / "pickle.npy", np.array([[object()]]), allow_pickle=True)
    np.savez(tmp_path / "archive", a=np.zeros((16, 16)))
    (tmp_path / "archive.npz").rename(tmp_path / "archive.npy")
    (tmp_path / "empty.npy").write_bytes(b"")
    for name, said in {
        "small.png": "10 x 10",
        "shape.npy": "(8, 8)",
        "nan.npy": "not finite",
        "text.npy": "not finite",
        "pickle.npy": "plain .npy",
        "archive.npy": "plain .npy",
        "empty.npy": "plain .npy",
        "missing.npy": "cannot be read",
        "missing.png": "does not exist",
    }.items():
        with pytest.raises(PromptError) as caught:
            read_mask_prompt(tmp_path / name, FRAME, orientation=1)
        assert name in caught.value.message and said in caught.value.message
