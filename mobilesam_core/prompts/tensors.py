"""Prompts as the model reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mobilesam_core.prompts.correction import Click
from mobilesam_core.prompts.types import ABSENT, Prompt, prompt_arrays


class PromptTensors(NamedTuple):
    """N prompts as the prompt encoder reads them.

    points: ``(N, T, 2)`` float32, ``(x, y)`` in pixels of the model's input frame.
    labels: ``(N, T)`` int64 of the constants above; a short prompt ends in :data:`ABSENT`.
    masks: ``(N, 1, h, w)`` float32 low-resolution logits, or None when no prompt has one.
    has_mask: ``(N,)`` bool: which rows of ``masks`` are real; None exactly when ``masks`` is.
    """

    points: Tensor
    labels: Tensor
    masks: Tensor | None = None
    has_mask: Tensor | None = None

    def __len__(self) -> int:
        return self.points.shape[0]

    @property
    def absent(self) -> Tensor | None:
        """``(N, T)`` bool, which tokens only fill short prompts up; None if it is sure that none does."""
        absent = self.labels == ABSENT
        # A mask that hides nothing slows a CPU down; on a GPU, looking would mean waiting for the device.
        return absent if absent.device.type != "cpu" or bool(absent.any()) else None

    def scaled(self, ratio: float) -> PromptTensors:
        """The same prompts, none with a mask, in a frame ``ratio`` times as large.

        Points and corners keep the place, from 0 to 1, that the prompt encoder sees: it adds half a pixel to both.
        """
        assert self.masks is None
        return PromptTensors((self.points + 0.5) * ratio - 0.5, self.labels)

    def to(self, device: torch.device, non_blocking: bool = False) -> PromptTensors:
        return PromptTensors(
            *(None if t is None else t.to(device, non_blocking=non_blocking) for t in self)  # type: ignore[arg-type]
        )


def add_clicks(prompts: PromptTensors, clicks: Sequence[Click | None], scale: float) -> PromptTensors:
    """``prompts``, each with its click, in pixels that are ``scale`` pixels of the frame wide; None adds none."""
    xy = torch.tensor([click.point if click else (0.0, 0.0) for click in clicks], device=prompts.points.device)
    labels = torch.tensor([click.label if click else ABSENT for click in clicks], device=prompts.labels.device)
    placed = (xy.reshape(-1, 2) + 0.5) * scale - 0.5
    return PromptTensors(
        torch.cat([prompts.points, placed[:, None]], dim=1),
        torch.cat([prompts.labels, labels[:, None]], dim=1),
        prompts.masks,
        prompts.has_mask,
    )


def prompt_tensors(prompts: Sequence[Prompt]) -> PromptTensors:
    """Collate prompts (all in the model's input frame) into tensors."""
    return PromptTensors(*(None if each is None else torch.from_numpy(each) for each in prompt_arrays(prompts)))  # type: ignore[arg-type]
