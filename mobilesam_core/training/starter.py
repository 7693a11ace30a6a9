"""``mobilesam config init``: a first training config for somebody's data, on this machine."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mobilesam_core.checkpoints.download import OFFICIAL_WEIGHTS, cached_weights
from mobilesam_core.config.commented import Draft, wrapped
from mobilesam_core.config.data import AugmentConfig, DataConfig, FileSetConfig
from mobilesam_core.config.loading import parse_yaml, validate
from mobilesam_core.config.model import ModelName
from mobilesam_core.config.train import TrainConfig, as_name
from mobilesam_core.data.build import build_source
from mobilesam_core.data.check.looking import Look, Objects, look_at
from mobilesam_core.data.recognise.workflow import RecognisedData, recognise
from mobilesam_core.data.sample import SampleSource
from mobilesam_core.data.subset import Subset, spread
from mobilesam_core.data.verify import visit
from mobilesam_core.data.view import largest_factor
from mobilesam_core.errors import DataError
from mobilesam_core.files import require_free, write_text
from mobilesam_core.machine import available_cores, has_fast_bfloat16, total_memory
from mobilesam_core.models.registry import SPECS
from mobilesam_core.prediction.device import resolve_device
from mobilesam_core.progress import NullReporter, Reporter

_LOOKED_AT = 256  # images of a set
_CPU_STEPS, _GPU_STEPS = 400, 3000  # about how long a first training is
_MOST_CPU_STEPS = 2000
_WANTED_SIDE = 24.0  # pixels of the input, 6 of the mask: what a small object should have
_GIB = 2**30


@dataclass(frozen=True)
class Hardware:
    """What a training would run on.

    device: ``cpu`` or ``cuda``. memory: of the GPU, or of the machine, in bytes; None where unknown. bf16: whether
    bfloat16 is faster there. official: whether the weights of vit_t are here already.
    """

    device: str
    memory: int | None
    bf16: bool
    official: bool

    @staticmethod
    def of_this_machine() -> Hardware:
        """What ``train.device: auto`` would take."""
        official = cached_weights(OFFICIAL_WEIGHTS["vit_t"]) is not None
        device = resolve_device("auto").type
        if device != "cuda":
            return Hardware(device, total_memory(), has_fast_bfloat16(), official)
        memory = torch.cuda.get_device_properties(0).total_memory
        return Hardware(device, memory, torch.cuda.is_bf16_supported(), official)

    def describe(self) -> str:
        """In a few words."""
        memory = "" if self.memory is None else f", {self.memory / _GIB:.0f} GiB of memory"
        if self.device == "cuda":
            return f"{torch.cuda.get_device_name(0)}{memory}"
        cores = available_cores()
        return f"{cores} CPU {'core' if cores == 1 else 'cores'}{memory}"


@dataclass(frozen=True)
class MeasuredSet:
    """A set as far as it was looked at.

    size: its images. objects: of each image that was looked at and can be used. faults: of the others, a sentence each.
    """

    size: int
    objects: tuple[Objects, ...]
    faults: tuple[str, ...]

    @property
    def looked_at(self) -> int:
        return len(self.objects) + len(self.faults)

    @property
    def counts(self) -> np.ndarray:
        return np.array([len(each.areas) for each in self.objects])

    @property
    def sides(self) -> np.ndarray:
        """The sides of squares of the objects' areas, in pixels of the image."""
        return np.sqrt(np.concatenate([each.areas for each in self.objects]))

    def describe(self, verb: str) -> str:
        """``120 images with 4345 objects to train on``."""
        whole = self.looked_at == self.size
        objects = f"{self.counts.sum()} objects" if whole else f"about {self.counts.mean():.1f} objects each"
        return f"{self.size} images with {objects} to {verb}"


@dataclass(frozen=True)
class StarterConfig:
    """A config that was written, and what it goes by."""

    path: Path
    data: RecognisedData
    config: TrainConfig
    train: MeasuredSet
    val: MeasuredSet | None
    remarks: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain types for JSON."""
        sets = {"train": self.train} if self.val is None else {"train": self.train, "val": self.val}
        return {
            "config": str(self.path),
            "format": self.data.train.format,
            "told_by": self.data.why,
            "sets": {
                name: {
                    "images": each.size,
                    "looked_at": each.looked_at,
                    "unusable": len(each.faults),
                    "objects": int(each.counts.sum()),
                }
                for name, each in sets.items()
            },
            "remarks": list(self.remarks),
        }


def write_starter(
    place: Path,
    out: Path,
    *,
    overwrite: bool = False,
    hardware: Hardware | None = None,
    reporter: Reporter | None = None,
) -> StarterConfig:
    """Look at the data in ``place`` and write a commented YAML that trains on it as it is.

    hardware: None is this machine.

    Raises:
        UsageError: ``out`` is there already, or ``place`` holds no one set.
        DataError: the data cannot be told, or cannot be used.
        OutputError: ``out`` cannot be written.
    """
    require_free(out, overwrite)
    reporter = reporter or NullReporter()
    hardware = hardware or Hardware.of_this_machine()
    data = recognise(place)
    train = _measure(data.train, data.root, reporter, "Looking at train")
    val = None if data.val is None else _measure(data.val, data.root, reporter, "Looking at val")
    remarks = [*data.remarks, *_faults(train, val)]
    draft = _draft(data, train, val, hardware)
    text = draft.yaml(_header(place, out, data, train, val, hardware, draft, remarks))
    config = validate(TrainConfig, parse_yaml(text, str(out)), str(out))
    write_text(out, text)
    return StarterConfig(out, data, config, train, val, tuple(remarks))


def _measure(config: FileSetConfig, root: Path, reporter: Reporter, description: str) -> MeasuredSet:
    source: SampleSource = build_source(config, root)
    some = Subset(source, spread(len(source), _LOOKED_AT))
    look = partial(look_at, some, channels=3, trained_on=None, size=0)
    looks: list[Look] = list(visit(some, reporter, description, look).values())
    faults = tuple(fault.message for each in looks for fault in each.faults[:1])
    objects = tuple(each.objects for each in looks if each.objects is not None)
    if not objects:
        raise DataError(f"None of the images that were looked at can be used: {faults[0]}", "Repair the data.")
    return MeasuredSet(len(source), objects, faults)


def _faults(train: MeasuredSet, val: MeasuredSet | None) -> list[str]:
    faults = [*train.faults, *(val.faults if val else ())]
    if not faults:
        return []
    return [
        f"{len(faults)} of the images that were looked at cannot be used and are passed over, the first: {faults[0]} "
        "`mobilesam data check` lists all."
    ]


def _draft(data: RecognisedData, train: MeasuredSet, val: MeasuredSet | None, hardware: Hardware) -> Draft:
    draft = Draft()
    gpu = hardware.device == "cuda"
    name: ModelName = "vit_t" if gpu and hardware.official else "vit_nano"
    side = SPECS[name].image_size
    draft.set("model.name", name, _about_model(name, gpu))
    draft.set("model.checkpoint", "official" if name == "vit_t" else "nano")
    draft.set("model.image_size", side, "a multiple of 64: larger finds smaller objects and takes longer")
    keeps_all = _set_data(draft, data, train, side)
    measured = [train] if val is None else [train, val]
    if any(each.faults for each in measured):
        draft.set("data.on_bad_file", "skip", "some images cannot be used; stop, the default, ends at any")
    elif not keeps_all:
        about = "in some images all objects are too small for this image_size; stop, the default, ends at any"
        draft.set("data.on_bad_file", "skip", about)
    elif any(each.looked_at < each.size for each in measured):
        about = f"{_LOOKED_AT} of a set were looked at; stop, the default, ends at a bad one"
        draft.set("data.on_bad_file", "skip", about)
    if name == "vit_nano":  # as nano was made, and the examples fine-tune it
        draft.set("prompts.point_mode", "mixed")
        draft.set("prompts.box_noise", 0.05)
        for loss, weight in (("focal", 0.0), ("bce", 1.0), ("dice", 1.0), ("iou", 0.5)):
            draft.set(f"loss.{loss}", weight)
    crowded = float(np.quantile(train.counts, 0.95)) > 8
    batch = _batch_size(hardware, crowded)
    _set_length(draft, train.size, val, batch, gpu)
    draft.set("optim.lr", 1e-4 if name == "vit_t" else 5e-4)
    if name == "vit_t":
        draft.set("optim.layer_decay", 0.8, "layers near the image learn more slowly")
    draft.set("optim.warmup_steps", 20 if not gpu else 50)
    draft.set("optim.batch_size", batch, "images; where memory runs out: 1")
    if hardware.bf16:
        draft.set("train.precision", "bf16", "this machine is faster in it than in 32")
    return draft


def _about_model(name: ModelName, gpu: bool) -> str:
    if name == "vit_t":
        return "MobileSAM, from its official weights"
    slow = "" if gpu else ", slow without a GPU"
    return f"small; or MobileSAM itself: name vit_t, checkpoint official (39 MB, downloaded once{slow})"


def _set_data(draft: Draft, data: RecognisedData, train: MeasuredSet, side: int) -> bool:
    """Set the data section; whether every image that was looked at has an object large enough to be trained on."""
    draft.set("data.root", str(data.root), "may be moved: --set data.root=/elsewhere")
    for split, config in (("train", data.train), ("val", data.val)):
        if config is not None:
            tree = config.model_dump(mode="json", exclude_defaults=True)
            draft.set(f"data.{split}", tree, data.why if split == "train" else "")
    longest = float(np.median([max(each.shape) for each in train.objects]))
    small = float(np.quantile(train.sides, 0.25)) * side / longest
    crop = None
    if small < _WANTED_SIDE:
        crop = max(64, int(longest * max(small / _WANTED_SIDE, 0.25) / 32) * 32)
    most = max(4, min(16, math.ceil(np.quantile(train.counts, 0.95))))
    draft.set("data.max_objects", most, "of an image in one step, drawn anew each time")
    augment: dict[str, Any] = {"crop": crop} if crop is not None and crop < longest else {}
    augment |= {"scale": [0.8, 1.6], "horizontal_flip": 0.5, "brightness": 0.2, "contrast": 0.2}
    for key, value in augment.items():
        draft.set(f"data.augment.{key}", value, _ABOUT_AUGMENT.get(key, ""))
    seen = AugmentConfig.model_validate(augment | {"scale": (0.8, 1.6)})
    if _loses_none(train.objects, seen, side, area=16):
        draft.set("data.min_object_area", 16, "pixels of the input; smaller ones are not trained on")
        return True
    return _loses_none(train.objects, seen, side, DataConfig.model_fields["min_object_area"].default)


_ABOUT_AUGMENT = {
    "crop": "image pixels: a quarter of the objects are small, and seen larger in parts of an image",
    "horizontal_flip": "where up and down are alike too, add vertical_flip: 0.5 and transpose: 0.5",
}


def _loses_none(objects: Sequence[Objects], augment: AugmentConfig, side: int, area: int) -> bool:
    """Whether every image keeps an object of ``area`` pixels of the input."""
    return all(each.areas.max() * largest_factor(each.shape, augment, side) ** 2 >= area for each in objects)


def _batch_size(hardware: Hardware, crowded: bool) -> int:
    gib = None if hardware.memory is None else hardware.memory / _GIB
    if hardware.device == "cuda":
        return 4 if gib is None or gib >= 14 else 2 if gib >= 7 else 1
    return 2 if crowded or (gib is not None and gib < 6) else 4


def _set_length(draft: Draft, images: int, val: MeasuredSet | None, batch: int, gpu: bool) -> None:
    steps_an_epoch = math.ceil(images / batch)
    epochs = max(1, min(60, round((_GPU_STEPS if gpu else _CPU_STEPS) / steps_an_epoch)))
    root = Path(draft.get("data.root")).absolute()
    draft.set("train.project", as_name(root.name, "mine"))
    draft.set("train.run", str(draft.get("model.name")).removeprefix("vit_"), "results: runs/PROJECT/RUN/")
    draft.set("train.on_taken", "number", "a run of that name stays, and the next gets a number")
    steps = epochs * steps_an_epoch
    if not gpu and steps > _MOST_CPU_STEPS:
        draft.set("train.epochs", epochs)
        draft.set("train.max_steps", _MOST_CPU_STEPS, "an epoch is longer than a first training on a CPU should be")
    else:
        draft.set(
            "train.epochs",
            epochs,
            f"{steps} steps; more if the last validation was the best",
        )
    if val is not None:
        draft.set("train.validation.every", max(1, epochs // 3), "epochs")
        if val.size > 64 and not gpu:
            draft.set("train.validation.max_images", 64)
        if float(np.quantile(val.counts, 0.95)) > 8:
            draft.set("train.validation.max_objects", 8, "of an image; mobilesam eval measures all")


def _header(
    place: Path,
    out: Path,
    data: RecognisedData,
    train: MeasuredSet,
    val: MeasuredSet | None,
    hardware: Hardware,
    draft: Draft,
    remarks: Sequence[str],
) -> list[str]:
    sets = train.describe("train on") + ("" if val is None else f", {val.describe('validate on')}")
    low, middle, high = np.quantile(train.sides, (0.05, 0.5, 0.95))
    file, checkpoint = shlex.quote(str(out)), draft.get("model.checkpoint")
    best = f"runs/{draft.get('train.project')}/{draft.get('train.run')}/best.safetensors"
    lines = [
        f"Fine-tune on {place}: {sets}.",
        f"Objects are {low:.0f} to {high:.0f} pixels large, {middle:.0f} the median: sides of squares of their areas.",
        f"Written by mobilesam config init for {hardware.describe()}; it trains as it is. Every key: docs/config.md",
        "",
        f"Look:  mobilesam data preview {file}",
        f"Run:   mobilesam train {file}",
    ]
    if val is not None:
        lines.append(f"Then:  mobilesam eval {checkpoint} {best} --config {file}")
    notes = [line for remark in remarks for line in wrapped(f"Note: {remark}")]
    return [*lines, *(["", *notes] if notes else [])]
