"""From such a config to one of ours."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilesam_core.config.commented import wrapped
from mobilesam_core.config.finetune.account import OldConfig
from mobilesam_core.config.finetune.flat import LookAtMasks, read_flat
from mobilesam_core.config.finetune.nested import SECTIONS, read_nested
from mobilesam_core.config.loading import parse_yaml, validate
from mobilesam_core.config.train import TrainConfig
from mobilesam_core.errors import ConfigError

_REMEDY = "Pass a JSON config of MobileSAM_Finetune."


@dataclass(frozen=True)
class FinetuneConversion:
    """What became of a config.

    text: commented YAML. mapped: old key → new key. dropped: old key → why nothing stands for it. unknown: keys that
    MobileSAM_Finetune does not have.
    """

    text: str
    mapped: dict[str, str]
    dropped: dict[str, str]
    unknown: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {"mapped": self.mapped, "dropped": self.dropped, "unknown": list(self.unknown)}


def read_finetune(path: Path) -> str:
    """The text of an old config.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"Cannot read '{path}': {reason}.", _REMEDY) from error


def convert_finetune(text: str, name: str, look: LookAtMasks) -> FinetuneConversion:
    """Convert the JSON ``text``; every key is mapped, dropped with a reason, or named as unknown.

    name: of the file, for messages and the header. look: decides ``mask_mode`` of a flat config's masks.

    Raises:
        ConfigError: it is no config of MobileSAM_Finetune, names no training data, or says what no training can be.
    """
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"'{name}' is not JSON: {error}.", _REMEDY) from error
    if not isinstance(tree, dict):
        raise ConfigError(f"'{name}' holds no settings.", _REMEDY)
    old = OldConfig(tree)
    nested = any(isinstance(tree.get(section), dict) for section in SECTIONS if section != "freeze")
    if nested:
        read_nested(old)
    else:
        read_flat(old, look)
    if not old.mapped and not old.dropped:
        raise ConfigError(f"'{name}' has none of the keys that MobileSAM_Finetune knows.", _REMEDY)
    if old.new.get("data.train") is None:
        keys = "dataset.train_dataset" if nested else "train_img_dir and train_mask_dir"
        raise ConfigError(f"'{name}' names no training data.", f"Set {keys} in it and convert again.")
    written = old.new.yaml([*_header(name), *_account(old.dropped, old.rest)])
    outcome = f"What '{name}' becomes"
    validate(TrainConfig, parse_yaml(written, outcome), outcome)
    return FinetuneConversion(written, old.mapped, old.dropped, old.rest)


def _header(name: str) -> list[str]:
    return [
        f"MobileSAM_Finetune's {name}, converted by mobilesam config convert. Comments begin with the key there.",
        "Before training: mobilesam data check FILE, mobilesam data preview FILE. Every key: docs/config.md",
    ]


def _account(dropped: Mapping[str, str], unknown: tuple[str, ...]) -> list[str]:
    reasons: dict[str, dict[str, None]] = {}
    for key, why in dropped.items():
        reasons.setdefault(why, {})[re.sub(r"\[\d+\]", "[]", key)] = None
    lines = [line for why, keys in reasons.items() for line in wrapped(f"{', '.join(keys)}: {why}", "  ")]
    told = ["", "Dropped:", *lines] if lines else []
    return [*told, *(["", *wrapped(f"Unknown, and left out: {', '.join(unknown)}")] if unknown else [])]
