"""From a set's config to its samples."""

from __future__ import annotations

from collections.abc import Mapping
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
from mobilesam_core.data.faults import Faults, OnFault
from mobilesam_core.data.folder import FolderSource
from mobilesam_core.data.images import ImagesSource
from mobilesam_core.data.labelme import LabelmeSource
from mobilesam_core.data.mix import MixSource
from mobilesam_core.data.sa1b import Sa1bSource
from mobilesam_core.data.sample import SampleSource
from mobilesam_core.data.shapes import ShapesSource
from mobilesam_core.data.yolo import YoloSource
from mobilesam_core.errors import ConfigError


def build_source(
    config: SetConfig | TrainSetConfig, root: Path, channels: int = 3, on_fault: OnFault | None = None
) -> SampleSource:
    """The samples ``config`` describes; its paths are relative to ``root``.

    Args:
        channels: of the images: 3 for RGB, 1 for grey.
        on_fault: told of each file or entry that belongs to no sample, and of each set of a mix that cannot be used;
            the others make the set. None: these are an error.

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
        return FolderSource(config, root, channels, on_fault)
    if isinstance(config, CocoConfig):
        return CocoSource(config, root, channels, on_fault)
    if isinstance(config, Sa1bConfig):
        return Sa1bSource(config, root, channels, on_fault)
    if isinstance(config, YoloConfig):
        return YoloSource(config, root, channels, on_fault)
    if isinstance(config, LabelmeConfig):
        return LabelmeSource(config, root, channels, on_fault)
    if isinstance(config, MixConfig):
        return _mix(config, root, channels, on_fault)
    if isinstance(config, ImagesConfig):
        return ImagesSource(config, root, channels)
    return ShapesSource(config, channels)


def class_names(config: SetConfig | TrainSetConfig, source: SampleSource) -> Mapping[int, str] | None:
    """Names of the classes that the labels of ``source`` are, as far as it has any; None where labels are mere numbers
    of objects, or mean something else in each set of a mix."""
    if isinstance(source, CocoSource | YoloSource | LabelmeSource):
        return source.categories
    return {} if isinstance(config, FolderConfig) and config.mask_mode == "classes" else None


def count_unannotated(source: SampleSource) -> int | None:
    """How many images are left out since they have no object; None where that is not allowed, or in a mix."""
    return source.unannotated if isinstance(source, CocoSource | Sa1bSource | YoloSource | LabelmeSource) else None


def _mix(config: MixConfig, root: Path, channels: int, on_fault: OnFault | None) -> MixSource:
    sources, weights = [], []
    faults = Faults()
    for each in config.sets:
        with faults.catch():
            sources.append(build_source(each.set, root, channels, on_fault))
            weights.append(each.weight)
    faults.settle(on_fault if sources else None)
    return MixSource(sources, weights, config.count)
