"""Reading the sets of a training config once, and judging what was read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from mobilesam_core.config.data import AugmentConfig, SetConfig, TrainSetConfig
from mobilesam_core.config.train import TrainConfig
from mobilesam_core.data.build import build_source, class_names, count_unannotated
from mobilesam_core.data.check.figures import SetFigures, set_figures
from mobilesam_core.data.check.findings import KINDS, Finding
from mobilesam_core.data.check.looking import Look, look_at
from mobilesam_core.data.faults import single
from mobilesam_core.data.sample import SampleSource
from mobilesam_core.data.verify import visit
from mobilesam_core.errors import DataError
from mobilesam_core.models.registry import SPECS
from mobilesam_core.ops.tiles import Tiling
from mobilesam_core.progress import NullReporter, Reporter

TINY_AREA = 16
"""Objects of fewer pixels of the image are called tiny: 4 x 4, specks in most annotations."""


@dataclass(frozen=True)
class DataCheck:
    """What was found, worst first, and figures of each set that could be read at all.

    image_size: side of the model's input. sources: to draw pictures of findings from.
    """

    image_size: int
    min_object_area: int
    findings: tuple[Finding, ...]
    figures: dict[str, SetFigures]
    sources: dict[str, SampleSource] = field(repr=False)

    @property
    def errors(self) -> int:
        return sum(finding.severity == "error" for finding in self.findings)

    @property
    def warnings(self) -> int:
        return len(self.findings) - self.errors

    def to_json(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {
            "passed": self.errors == 0,
            "errors": self.errors,
            "warnings": self.warnings,
            "findings": [finding.to_json() for finding in self.findings],
            "image_size": self.image_size,
            "min_object_area": self.min_object_area,
            "sets": {name: figures.to_json() for name, figures in self.figures.items()},
        }


def check_data(config: TrainConfig, reporter: Reporter | None = None) -> DataCheck:
    """Read all of ``data.train`` and ``data.val`` and list every fault; none ends the check.

    Raises:
        ConfigError: the model's number of channels is none that image files have.
    """
    reporter = reporter or NullReporter()
    data, channels = config.data, config.model.encoder.input_channels or 3
    size = config.model.image_size or SPECS[config.model.name].image_size
    configs: dict[str, SetConfig | TrainSetConfig] = {"train": data.train}
    if data.val is not None:
        configs["val"] = data.val
    findings: list[Finding] = []
    figures: dict[str, SetFigures] = {}
    sources: dict[str, SampleSource] = {}
    looks: dict[str, dict[int, Look]] = {}
    for name, chosen in configs.items():
        faults: list[DataError] = []
        try:
            source = build_source(chosen, data.root, channels, faults.append)
        except DataError as error:
            faults += single(error)
        else:
            sources[name] = source
        findings += [Finding.of(fault, name, f"data.{name}") for fault in faults]
    for name, source in sources.items():
        trained_on = data if name == "train" else None
        look = partial(look_at, source, channels=channels, trained_on=trained_on, size=size)
        looks[name] = visit(source, reporter, f"Checking {name}", look)
        figures[name] = set_figures(
            [each.objects for each in looks[name].values() if each.objects is not None],
            image_size=size,
            min_object_area=data.min_object_area,
            augment=data.augment if name == "train" else AugmentConfig(),  # validation does not augment
            class_names=class_names(configs[name], source),
            unannotated=count_unannotated(source),
            tiling=Tiling.of(data),
            tiles=sum(each.tiles for each in looks[name].values()) if data.tile and name == "train" else None,
        )
        for index, each in looks[name].items():
            findings += _of_sample(each, name, index)
    findings += _of_pictures(looks)
    if "train" in figures:
        findings += _of_vanishing(figures["train"], size, data.min_object_area)
    order = list(KINDS)
    findings.sort(key=lambda finding: order.index(finding.kind))
    return DataCheck(size, data.min_object_area, tuple(findings), figures, sources)


def _of_sample(look: Look, name: str, index: int) -> Iterator[Finding]:
    place = (name, index)
    for fault in look.faults:
        yield Finding.of(fault, name, look.source, place)
    for remark in look.remarks:
        yield Finding("no_area", (name,), look.source, remark, "Correct or remove it.", (place,))
    if look.objects is None:
        return
    areas, (height, width) = look.objects.areas, look.objects.shape
    if whole := int((areas == height * width).sum()):
        yield Finding(
            "covers_all",
            (name,),
            look.source,
            f"{look.source}: {whole} of {len(areas)} masks over the whole image.",
            "Check that the mask is not inverted, and that background is 0.",
            (place,),
        )
    if tiny := int((areas < TINY_AREA).sum()):
        yield Finding(
            "tiny",
            (name,),
            look.source,
            f"{look.source}: {tiny} of {len(areas)} objects under {TINY_AREA} pixels, the smallest {areas.min()}.",
            "Remove them if they are specks.",
            (place,),
        )


def _of_pictures(looks: Mapping[str, Mapping[int, Look]]) -> Iterator[Finding]:
    """Pictures that occur more than once, whatever their files are called."""
    places: dict[bytes, list[tuple[str, int]]] = {}
    for name, each in looks.items():
        for index, look in each.items():
            if look.digest is not None:
                places.setdefault(look.digest, []).append((name, index))
    for same in places.values():
        by_set = {name: [place for place in same if place[0] == name] for name in looks}
        files = {name: [looks[name][index].source for _, index in found] for name, found in by_set.items()}
        if all(len(found) > 0 for found in by_set.values()) and len(by_set) > 1:
            problem = (
                f"{' and '.join(files['val'])} of val: the same picture as {' and '.join(files['train'])} of train."
            )
            yield Finding(
                "in_both_sets",
                ("train", "val"),
                files["val"][0],
                problem,
                "Remove it from one of the two: validation of what was trained on tells nothing.",
                tuple(same),
            )
        for name, found in by_set.items():
            if len(found) > 1:
                problem = f"{' and '.join(files[name])}: the same picture."
                remedy = "Keep one of them, unless it is meant to count more."
                yield Finding("duplicate", (name,), files[name][0], problem, remedy, tuple(found))


def _of_vanishing(figures: SetFigures, size: int, min_object_area: int) -> Iterator[Finding]:
    lost = figures.vanishing[size]
    if lost:
        yield Finding(
            "vanishing",
            ("train",),
            "data.train",
            f"{lost} of {figures.objects} objects never have data.min_object_area ({min_object_area}) pixels of the "
            f"model's input and are not trained on; at an image size of {2 * size} it would be "
            f"{figures.vanishing[2 * size]}.",
            "Raise model.image_size, magnify with data.tile or data.augment.crop, or lower data.min_object_area.",
        )
