"""The page of a run's report: one HTML file that needs nothing but itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilesam_core.config.train import TrainConfig
from mobilesam_core.evaluation.calibration import BIAS_LIMIT, Calibration, bias_warning
from mobilesam_core.evaluation.thresholds import MARGIN, POINTS_PER_SIDE
from mobilesam_core.evaluation.types import PROMPT_KINDS, PromptKind
from mobilesam_core.pages.charts import Series, line_chart, reliability_diagram
from mobilesam_core.pages.markup import Markup, element, join
from mobilesam_core.pages.parts import page, picture, section, table, tile
from mobilesam_core.training.details import Details
from mobilesam_core.training.history import History, Record
from mobilesam_core.training.validation import harm_warning, score

_BEST_EPOCHS = 5
# What a line of the log says besides losses.
_NO_LOSSES = {"iou", "grad_norm", "lr", "images_per_s", "objects_per_s", "memory_mb"}
_PROMPTS: dict[PromptKind, str] = {"box": "box", "point": "one point", "clicks": "clicks"}
_LABELS = {
    "miou": "mIoU, mean of both",
    "box_miou": "mIoU, box",
    "point_miou": "mIoU, one point",
    "box_dice": "Dice, box",
    "point_dice": "Dice, one point",
    "box_agreement": "agreement, box",
    "point_agreement": "agreement, one point",
    "loss": "loss",
    "box_ece": "ECE, box",
    "point_ece": "ECE, one point",
    "box_bias": "bias, box",
    "point_bias": "bias, one point",
}
_HEADLINES = ("box_miou", "point_miou", "box_agreement", "point_agreement", "loss")
_CURVES = ("box_miou", "point_miou", "box_dice", "point_dice", "box_agreement", "point_agreement")


@dataclass(frozen=True)
class Comparison:
    """Pictures of one validation image at the start, if there is one, and at the best epoch."""

    before: Path | None
    after: Path


@dataclass(frozen=True)
class Report:
    """What the page at ``path`` says.

    ranked: the validations of trained weights, the best first. start: the first validation to compare it with, of the
    start weights if they were measured. details: of the best epoch, whose pictures are in ``details_folder``.
    """

    path: Path
    name: str
    config: TrainConfig
    config_text: str
    environment: Mapping[str, Any]
    history: History
    ranked: Sequence[Record]
    start: Record | None
    comparisons: Sequence[Comparison]
    details: Details | None
    details_folder: Path

    @property
    def best(self) -> Record | None:
        return self.ranked[0] if self.ranked else None

    @property
    def warnings(self) -> list[str]:
        """What to know before the weights are trusted."""
        best, before, metric = self.best, self.history.before, self.config.train.validation.metric
        if best is None:
            return []
        values = best.values
        biases = {_PROMPTS[kind]: values[f"{kind}_bias"] for kind in PROMPT_KINDS if f"{kind}_bias" in values}
        harm = None
        if before is not None and metric in before.values:
            harm = harm_warning(metric, score(metric, before.values), score(metric, values))
        everything = self.history.everything
        warnings = (harm, bias_warning(biases), everything.warning if everything else None)
        return [warning for warning in warnings if warning]


def render(report: Report) -> str:
    """The page. Equal reports give equal pages.

    Raises:
        DataError: a picture cannot be read.
    """
    return page(
        f"{report.name}: training report",
        element("header", element("h1", report.name), element("p", _summary(report))),
        *(element("p", warning, class_="warning") for warning in report.warnings),
        _headlines(report),
        section("Curves", _curves(report.history)),
        section(f"Best epochs, by {_label(report.config.train.validation.metric)}", _best_epochs(report)),
        section("Before and after", *_before_and_after(report)),
        section("Worst objects", *_worst(report)),
        section("Can its own scores be trusted?", *_calibration(report)),
        section("Everything, without prompts", *_everything(report.history)),
        section("Config", element("pre", report.config_text)),
        section("Environment", _environment(report.environment)),
    )


def _label(name: str) -> str:
    return _LABELS.get(name, name)


def _summary(report: Report) -> str:
    config, history = report.config, report.history
    size = f" at {config.model.image_size}²" if config.model.image_size else ""
    last = max((*history.train, *history.val), key=lambda record: record.step, default=None)
    if last is None:
        return f"{config.model.name}{size}. Nothing has been logged yet."
    reached = f"{config.model.name}{size}; step {last.step} in epoch {last.epoch} of {config.train.epochs}"
    if report.best is None:
        if config.data.val is None:
            return f"{reached}. Without a validation set, best.safetensors is the last checkpoint."
        return f"{reached}. No epoch has been validated yet."
    objects = report.best.values.get("objects")
    measured = f", measured on {objects:.0f} validation objects" if objects else ""
    return f"{reached}. Best epoch: {report.best.epoch} (step {report.best.step}){measured}."


def _headlines(report: Report) -> Markup:
    start, best = report.start, report.best
    if start is None or best is None:
        totals = [record.values["total"] for record in report.history.train if "total" in record.values]
        return element("div", tile("training loss", totals[0], totals[-1], -1), class_="tiles") if totals else join()
    tiles = [
        tile(_label(name), start.values.get(name) if start is not best else None, best.values[name],
              -1 if name == "loss" else 1)
        for name in _HEADLINES
        if name in best.values
    ]  # fmt: skip
    when = "before training" if start.epoch == 0 else f"after epoch {start.epoch}"
    compared = f"{when} → best epoch" if start is not best else "best epoch"
    if "box_agreement" in best.values:
        compared += "; agreement: IoU with the teacher's masks"
    return join(element("div", *tiles, class_="tiles"), element("p", compared, class_="note"))


def _curves(history: History) -> Markup:
    names = list(dict.fromkeys(name for record in history.train for name in record.values if name not in _NO_LOSSES))
    losses = [_series(name.replace("_", " "), history.train, name) for name in names]
    # A loss without a weight is not computed.
    losses = [each for each in losses if any(y != 0 for _, y in each.points)]
    validation = [_series(_label(name), history.val, name) for name in _CURVES]
    validation.append(_series("filling the box", history.val, "fill_box_miou", dashed=True))
    charts = [
        line_chart("Training losses", losses),
        line_chart("Validation: masks", validation),
        line_chart("Validation: loss", [_series("loss", history.val, "loss")]),
        line_chart("Learning rate", [_series("highest learning rate", history.train, "lr")]),
    ]
    return element("div", *charts, class_="charts") if any(charts) else Markup("")


def _series(label: str, records: Iterable[Record], name: str, dashed: bool = False) -> Series:
    return Series(label, [(r.step, r.values[name]) for r in records if name in r.values], dashed)


def _best_epochs(report: Report) -> Markup:
    rows = list(report.ranked[:_BEST_EPOCHS])
    if not rows:
        return Markup("")
    if report.history.before is not None:
        rows.append(report.history.before)
    names = [name for name in _LABELS if name in rows[0].values]
    cells = [[str(r.epoch or "start"), str(r.step), *(_three_digits(r.values.get(n)) for n in names)] for r in rows]
    return table(["epoch", "step", *map(_label, names)], cells)


def _before_and_after(report: Report) -> list[Markup]:
    if report.best is None or report.start is None:
        return []
    if not report.comparisons:
        return [element("p", "There are no pictures of the best epoch (train.validation.overlays).", class_="note")]
    before = "Before training" if report.start.epoch == 0 else f"Epoch {report.start.epoch}"
    note = "Each row: the truth, masks from boxes, masks from one point."
    pictures = [
        element(
            "div",
            *([picture(each.before, before)] if each.before else []),
            picture(each.after, f"Epoch {report.best.epoch}"),
            class_="pair",
        )
        for each in report.comparisons
    ]
    return [element("p", note, class_="note"), *pictures]


def _worst(report: Report) -> list[Markup]:
    if report.details is None:
        return []
    folder = report.details_folder
    parts = []
    for kind, worst in report.details.worst.items():
        pictures = [
            picture(
                folder / Path(each.picture).name,
                f"{each.image}, object {each.object}: IoU {each.iou:.3f}, predicted {each.predicted_iou:.3f}",
            )
            for each in worst
        ]
        if pictures:
            parts += [element("h3", f"Asked by {_PROMPTS[kind]}"), element("div", *pictures, class_="worst")]
    note = (
        "Of the best epoch. The truth is outlined in green, the mask tinted blue; the prompt is yellow or a green dot."
    )
    return [element("p", note, class_="note"), *parts] if parts else []


def _calibration(report: Report) -> list[Markup]:
    if report.details is None or not report.details.calibration:
        return []
    found = [(_PROMPTS[kind], each) for kind, each in report.details.calibration.items()]
    note = (
        "The model scores its own masks: it predicts their IoU. On the diagonal the prediction is right, below it the "
        "mask is worse than predicted. ECE: mean distance from the diagonal. Bias: mean predicted minus mean true IoU; "
        f"a warning is given beyond {BIAS_LIMIT:g}."
    )
    figures = [[label, str(each.objects), f"{each.ece:.3f}", f"{each.bias:+.3f}"] for label, each in found]
    tables = [table(["prompt", "objects", "ECE", "bias"], figures), _bins(found)]
    diagram = reliability_diagram("True IoU over predicted IoU", found)
    return [
        element("p", note, class_="note"),
        element("div", diagram, element("div", *tables, class_="tables"), class_="calibration"),
    ]


def _bins(calibrations: Sequence[tuple[str, Calibration]]) -> Markup:
    head = ["predicted IoU"]
    rows = [[f"{each.low:.1f} to {each.high:.1f}"] for each in calibrations[0][1].bins]
    for label, calibration in calibrations:
        head += [f"{label}: objects", "predicted", "true"]
        for row, each in zip(rows, calibration.bins, strict=True):
            row += [str(each.objects), _three_digits(each.predicted), _three_digits(each.iou)]
    return table(head, rows)


def _everything(history: History) -> list[Markup]:
    choice = history.everything
    if choice is None:
        return []
    same = choice.best == choice.usual
    note = (
        f"{choice.images} validation images with {choice.objects} objects, asked at {POINTS_PER_SIDE} x "
        f"{POINTS_PER_SIDE} points. "
        + (f"The usual thresholds are at most {MARGIN:g} in F2 below the best, and stay. " if same else "")
        + "The weights suggest the first line's thresholds to amg. F2: of objects found and masks, for labels that "
        "may lack objects."
    )
    head = ["thresholds", "predicted IoU", "stability", "found@0.5", "found@0.7", "masks an image", "F2"]
    rows = [
        [name, f"{each.pred_iou_thresh:g}", f"{each.stability_score_thresh:g}", _three_digits(each.found_50),
         _three_digits(each.found_70), f"{each.masks_per_image:.1f}", _three_digits(each.f2)]
        for name, each in [("saved", choice.best), ("usual", choice.usual)][: 1 if same else 2]
    ]  # fmt: skip
    return [element("p", note, class_="note"), table(head, rows)]


def _three_digits(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _environment(environment: Mapping[str, Any]) -> Markup:
    rows = [[name, value if isinstance(value, str) else json.dumps(value)] for name, value in environment.items()]
    return table([], rows) if rows else Markup("")
