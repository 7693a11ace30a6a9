"""Curves as SVG, for a page that brings its own style: colours are the classes ``s0`` to ``s7``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mobilesam_core.evaluation.calibration import Calibration
from mobilesam_core.pages.markup import Markup, element, join

_COLORS = 8
_WIDTH, _HEIGHT = 440, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 10, 36
_MOST_POINTS = 240
_MOST_DOTS = 60
_LOG_FROM = 50.0


@dataclass(frozen=True)
class Series:
    """A named curve of ``(x, y)``; points that are not finite are left out. dashed: something to compare with."""

    label: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False

    @property
    def finite(self) -> list[tuple[float, float]]:
        return [(x, y) for x, y in self.points if math.isfinite(y)]


@dataclass(frozen=True)
class _Axis:
    """Data from ``low`` to ``high`` on pixels from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[float]:
        return _log_ticks(self.low, self.high) if self.log else nice_ticks(self.low, self.high)


@dataclass(frozen=True)
class _Plot:
    """Two axes and their grid; ``width`` and ``height`` of the picture, in its own pixels."""

    x: _Axis
    y: _Axis
    x_label: str
    width: float = _WIDTH
    height: float = _HEIGHT

    def draw(self, title: str, *content: Markup) -> Markup:
        bottom, right = self.y.start, self.x.end
        parts = []
        for value in self.y.ticks:
            at = self.y(value)
            parts.append(element("line", x1=_LEFT, x2=right, y1=at, y2=at, class_="grid"))
            parts.append(element("text", _number(value), x=_LEFT - 6, y=at + 4, text_anchor="end"))
        for value in self.x.ticks:
            parts.append(element("text", _number(value), x=self.x(value), y=bottom + 16, text_anchor="middle"))
        parts.append(element("text", self.x_label, x=right, y=bottom + 31, text_anchor="end", class_="axis"))
        return element("svg", *parts, *content, viewBox=f"0 0 {self.width} {self.height}", role="img", aria_label=title)


def line_chart(title: str, series: Sequence[Series], x_label: str = "optimizer step") -> Markup:
    """A figure of curves with a legend; an empty Markup when no curve has a point.

    All positive values that span a factor of fifty are drawn on a logarithmic axis. More than some hundred points
    of a curve become means of neighbours.
    """
    series = [each for each in series if each.finite]
    if not series:
        return Markup("")
    xs, ys = zip(*(point for each in series for point in each.finite), strict=True)
    left, right = _spread(min(xs), max(xs))
    log = min(ys) > 0 and max(ys) > _LOG_FROM * min(ys)
    low, high = (min(ys), max(ys)) if log else _padded(min(ys), max(ys))
    plot = _Plot(_Axis(left, right, _LEFT, _WIDTH - _RIGHT), _Axis(low, high, _HEIGHT - _BOTTOM, _TOP, log), x_label)
    title += " (logarithmic)" if log else ""
    curves = [_curve(plot, each, f"s{number % _COLORS}") for number, each in enumerate(series)]
    return _figure(title, plot.draw(title, *curves), [(each.label, each.dashed) for each in series])


def reliability_diagram(title: str, calibrations: Sequence[tuple[str, Calibration]]) -> Markup:
    """A figure of the mean true IoU of each bin over its mean predicted one, dots as large as bins are full."""
    side = _WIDTH
    predicted = [b.predicted for _, each in calibrations for b in each.bins if b.predicted is not None]
    plot = _Plot(
        _Axis(min(0.0, *predicted), max(1.0, *predicted), _LEFT, side - _RIGHT),
        _Axis(0.0, 1.0, side - _BOTTOM, _TOP),
        "predicted IoU (up: true IoU)",
        side,
        side,
    )
    parts = [element("path", d=_path(plot, [(0, 0), (1, 1)]), class_="line ideal")]
    for number, (label, each) in enumerate(calibrations):
        filled = [(b.predicted, b.iou, b.objects) for b in each.bins if b.predicted is not None and b.iou is not None]
        parts.append(element("path", d=_path(plot, [(x, y) for x, y, _ in filled]), class_=f"line s{number}"))
        for x, y, objects in filled:
            said = element("title", f"{label}: predicted {x:.3f}, true {y:.3f}, {objects} objects")
            radius = round(3 + 10 * math.sqrt(objects / each.objects), 1)
            parts.append(element("circle", said, cx=plot.x(x), cy=plot.y(y), r=radius, class_=f"dot s{number}"))
    return _figure(title, plot.draw(title, *parts), [(label, False) for label, _ in calibrations])


def nice_ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers from ``low`` to ``high``, which differ."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if len(decades) > 4 else (1, 3)
    ticks = [factor * 10.0**decade for decade in decades for factor in factors]
    return [tick for tick in ticks if low <= tick <= high]


def _spread(low: float, high: float) -> tuple[float, float]:
    """The range, or one around it when it is a single value."""
    return (low, high) if high > low else (low - (abs(low) / 2 or 1), high + (abs(high) / 2 or 1))


def _padded(low: float, high: float) -> tuple[float, float]:
    low, high = _spread(low, high)
    pad = 0.05 * (high - low)
    return (0.0 if 0 <= low < high / 2 else low - pad), high + pad


def _curve(plot: _Plot, series: Series, color: str) -> Markup:
    points = _thinned(series.finite)
    parts = [element("path", d=_path(plot, points), class_=f"line {color}{' dashed' if series.dashed else ''}")]
    if len(points) <= _MOST_DOTS and not series.dashed:
        for x, y in points:
            said = element("title", f"{series.label} {_number(y)}, {plot.x_label} {_number(x)}")
            parts.append(element("circle", said, cx=plot.x(x), cy=plot.y(y), r=2.6, class_=f"dot {color}"))
    return join(*parts)


def _path(plot: _Plot, points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{plot.x(x)} {plot.y(y)}" for x, y in points)


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    size = -(-len(points) // _MOST_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups] if size > 1 else [*points]


def _number(value: float) -> str:
    return f"{value:.4g}"


def _figure(title: str, picture: Markup, legend: Sequence[tuple[str, bool]]) -> Markup:
    entries = [
        element("li", element("i", class_=f"s{number % _COLORS}{' dashed' if dashed else ''}"), label)
        for number, (label, dashed) in enumerate(legend)
    ]
    return element("figure", element("figcaption", title), picture, element("ul", *entries, class_="legend"))
