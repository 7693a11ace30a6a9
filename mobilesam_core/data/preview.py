"""``mobilesam data preview``: what training sees, on one sheet."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobilesam_core.config.train import TrainConfig
from mobilesam_core.data.build import build_source
from mobilesam_core.data.loader import epoch_order
from mobilesam_core.data.training_set import FramedSample, TrainingSet
from mobilesam_core.data.verify import find_tiles, without
from mobilesam_core.errors import DataError, UsageError
from mobilesam_core.files import require_free
from mobilesam_core.models.registry import SPECS
from mobilesam_core.ops.drawing import (
    Closeup,
    distinct_color,
    draw_box,
    draw_points,
    fill_mask,
    outline_mask,
    write_png,
)
from mobilesam_core.progress import NullReporter, Reporter

TILE, GAP = 384, 8
"""Side of a view on the sheet and the white around it, in pixels of the sheet."""


@dataclass(frozen=True)
class Preview:
    """What is on a sheet: views, and the prompts in them."""

    views: int
    boxes: int
    points: int


def preview(
    config: TrainConfig,
    out: Path,
    *,
    count: int = 12,
    seed: int | None = None,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> Preview:
    """Draw the first ``count`` views of a training with their masks and prompts, and write them as a PNG.

    Args:
        seed: None is ``train.seed``.
        overwrite: replace ``out`` where it is there already.

    Raises:
        UsageError: ``out`` is there already and ``overwrite`` is off, or its name is not of a PNG.
        DataError: see :func:`first_views`.
        OutputError: ``out`` cannot be written.
    """
    if out.suffix.lower() != ".png":
        raise UsageError(f"The sheet is a PNG, and {out} is no name for one.", "End it in .png.")
    require_free(out, overwrite)
    reporter = reporter or NullReporter()
    tiles, boxes, points = [], 0, 0
    with reporter.task("Drawing", count, "views") as task:
        for view in first_views(config, count, seed, reporter):
            tiles.append(draw_view(view))
            boxes += sum(prompt.box is not None for prompt in view.prompts)
            points += sum(len(prompt.points) for prompt in view.prompts)
            task.advance()
    write_png(out, draw_sheet(tiles))
    return Preview(len(tiles), boxes, points)


def first_views(
    config: TrainConfig, count: int, seed: int | None = None, reporter: Reporter | None = None
) -> Iterator[FramedSample]:
    """The first ``count`` views of the first epoch, and of those after it, in the order of a training of this seed.

    Their targets are ``(K, S, S)``: the masks in the frame, of S pixels, and not on the coarser grid of the loss.

    Raises:
        DataError: a set or a file cannot be used. With ``data.on_bad_file: skip`` there is a warning in its place,
            and the next file is taken, unless none is good.
    """
    reporter = reporter or NullReporter()
    data, seed = config.data, config.train.seed if seed is None else seed
    size = config.model.image_size or SPECS[config.model.name].image_size
    source = build_source(data.train, data.root, config.model.encoder.input_channels or 3)
    tiles = None
    if data.tile is not None:
        tiles, bad = find_tiles(source, data, size, reporter, "Looking for tiles")
        for file in bad:
            if data.on_bad_file == "stop":
                raise DataError(file.problem, "Look at all that is wrong: mobilesam data check.")
            reporter.warning(file.problem)
        source = without(source, bad)
    views = TrainingSet(source, data, config.prompts, size, loss_size=size, seed=seed, views=config.views, tiles=tiles)
    given = 0
    for epoch in itertools.count():
        for index in epoch_order(len(views), seed, epoch):
            try:
                view = views[epoch, index]
            except DataError as error:
                if data.on_bad_file == "stop":
                    raise
                reporter.warning(error.message)
                continue
            yield view
            given += 1
            if given == count:
                return
        if given == 0:
            raise DataError("No image of data.train can be used.", "Look at all that is wrong: mobilesam data check.")


def draw_sheet(tiles: Sequence[np.ndarray]) -> np.ndarray:
    """``(H, W, 3)`` uint8: tiles of :data:`TILE` pixels squared in rows, about as many rows as columns."""
    columns = math.ceil(math.sqrt(len(tiles)))
    step = TILE + GAP
    sheet = np.full((-(-len(tiles) // columns) * step + GAP, columns * step + GAP, 3), 255, np.uint8)
    for place, tile in enumerate(tiles):
        row, column = divmod(place, columns)
        top, left = GAP + step * row, GAP + step * column
        sheet[top : top + TILE, left : left + TILE] = tile
    return sheet


def draw_view(view: FramedSample) -> np.ndarray:
    """``(TILE, TILE, 3)`` uint8: the frame, grey where it is padded, and each object and its prompt in one colour."""
    assert view.image is not None  # there are no embeddings in its place
    height, width = view.size
    # The model gets zeros after normalisation there: a middling grey.
    frame = np.full((view.frame_size, view.frame_size, 3), 115, np.uint8)
    frame[:height, :width] = view.image.permute(1, 2, 0).numpy()
    shown = Closeup((0, 0, view.frame_size, view.frame_size), TILE / view.frame_size)
    canvas = shown.image(frame)
    masks = [shown.mask(target.numpy() > 0.5) for target in view.targets]
    for number, mask in enumerate(masks):
        fill_mask(canvas, mask, distinct_color(number), opacity=0.35)
        outline_mask(canvas, mask, distinct_color(number))
    for number, prompt in enumerate(view.prompts):  # above all masks
        if prompt.box is not None:
            draw_box(canvas, shown.box(prompt.box), distinct_color(number), thickness=2)
        draw_points(canvas, shown.points(prompt.points), prompt.labels, radius=3)
    return canvas
