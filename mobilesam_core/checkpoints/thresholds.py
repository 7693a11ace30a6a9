"""Which thresholds weights suggest for finding everything, in the metadata of their file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from mobilesam_core.checkpoints.weights import add_metadata, read_metadata
from mobilesam_core.config.amg import AmgThresholds
from mobilesam_core.errors import CheckpointError

_KEY = "amg_thresholds"


def suggested_thresholds(metadata: Mapping[str, str], path: Path) -> AmgThresholds | None:
    """What the ``metadata`` of ``path`` suggest; None if they do not.

    Raises:
        CheckpointError: they are not thresholds.
    """
    if _KEY not in metadata:
        return None
    try:
        return AmgThresholds.model_validate_json(metadata[_KEY])
    except ValidationError as error:
        raise CheckpointError(
            f"{path} suggests thresholds for amg in a way this version does not know ({metadata[_KEY][:80]!r}).",
            "Update mobilesam.",
        ) from error


def suggests_thresholds(path: Path) -> bool:
    """Whether a ``.safetensors`` file suggests any."""
    return _KEY in read_metadata(path)


def suggest_thresholds(path: Path, thresholds: AmgThresholds) -> None:
    """Let a ``.safetensors`` file of weights suggest these.

    Raises:
        CheckpointError: the file cannot be read.
        OutputError: it cannot be written; it is as it was.
    """
    add_metadata(path, {_KEY: thresholds.model_dump_json()})
