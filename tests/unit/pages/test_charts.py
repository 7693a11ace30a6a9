from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from mobilesam_core.evaluation.calibration import calibrate
from mobilesam_core.pages.charts import Series, line_chart, nice_ticks, reliability_diagram
from mobilesam_core.pages.markup import Markup, element, join


def heights(figure: str) -> list[float]:
    """How far down the dots are."""
    return [float(circle.attrib["cy"]) for circle in ElementTree.fromstring(figure).iter("circle")]


def test_text_is_escaped_and_markup_is_not() -> None:
    inner = element("b", "<&>", title='"x"', stroke_width=2)
    assert inner == '<b title="&quot;x&quot;" stroke-width="2">&lt;&amp;&gt;</b>'
    assert join(inner, "<i>") == inner + "&lt;i&gt;"
    assert element("p", inner) == f"<p>{inner}</p>"
    assert isinstance(element("img", src="a"), Markup) and element("img", src="a") == '<img src="a">'


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (3, 64, [20, 40, 60]), (-0.1, 0.1, [-0.1, -0.05, 0, 0.05, 0.1])],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert nice_ticks(low, high) == pytest.approx(ticks)


def test_a_higher_value_is_drawn_higher_and_gaps_are_left_out() -> None:
    points = [(1, 0.2), (2, 0.8), (3, float("nan")), (4, 0.5)]
    first, second, third = heights(line_chart("t", [Series("a", points)]))
    assert second < third < first


def test_wide_ranges_are_logarithmic() -> None:
    chart = line_chart("losses", [Series("a", [(1, 10.0), (2, 1.0), (3, 0.1)])])
    first, second, third = heights(chart)
    assert second - first == pytest.approx(third - second, abs=0.2) and "losses (logarithmic)" in chart
    assert "logarithmic" not in line_chart("losses", [Series("a", [(1, 10.0), (2, 1.0), (3, 0.0)])])


def test_a_single_point_and_none() -> None:
    assert len(heights(line_chart("t", [Series("a", [(5, 0.0)])]))) == 1
    assert line_chart("t", [Series("a", []), Series("b", [(1, float("nan"))])]) == ""


def test_long_curves_become_means() -> None:
    chart = line_chart("t", [Series("a", [(x, x % 2) for x in range(10_000)])])
    path = re.search(r'd="M([^"]*)" class="line', chart)
    assert path is not None and 100 < len(path[1].split("L")) <= 240
    assert len({point.split()[1] for point in path[1].split("L")}) == 1, "the mean of 0 and 1, everywhere"


def test_the_reliability_diagram_has_a_dot_a_filled_bin() -> None:
    calibration = calibrate([0.15, 0.55, 0.95, 0.96, 1.2], [0.5, 0.5, 0.9, 0.9, 1.0])
    diagram = reliability_diagram("t", [("<box>", calibration), ("point", calibration)])
    assert len(heights(diagram)) == 2 * 3
    assert "&lt;box&gt;: predicted 1.037, true 0.933, 3 objects" in diagram
