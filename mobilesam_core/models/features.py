"""Features of an image encoder's inner levels, while it runs as ever."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mobilesam_core.errors import UsageError
from mobilesam_core.models.encoder import ImageEncoder
from mobilesam_core.ops.layout import NECK, Layout

_PROBE = 64  # the least frame that every encoder takes


class FeatureHookManager:
    """Keeps what levels of an encoder put out, with their gradients; leaving the context removes its hooks.

    ::

        with FeatureHookManager(model.image_encoder, ["blocks.8", "neck"]) as features:
            embeddings = model.encode(images)
            inner = features["blocks.8"]

    Each pass replaces the features of the one before.

    Args:
        levels: names of :func:`encoder_levels`.

    Raises:
        UsageError: there is no such level.
    """

    def __init__(self, encoder: ImageEncoder, levels: Sequence[str]) -> None:
        known = encoder_levels(encoder)
        if unknown := [level for level in levels if level not in known]:
            raise UsageError(f"This encoder has no level {unknown[0]}.", f"It has {', '.join(known)}.")
        self.layouts: Mapping[str, Layout] = {level: known[level][1] for level in levels}
        self._modules = {level: known[level][0] for level in levels}
        self._features: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> FeatureHookManager:
        for level, module in self._modules.items():

            def keep(_: nn.Module, __: tuple[Tensor, ...], output: Tensor, level: str = level) -> None:
                self._features[level] = output

            self._handles.append(module.register_forward_hook(keep))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._features.clear()

    def __getitem__(self, level: str) -> Tensor:
        """``(B, C, h, w)`` or ``(B, h, w, C)``, as ``layouts`` says, of the last pass."""
        return self._features[level]


def encoder_levels(encoder: ImageEncoder) -> dict[str, tuple[nn.Module, Layout]]:
    """Every level by name, from the image to the embedding: the module that puts it out, and its layout."""
    levels: dict[str, tuple[nn.Module, Layout]] = {}
    inner: tuple[tuple[str, Layout], ...] = (("blocks", "HWC"), ("stages", "CHW"))
    for name, layout in inner:
        for number, module in enumerate(getattr(encoder, name, ())):
            levels[f"{name}.{number}"] = (module, layout)
    levels[NECK] = (encoder.neck, "CHW")
    return levels


@torch.no_grad()
def level_shapes(encoder: ImageEncoder, levels: Sequence[str], image_size: int) -> dict[str, tuple[int, int, int]]:
    """``(C, h, w)`` of each level for a frame of ``image_size``, whatever its layout.

    Raises:
        UsageError: there is no such level.
    """
    weight = next(encoder.patch_embed.parameters())
    was_training = encoder.training
    encoder.eval()
    try:
        with FeatureHookManager(encoder, levels) as features:
            encoder(weight.new_zeros(1, weight.shape[1], _PROBE, _PROBE))
            shapes = {}
            for level, layout in features.layouts.items():
                found = features[level] if layout == "CHW" else features[level].permute(0, 3, 1, 2)
                shapes[level] = (found.shape[1], *(side * image_size // _PROBE for side in found.shape[2:]))
    finally:
        encoder.train(was_training)
    return shapes  # type: ignore[return-value]
