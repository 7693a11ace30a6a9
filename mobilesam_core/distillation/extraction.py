"""``mobilesam distill extract CONFIG``: what a training will read from its stores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from mobilesam_core.config.precision import Precision
from mobilesam_core.config.train import TrainConfig
from mobilesam_core.data.build import build_source
from mobilesam_core.distillation.teacher import LevelExtractor, open_teacher
from mobilesam_core.embedding.workflow import EmbedResult, store_features
from mobilesam_core.errors import UsageError
from mobilesam_core.jobs.inputs import WHOLE, ImageFile, Shard
from mobilesam_core.jobs.names import distinct_names
from mobilesam_core.progress import Reporter


@dataclass(frozen=True)
class Extracted:
    """What was stored of one teacher, and where."""

    teacher: str
    store: Path
    result: EmbedResult


def extract_for_training(
    config: TrainConfig,
    *,
    device: torch.device,
    precision: Precision = "32",
    shard: Shard = WHOLE,
    reporter: Reporter,
) -> list[Extracted]:
    """Store the levels that ``config.distill`` reads, of the images of ``data.train``, for each teacher with a store.

    Raises:
        UsageError: no teacher has a store; or as :func:`store_features` says.
    """
    distill = config.distill
    due = [] if distill is None else [each for each in distill.teachers if each.store and distill.levels_of(each)]
    if distill is None or not due:
        raise UsageError(
            "The config has no teacher whose features are to be stored.",
            "Name a folder for them (distill.teachers[].store) and what to keep (features, or distill.masks).",
        )
    data = config.data
    source = build_source(data.train, data.root, config.model.encoder.input_channels or 3)
    paths = list(dict.fromkeys(Path(source.describe(i)) for i in range(len(source))))  # a mix may repeat some
    images = [ImageFile(path, name) for path, name in zip(paths, distinct_names(paths), strict=True)]
    extracted = []
    for each in due:
        assert each.store is not None
        runtime = open_teacher(
            each.checkpoint,
            reporter,
            model_name=each.model,
            image_size=each.image_size,
            device=device,
            precision=precision,
        )
        extractor = LevelExtractor(runtime, distill.levels_of(each))
        result = store_features(
            images, extractor, each.store, shard=shard, title=f"Extracting {each.name}", reporter=reporter
        )
        extracted.append(Extracted(each.name, each.store, result))
    return extracted
