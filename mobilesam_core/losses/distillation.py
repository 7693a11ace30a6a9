"""How far a student is from its teacher: features, masks, tokens.

Every loss is 0 where the two agree, and none has a gradient for the teacher.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from mobilesam_core.errors import UsageError
from mobilesam_core.losses.mask import focal_loss
from mobilesam_core.ops.layout import Layout, channels_first

FeatureLossKind = Literal["mse", "l1", "smooth_l1", "cosine"]


class FeatureDistillationLoss(nn.Module):
    """Distance of one level of a student's encoder to one of its teacher's.

    Where they have different numbers of channels, a 1x1 convolution that learns along brings the student's to the
    teacher's; where their grids differ, the student's is resized bilinearly, if that was asked for. (Hinton et al.,
    "Distilling the Knowledge in a Neural Network", 2015; Romero et al., "FitNets", 2015; the mean squared error on
    the embedding is Zhang et al.'s of MobileSAM, 2023.)

    Args:
        student, teacher: ``(C, h, w)`` of each, whatever its layout.
        kind: ``cosine`` is 1 - the cosine of the two feature vectors at a place; the others compare each number.
        resize: the student's features may be brought to the teacher's grid.
        student_layout, teacher_layout: order of the axes of what :meth:`forward` gets.

    Raises:
        UsageError: the grids differ, and ``resize`` is off.
    """

    def __init__(
        self,
        student: tuple[int, int, int],
        teacher: tuple[int, int, int],
        kind: FeatureLossKind = "mse",
        *,
        resize: bool = False,
        student_layout: Layout = "CHW",
        teacher_layout: Layout = "CHW",
    ) -> None:
        super().__init__()
        if student[1:] != teacher[1:] and not resize:
            ours, theirs = (" x ".join(map(str, shape)) for shape in (student, teacher))
            raise UsageError(
                f"The student's features are {ours} (channels, height, width), the teacher's {theirs}.",
                "Compare levels of one grid, or set resize.",
            )
        self.kind, self._grid = kind, teacher[1:]
        self._layouts: tuple[Layout, Layout] = (student_layout, teacher_layout)
        self.projection: nn.Module = nn.Identity()
        if student[0] != teacher[0]:
            self.projection = nn.Conv2d(student[0], teacher[0], 1)

    def forward(self, student: Tensor, teacher: Tensor, valid: Tensor | None = None) -> Tensor:
        """The distance, a scalar: the mean over images, places and (but for ``cosine``) channels.

        student, teacher: features of B images, each in its layout.
        valid: ``(B, h, w)`` bool, the places of the teacher's grid that count; None: all.
        """
        ours, theirs = (channels_first(x, layout) for x, layout in zip((student, teacher), self._layouts, strict=True))
        ours = self.projection(ours)
        if ours.shape[-2:] != self._grid:
            ours = F.interpolate(ours, self._grid, mode="bilinear", align_corners=False)
        return feature_distance(ours, theirs, self.kind, 1, valid)


def feature_distance(
    student: Tensor, teacher: Tensor, kind: FeatureLossKind, dim: int, valid: Tensor | None = None
) -> Tensor:
    """Mean distance of two tensors of one shape, in float32.

    dim: the axis of the features, which ``cosine`` compares along. valid: bool, the shape without ``dim``: what counts.
    """
    # Sums of many half-precision squares would not be exact.
    ours, theirs = student.float(), teacher.detach().float()
    if kind == "cosine":
        distance = 1 - F.cosine_similarity(ours, theirs, dim=dim)
    else:
        compare = {"mse": F.mse_loss, "l1": F.l1_loss, "smooth_l1": F.smooth_l1_loss}[kind]
        distance = compare(ours, theirs, reduction="none").mean(dim)
    return distance.mean() if valid is None else (distance * valid).sum() / valid.sum().clamp(min=1)


def mask_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """``T² · KL(teacher ‖ student)`` of each pixel's being mask, mean over pixels; logits ``(..., H, W)`` to ``(...)``.

    The factor keeps gradients of different temperatures T comparable (Hinton et al. 2015, §2).
    """
    ours, theirs = student.float() / temperature, teacher.detach().float() / temperature
    wanted = theirs.sigmoid()
    divergence = F.binary_cross_entropy_with_logits(ours, wanted, reduction="none")
    divergence = divergence - F.binary_cross_entropy_with_logits(theirs, wanted, reduction="none")
    return temperature**2 * divergence.mean(dim=(-2, -1))


def mask_focal_dice(student: Tensor, teacher: Tensor, focal_weight: float = 20.0, gamma: float = 2.0) -> Tensor:
    """Focal and Dice loss to the teacher's probabilities; logits ``(..., H, W)`` to ``(...)``.

    Dice in the form with squares, ``1 - 2·Σps / (Σp² + Σs²)`` (Milletari et al., "V-Net", 2016): the one of binary
    masks is not 0 for two equal soft ones.
    """
    ours, wanted = student.float(), teacher.detach().float().sigmoid()
    probabilities = ours.sigmoid()
    overlap = 2 * (probabilities * wanted).sum(dim=(-2, -1)) + 1
    total = (probabilities.square() + wanted.square()).sum(dim=(-2, -1)) + 1
    return focal_weight * focal_loss(ours, wanted, 0.5, gamma) + 1 - overlap / total


def token_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """``T² · KL(teacher ‖ student)`` of tokens ``(N, T, D)`` read as distributions over D; a scalar."""
    ours, theirs = (x.float() / temperature for x in (student, teacher.detach()))
    divergence = F.kl_div(ours.log_softmax(-1), theirs.log_softmax(-1), reduction="none", log_target=True).sum(-1)
    return temperature**2 * divergence.mean()
