"""From a set's config to its samples."""

from __future__ import annotations

from pathlib import Path

from mobilesam_core.config.data import (
    CocoConfig,
    FolderConfig,
    ImagesConfig,
    LabelmeConfig,
    MixConfig,
    Sa1bConfig,
    SetConfig,
    TrainSetConfig,
    YoloConfig,
)
from mobilesam_core.data.coco import CocoSource
from mobilesam_core.data.folder import FolderSource
from mobilesam_core.data.images import ImagesSource
from mobilesam_core.data.labelme import LabelmeSource
from mobilesam_core.data.mix import MixSource
from mobilesam_core.data.sa1b import Sa1bSource
from mobilesam_core.data.sample import SampleSource
from mobilesam_core.data.shapes import ShapesSource
from mobilesam_core.data.yolo import YoloSource
from mobilesam_core.errors import ConfigError


def build_source(config: SetConfig | TrainSetConfig, root: Path, channels: int = 3) -> SampleSource:
    """The samples ``config`` describes; its paths are relative to ``root``.

    Args:
        channels: of the images: 3 for RGB, 1 for grey.

    Raises:
        ConfigError: image files have neither 1 nor 3 channels to give.
        DataError: a folder or annotation file is missing or unusable as a whole. A single bad file raises
            when it is read.
    """
    if channels not in (1, 3):
        raise ConfigError(
            f"Image files give 1 channel (grey) or 3 (RGB), not {channels}.",
            "Set model.encoder.input_channels to 1 or 3, or feed the model from Python.",
        )
    if isinstance(config, FolderConfig):
        return FolderSource(config, root, channels)
    if isinstance(config, CocoConfig):
        return CocoSource(config, root, channels)
    if isinstance(config, Sa1bConfig):
        return Sa1bSource(config, root, channels)
    if isinstance(config, YoloConfig):
        return YoloSource(config, root, channels)
    if isinstance(config, LabelmeConfig):
        return LabelmeSource(config, root, channels)
    if isinstance(config, MixConfig):
        sources = [build_source(each.set, root, channels) for each in config.sets]
        return MixSource(sources, [each.weight for each in config.sets], config.count)
    if isinstance(config, ImagesConfig):
        return ImagesSource(config, root, channels)
    return ShapesSource(config, channels)
