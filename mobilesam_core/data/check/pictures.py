"""Pictures of the worst findings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mobilesam_core.data.check.findings import Finding
from mobilesam_core.data.check.workflow import TINY_AREA, DataCheck
from mobilesam_core.data.reading import read_image
from mobilesam_core.data.sample import SampleSource
from mobilesam_core.errors import DataError, UsageError
from mobilesam_core.files import make_folder
from mobilesam_core.ops.drawing import Closeup, distinct_color, fill_mask, outline_mask, write_png

_SIDE = 384
_OF_A_KIND = 4


def require_empty_folder(folder: Path) -> None:
    """Check, before any work, that pictures may be written to ``folder``.

    Raises:
        UsageError: it is no folder, or something is in it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already and not an empty folder.", "Choose another one for --pictures.")


def write_pictures(check: DataCheck, folder: Path) -> list[Path]:
    """Write ``<kind>_01.png``, … of the first few findings of each kind that have a picture to show.

    A picture shows the image with the masks it has tinted, magnified where the objects are tiny; two images side by
    side where they are the same.

    Raises:
        OutputError: a file cannot be written.
    """
    make_folder(folder)
    written: list[Path] = []
    drawn: dict[str, int] = {}
    for finding in check.findings:
        if drawn.get(finding.kind, 0) == _OF_A_KIND:
            continue
        panels = _panels(finding, check.sources)
        if panels:
            drawn[finding.kind] = drawn.get(finding.kind, 0) + 1
            written.append(folder / f"{finding.kind}_{drawn[finding.kind]:02d}.png")
            write_png(written[-1], _side_by_side(panels))
    return written


def _panels(finding: Finding, sources: Mapping[str, SampleSource]) -> list[np.ndarray]:
    panels = []
    for name, index in finding.indices[:2]:
        try:
            panels.append(_draw(sources[name], index, tiny=finding.kind == "tiny"))
        except DataError:  # it was told already; of an image that cannot be read there is no picture
            continue
    return panels


def _draw(source: SampleSource, index: int, tiny: bool) -> np.ndarray:
    try:
        sample = source[index]
    except DataError:
        image = read_image(Path(source.describe(index)))
        return Closeup.around(np.zeros(image.shape[:2], bool), side=_SIDE).image(image)
    masks = sample.masks
    region = np.zeros(masks.shape, bool)
    if tiny:
        smallest = int(masks.areas.argmin())
        assert masks.areas[smallest] < TINY_AREA
        region = masks.dense([smallest])[0]
    view = Closeup.around(region, margin=12.0, side=_SIDE)
    canvas = view.image(sample.image)
    for number in range(len(masks)):
        mask = view.mask(masks.dense([number])[0])
        fill_mask(canvas, mask, distinct_color(number), opacity=0.3)
        outline_mask(canvas, mask, distinct_color(number))
    return canvas


def _side_by_side(panels: list[np.ndarray]) -> np.ndarray:
    height = max(panel.shape[0] for panel in panels)
    padded = [np.pad(panel, ((0, height - panel.shape[0]), (0, 4), (0, 0)), constant_values=255) for panel in panels]
    return np.concatenate(padded, axis=1)[:, :-4]
