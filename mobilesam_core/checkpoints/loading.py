"""From a checkpoint to a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from pydantic import ValidationError

from mobilesam_core.checkpoints.adapter import apply_adapter, is_adapter
from mobilesam_core.checkpoints.download import OFFICIAL_WEIGHTS, fetch_weights
from mobilesam_core.checkpoints.keys import to_official
from mobilesam_core.checkpoints.thresholds import suggested_thresholds
from mobilesam_core.checkpoints.weights import WeightFile, load_weights, read_weights
from mobilesam_core.config.amg import AmgThresholds
from mobilesam_core.config.model import ModelConfig, ModelName
from mobilesam_core.errors import CheckpointError, UnreachableError, UsageError
from mobilesam_core.models.registry import SPECS, build_sam
from mobilesam_core.models.sam import Sam
from mobilesam_core.progress import NullReporter, Reporter

OFFICIAL = "official"
"""The checkpoint name that stands for the authors' weights, downloaded once."""
NANO = "nano"
"""The checkpoint name of the small weights that come with the package."""
_EMBEDDED = Path(__file__).parent / "embedded"


@dataclass(frozen=True)
class OpenedCheckpoint:
    """A model and where it came from; ``metadata`` is what the file says of itself (may be empty)."""

    model: Sam
    path: Path
    sha256: str
    metadata: dict[str, str]

    @property
    def amg_thresholds(self) -> AmgThresholds | None:
        """The thresholds that the file suggests for finding everything, if it does."""
        return suggested_thresholds(self.metadata, self.path)


def load_model(config: ModelConfig, reporter: Reporter | None = None) -> Sam:
    """Build the model of ``config`` with its weights, in evaluation mode, on the CPU.

    Raises:
        ConfigError: the architecture cannot be built.
        CheckpointError: the weights, or the adapter to merge into them, cannot be read or do not fit.
    """
    reporter = reporter or NullReporter()
    model = build_sam(config)
    if config.checkpoint is None:
        reporter.warning(
            f"{config.name} has random weights (checkpoint: null): its masks mean nothing before training."
        )
    else:
        file = _read_whole(resolve_checkpoint(config.checkpoint, config.name, reporter))
        load_weights(model, file)
        trained_at = file.metadata.get("image_size", str(model.image_size))
        if trained_at != str(model.image_size):
            reporter.info(f"{file.path} was made at image_size {trained_at}; this run uses {model.image_size}.")
    if config.adapter is not None:
        apply_adapter(model, Path(config.adapter).expanduser())
    return model.eval()


def open_checkpoint(
    checkpoint: str | Path,
    model_name: str | None = None,
    reporter: Reporter | None = None,
    image_size: int | None = None,
) -> OpenedCheckpoint:
    """Load a checkpoint whatever its architecture, in evaluation mode, on the CPU.

    The architecture is the one its metadata name (in the header of a ``.safetensors`` file, in the ``.json``
    beside a ``.pt``); else the one whose weights it holds, by names and shapes; else ``model_name``.

    Args:
        image_size: side of the input frame in pixels, a multiple of 64; None keeps the one the weights were made at.

    Raises:
        UsageError: such an image size cannot be.
        CheckpointError: the file cannot be read, or its architecture is unknown.
    """
    reporter = reporter or NullReporter()
    path = resolve_checkpoint(str(checkpoint), model_name or "vit_t", reporter)
    file = _read_whole(path)
    described = _config_of(file, model_name)
    try:
        changes = {
            "checkpoint": str(path),
            "image_size": described.image_size if image_size is None else image_size,
        }
        config = ModelConfig.model_validate(described.model_dump() | changes)
    except ValidationError as error:
        raise UsageError(f"An image size of {image_size} cannot be.", "It is a multiple of 64, at least 64.") from error
    model = build_sam(config)
    load_weights(model, file)
    return OpenedCheckpoint(model.eval(), path, file.sha256, file.metadata)


def resolve_checkpoint(checkpoint: str, model_name: str, reporter: Reporter) -> Path:
    """The file behind ``checkpoint``: a path, ``nano``, or ``official``, which is downloaded once and verified."""
    if checkpoint == NANO:
        return embedded_weights()
    if checkpoint != OFFICIAL:
        return Path(checkpoint).expanduser()
    if model_name not in OFFICIAL_WEIGHTS:
        raise CheckpointError(
            f"There is no official checkpoint of {model_name} to download.",
            f"Name a {model_name} file (.safetensors, .pt)"
            + (f", or '{NANO}', which comes with the package." if model_name == "vit_nano" else ".")
            + " To train from random weights, set model.checkpoint to null.",
        )
    return fetch_weights(OFFICIAL_WEIGHTS[model_name], reporter)


def embedded_weights() -> Path:
    """The file of :data:`NANO`."""
    return _EMBEDDED / "nano.safetensors"


def default_checkpoint(model_name: str | None, reporter: Reporter) -> str:
    """The weights to use when none are named.

    :data:`NANO` for vit_nano; else :data:`OFFICIAL`. For no model in particular, offline: :data:`NANO`, with a warning.
    """
    if model_name is not None:
        return NANO if model_name == "vit_nano" else OFFICIAL
    try:
        fetch_weights(OFFICIAL_WEIGHTS["vit_t"], reporter)
    except UnreachableError as error:
        reporter.warning(
            f"{error.message} The small weights 'nano' are used instead: they were trained on drawn shapes alone and "
            "are no match for MobileSAM's own on photographs. --checkpoint official says how to get those, "
            "--checkpoint nano asks for these."
        )
        return NANO
    return OFFICIAL


def _read_whole(path: Path) -> WeightFile:
    """The weights of a whole model, not of an adapter."""
    file = read_weights(path)
    if is_adapter(file):
        raise CheckpointError(
            f"{path} is an adapter, which needs the weights it was trained on.",
            f"Name the merged weights that its run wrote beside it ({path.name.replace('.lora.', '.')}).",
        )
    return file


def _config_of(file: WeightFile, model_name: str | None) -> ModelConfig:
    if "model" in file.metadata:
        try:
            return ModelConfig.model_validate_json(file.metadata["model"])
        except ValidationError as error:
            raise CheckpointError(
                f"{file.path} describes its model in a way this version does not know.", "Update mobilesam."
            ) from error
    name = _recognise(file) or model_name
    if name is None:
        raise CheckpointError(
            f"{file.path} does not say which model it is for; its weights fit none of {', '.join(SPECS)}.",
            "Name the model; a model with changed dimensions needs the description saved beside it.",
        )
    if name not in SPECS:
        raise UsageError(f"There is no model {name}.", f"Models: {', '.join(SPECS)}.")
    return ModelConfig.model_validate({"name": name})


def _recognise(file: WeightFile) -> ModelName | None:
    shapes = {key: value.shape for key, value in file.state.items()}
    for name in SPECS:
        # Without memory: only names and shapes are compared.
        with torch.device("meta"):
            expected = to_official(build_sam(ModelConfig(name=name, checkpoint=None)).state_dict())
        if {key: value.shape for key, value in expected.items()} == shapes:
            return name
    return None


def _build(name: ModelName, checkpoint: str | Path | None = None) -> Sam:
    """The named model in evaluation mode, with the weights of ``checkpoint``; without one, random weights."""
    return load_model(ModelConfig(name=name, checkpoint=None if checkpoint is None else str(checkpoint)))


build_sam_vit_t: Callable[..., Sam] = partial(_build, "vit_t")
build_sam_vit_b: Callable[..., Sam] = partial(_build, "vit_b")
build_sam_vit_l: Callable[..., Sam] = partial(_build, "vit_l")
build_sam_vit_h: Callable[..., Sam] = partial(_build, "vit_h")
build_sam_vit_nano: Callable[..., Sam] = partial(_build, "vit_nano")

sam_model_registry: Mapping[str, Callable[..., Sam]] = {
    "default": build_sam_vit_h,
    "vit_t": build_sam_vit_t,
    "vit_b": build_sam_vit_b,
    "vit_l": build_sam_vit_l,
    "vit_h": build_sam_vit_h,
    "vit_nano": build_sam_vit_nano,
}
"""Name to builder, as in segment_anything: ``sam_model_registry["vit_t"](checkpoint="mobile_sam.pt")``."""
