"""Teachers' features of the training images, read from their stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mobilesam_core.distillation.teacher import Teacher, feature_name
from mobilesam_core.errors import DataError, UsageError
from mobilesam_core.files import file_sha256
from mobilesam_core.ops.frame import Frame
from mobilesam_core.ops.layout import channels_first
from mobilesam_core.ops.placement import Placement, place_features
from mobilesam_core.progress import Reporter
from mobilesam_core.stores.features import FeatureStore
from mobilesam_core.stores.producer import Producer

_LISTED = 50  # names in one message; more would hide what it says


@dataclass(frozen=True)
class TeacherStore:
    """One teacher's store, and the levels that are read from it."""

    teacher: Teacher
    store: FeatureStore
    levels: Sequence[str]


class TeacherFeatures:
    """The :class:`~mobilesam_core.data.training_set.StoredFeatures` of several teachers.

    Args:
        images: the image files; each is hashed once, so one that has changed since is found now.

    Raises:
        UsageError: a store was made by another teacher.
        DataError: a store is broken, or lacks images or has them in another version; up to 50 are named.
    """

    def __init__(self, stores: Sequence[TeacherStore], images: Sequence[str], reporter: Reporter) -> None:
        self._stores = stores
        self._sha256: dict[str, str] = {}
        for each in stores:
            if what := Producer.of(each.teacher.model).difference(each.store.producer):
                raise UsageError(
                    f"{each.store.folder} holds features made by {what}.",
                    "Name the teacher they were made with, or extract them anew into another folder.",
                )
        with reporter.task("Looking for stored features", len(images), "images") as task:
            for image in images:
                self._sha256[image] = _sha256(image)
                task.advance()
        for each in stores:
            self._require_all(each)

    def _require_all(self, each: TeacherStore) -> None:
        entries = each.store.entries
        missing = [
            image
            for image, sha256 in self._sha256.items()
            if sha256 not in entries or any(level not in entries[sha256].levels for level in each.levels)
        ]
        if missing:
            listed = "\n  ".join(missing[:_LISTED])
            if len(missing) > _LISTED:
                listed += f"\n  … and {len(missing) - _LISTED} more"
            levels = " and ".join(each.levels)
            raise DataError(
                f"{each.store.folder} lacks {levels} of {len(missing)} image(s), or they have changed:\n  {listed}",
                "Run mobilesam distill extract with this config; it makes only what is missing.",
            )

    def verify(self, reporter: Reporter) -> None:
        """Read every feature once.

        Raises:
            DataError: a file of a store is broken.
        """
        with reporter.task("Checking stored features", len(self._sha256), "images") as task:
            for image in self._sha256:
                self.read(image)
                task.advance()

    def read(self, source: str, placement: Placement | None = None) -> Mapping[str, Tensor]:
        """See :class:`~mobilesam_core.data.training_set.StoredFeatures`."""
        found = {}
        sha256 = self._sha256[source]
        for each in self._stores:
            entry = each.store.entries[sha256]
            frame = Frame.of(*entry.original_size, each.store.producer.image_size)
            for name in each.levels:
                level = entry.levels[name]
                features = channels_first(torch.from_numpy(level.read()), level.layout)
                if placement is not None:
                    features = place_features(features, frame, placement)
                found[feature_name(each.teacher.name, name)] = features
        return found


def _sha256(image: str) -> str:
    try:
        return file_sha256(Path(image))
    except OSError as error:
        raise DataError(f"{image} cannot be read ({error.strerror}).", "Restore it, or leave it out.") from error
