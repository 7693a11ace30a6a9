"""The ``lora:`` section."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mobilesam_core.config.base import Config

Part = Literal["image_encoder", "prompt_encoder", "mask_decoder"]


class LoraConfig(Config):
    """Small adapters learn, the weights they adapt do not (Hu et al., "LoRA", 2021).

    Parts that ``train.freeze`` freezes get no adapters.
    """

    rank: Annotated[int, Field(ge=1)] = 8
    """Width of an adapter: a layer of n inputs and m outputs gets ``rank * (n + m)`` numbers that learn."""
    alpha: Annotated[float, Field(gt=0)] = 16.0
    """An adapter's product counts ``alpha / rank``. Not tied to the rank, so that another rank wants no other
    ``optim.lr``."""
    targets: Annotated[list[str], Field(min_length=1)] = [
        "*.qkv",
        "*.proj",
        "*.q_proj",
        "*.k_proj",
        "*.v_proj",
        "*.out_proj",
        "*.mlp.*",
    ]
    """Linear layers that get one, by name; ``*`` stands for anything, dots included, as in ``image_encoder.*.qkv``.
    By default those of attention and of the MLPs between, in encoder and decoder. Convolutions get none."""
    full: list[Part] = []
    """Parts that learn all of their weights instead; they go into the adapter's file whole."""
