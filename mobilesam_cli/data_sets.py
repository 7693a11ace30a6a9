"""The data set of a training config that a command looks at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from mobilesam_core.errors import UsageError

if TYPE_CHECKING:
    from mobilesam_core.config.data import DataConfig, SetConfig


def set_of_config(
    config: str, split: Literal["train", "val"], overrides: Sequence[str]
) -> tuple[SetConfig, DataConfig]:
    """``data.train`` or ``data.val`` of a config, and the section that it is in.

    Raises:
        UsageError: it is not there, has no labels, or is a mix, in which images repeat and classes mean several things.
        ConfigError: the config cannot be used.
    """
    from mobilesam_core.config.loading import load_train_config

    data = load_train_config(config, overrides).data
    chosen = data.val if split == "val" else data.train
    if chosen is None:
        raise UsageError(f"The config '{config}' has no data.val.", "Use --split train, or name the data by options.")
    if chosen.format == "images":
        raise UsageError(f"The images of data.{split} have no labels.", "Use --split val.")
    if chosen.format == "mix":
        raise UsageError(f"data.{split} is a mix of sets.", "Name one of its sets, by options or in a config.")
    return chosen, data
