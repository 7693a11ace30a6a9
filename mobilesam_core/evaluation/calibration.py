"""Whether a model's own scores can be trusted: the IoU it predicts against the true one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

BIAS_LIMIT = 0.1
"""A mean predicted IoU that is further off than this is warned of."""

_EDGES = np.linspace(0, 1, 11)


@dataclass(frozen=True)
class Bin:
    """The objects whose predicted IoU is from ``low`` to below ``high``.

    predicted, iou: their mean predicted and mean true IoU; None without an object.
    """

    low: float
    high: float
    objects: int
    predicted: float | None
    iou: float | None


@dataclass(frozen=True)
class Calibration:
    """How predicted and true IoU of ``objects`` objects go together.

    ece: expected calibration error (Guo et al. 2017): mean over objects of the distance between the mean predicted and
    the mean true IoU of their bin. bias: mean predicted minus mean true IoU; above 0, the model thinks too well of its
    masks. bins: ten, equally wide.
    """

    objects: int
    ece: float
    bias: float
    bins: tuple[Bin, ...]


def calibrate(predicted: Sequence[float] | np.ndarray, ious: Sequence[float] | np.ndarray) -> Calibration:
    """Compare n > 0 predicted with the n true IoUs; predictions are raw, and those beyond [0, 1] count into the first
    and the last bin as they are."""
    predicted, ious = np.asarray(predicted, np.float64), np.asarray(ious, np.float64)
    assert predicted.shape == ious.shape and predicted.size
    numbers = np.digitize(predicted, _EDGES[1:-1])
    bins = []
    for number, (low, high) in enumerate(zip(_EDGES[:-1].round(1), _EDGES[1:].round(1), strict=True)):
        members = numbers == number
        means = [float(values[members].mean()) if members.any() else None for values in (predicted, ious)]
        bins.append(Bin(float(low), float(high), int(members.sum()), *means))
    distances = [each.objects * abs(each.predicted - each.iou) for each in bins
                 if each.predicted is not None and each.iou is not None]  # fmt: skip
    return Calibration(
        objects=predicted.size,
        ece=sum(distances) / predicted.size,
        bias=float(predicted.mean() - ious.mean()),
        bins=tuple(bins),
    )


def bias_warning(biases: Mapping[str, float]) -> str | None:
    """What to say of the biases by kind of prompt; None where none exceeds :data:`BIAS_LIMIT`."""
    off = [
        f"{abs(bias):.2f} too {'high' if bias > 0 else 'low'} ({kind})"
        for kind, bias in biases.items()
        if abs(bias) > BIAS_LIMIT
    ]
    if not off:
        return None
    return (
        f"The IoU that the model predicts for its own masks is on average {', '.join(off)}, more than {BIAS_LIMIT:g}: "
        "thresholds on it (--pred-iou-thresh) keep or drop the wrong masks; train longer or raise loss.iou."
    )
