from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mobilesam_core.ops.frame import Frame
from mobilesam_core.ops.resize import restore_masks
from mobilesam_core.ops.upscale import MaskUpscaler, Measured, interpolation
from mobilesam_core.runtime.torch_runtime import count_all

# The last has masks of many stripes, with a middle that need not be computed.
SHAPES = [(150, 200), (97, 31), (1, 64), (64, 64), (700, 20), (40, 513), (2000, 1500)]


def _logits(m: int, seed: int = 0) -> torch.Tensor:
    """Bumps here and there on a low ground, as masks are."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    middles = torch.rand(m, 2, 1, 1, generator=generator) * 32
    widths = torch.rand(m, 1, 1, generator=generator) * 6 + 1
    bumps = 8 * torch.exp(-((x - middles[:, 0]) ** 2 + (y - middles[:, 1]) ** 2) / widths**2)
    return bumps - 4 + 0.3 * torch.randn(m, 32, 32, generator=generator)


def _expected(full: torch.Tensor, threshold: float, offset: float) -> tuple[int, list[int], float]:
    mask = full > threshold
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    box = [int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])] if mask.any() else [0, 0, 0, 0]
    inner, outer = (int((full > level).sum()) for level in (threshold + offset, threshold - offset))
    return int(mask.sum()), box, inner / outer if outer else float("nan")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("threshold", [0.0, 1.5, 30.0, -30.0])
@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_it_measures_what_restoring_the_whole_mask_would_show(
    shape: tuple[int, int], threshold: float, convert: Callable[[np.ndarray], Any]
) -> None:
    frame = Frame.of(*shape, 128)
    upscaler = MaskUpscaler(frame, 32, convert)
    logits = _logits(12)
    given = convert(logits.numpy())
    full = restore_masks(logits[:, None], frame)[:, 0]
    measured = upscaler.measure(given, threshold, 1.0)
    rows, columns = map(torch.from_numpy, interpolation(frame, 32))
    together = Measured.of(count_all(rows @ logits @ columns.mT, threshold, 1.0).numpy())
    for i, values in enumerate(full):
        area, box, stability = _expected(values, threshold, 1.0)
        assert int(measured.areas[i]) == area == int(together.areas[i])
        assert measured.boxes[i].tolist() == box == together.boxes[i].tolist()
        assert float(measured.stability[i]) == pytest.approx(stability, nan_ok=True)
        assert np.array_equal(upscaler.mask(given[i], threshold), (values > threshold).numpy())


def test_nothing_is_measured_of_no_masks() -> None:
    upscaler = MaskUpscaler(Frame.of(20, 30, 128), 32)
    measured = upscaler.measure(np.empty((0, 32, 32), np.float32), 0.0, 1.0)
    assert measured.areas.shape == (0,) and measured.boxes.shape == (0, 4) and measured.stability.shape == (0,)
