"""The page of the demo: pictures before and after, figures, and the commands that made them."""

from __future__ import annotations

import os
from pathlib import Path

from mobilesam_core.demo.outcome import KINDS, DemoResult, Outcome, StepResult
from mobilesam_core.pages.charts import line_chart
from mobilesam_core.pages.markup import Markup, element, join
from mobilesam_core.pages.parts import page, picture, table, tile
from mobilesam_core.pages.style import STYLE

_LABELS = {"box": "mIoU, asked by a box", "point": "mIoU, asked by one point"}
_STYLE = Markup(
    STYLE
    + """
header p { font-size: 1.05rem; max-width: 70ch; }
.strip { display: flex; height: 12px; margin: 1.6rem 0 .3rem; border-radius: 6px; overflow: hidden; gap: 2px; }
.strip i { background: var(--c); min-width: 2px; }
.strip + .legend i { border-top-width: 8px; border-radius: 2px; }
.three { display: grid; grid-template-columns: repeat(3, 1fr); gap: .6rem; margin: .8rem 0; }
.few { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 200px), 1fr)); gap: .6rem;
  margin: .8rem 0; }
.step { margin-top: 2.4rem; padding-top: .2rem; border-top: 1px solid var(--line); }
.step h2 { display: flex; align-items: baseline; gap: .6rem; margin: 1rem 0 .2rem; }
.step h2 b { color: var(--c); } .step h2 small { margin-left: auto; font-weight: 400; color: var(--soft); }
.step > p { margin: .3rem 0 .8rem; } .result { font-weight: 600; }
.command { display: flex; align-items: flex-start; gap: .5rem; margin: .4rem 0; padding: .55rem .7rem;
  background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
.command code { flex: 1; min-width: 0; font: .84rem/1.5 ui-monospace, monospace; overflow-wrap: anywhere;
  user-select: all; }
.command span { display: inline-block; max-width: 100%; }
.command button { padding: .1rem .6rem; font: inherit; font-size: .8rem; color: var(--soft); background: none;
  border: 1px solid var(--line); border-radius: 6px; cursor: pointer; }
.narrow { max-width: 460px; } .files { font-size: .87rem; color: var(--soft); } .files a { color: inherit; }
"""
)
_COPY = Markup(
    """
for (const button of navigator.clipboard ? document.querySelectorAll(".command button") : []) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.previousElementSibling.textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}
"""
)


def render(result: DemoResult) -> str:
    """The page of the steps that were done.

    Raises:
        DataError: a picture cannot be read.
    """
    return page(
        "mobilesam demo",
        element("header", element("h1", "mobilesam demo"), element("p", _summary(result))),
        _unfinished(result),
        _tiles(result),
        _before_and_after(result.of("predict")),
        _times(result),
        *(_step(number, step, result.page.parent) for number, step in enumerate(result.steps)),
        style=_STYLE,
        script=_COPY,
    )


def _summary(result: DemoResult) -> str:
    drawn, whole = result.of("draw"), len(result.steps) == len(result.planned)
    objects = f"{drawn.figures['train_objects']:.0f} tools" if drawn else "Tools"
    done = "learnt, found, exported and quantised" if whole else f"taken through {len(result.steps)} steps"
    return (
        f"{objects} that the weights nano had never seen were drawn and {done} on this machine in "
        f"{_minutes(result.seconds)}, without a network. Each command below did what stands beside it, and does it "
        "again where mobilesam demo was run."
    )


def _unfinished(result: DemoResult) -> Markup:
    left = result.planned[len(result.steps) :]
    if not left:
        return Markup("")
    return element("p", f"Not done when this page was written: {', '.join(left)}.", class_="warning")


def _tiles(result: DemoResult) -> Markup:
    tiles = []
    for kind in KINDS:
        if (gain := result.gain(kind)) is not None:
            tiles.append(tile(_LABELS[kind], *gain, 1))
    if (found := result.of("amg")) is not None:
        tiles.append(_plain_tile("found without a prompt", f"{found.figures['masks']:.0f} masks"))
    if (small := result.of("quantize")) is not None:
        before, after = (small.figures[name] / 1e6 for name in ("bytes_before", "bytes_after"))
        tiles.append(_plain_tile("the encoder as int8", f"{after:.1f} MB", f"{before:.1f} → "))
    return element("div", *tiles, class_="tiles") if tiles else Markup("")


def _plain_tile(label: str, value: str, before: str = "") -> Markup:
    figure = join(element("span", before, class_="before"), element("strong", value))
    return element("div", element("h3", label), figure, class_="tile")


def _before_and_after(asked: Outcome | None) -> Markup:
    if asked is None:
        return Markup("")
    return element(
        "section",
        element("h2", "Before and after"),
        element("div", *(picture(each.path, each.caption) for each in asked.comparison), class_="three"),
    )


def _times(result: DemoResult) -> Markup:
    bars = [
        element(
            "i", class_=_color(number), style=f"flex: {step.seconds:.3f}", title=f"{step.title}: {step.seconds:.1f} s"
        )
        for number, step in enumerate(result.steps)
    ]
    names = [
        element("li", element("i", class_=_color(number)), f"{number + 1} {step.title}, {step.seconds:.0f} s")
        for number, step in enumerate(result.steps)
    ]
    return join(element("div", *bars, class_="strip"), element("ul", *names, class_="legend"))


def _step(number: int, step: StepResult, folder: Path) -> Markup:
    outcome = step.outcome
    parts = [
        element("h2", element("b", str(number + 1)), step.title, element("small", f"{step.seconds:.1f} s")),
        element("p", step.about),
        *map(_command, outcome.commands),
        element("p", outcome.sentence, class_="result"),
    ]
    if outcome.rows:
        parts.append(table(outcome.head, outcome.rows))
    if outcome.curves:
        parts.append(element("div", line_chart("Training loss", outcome.curves), class_="charts narrow"))
    if outcome.pictures:
        parts.append(element("div", *(picture(each.path, each.caption) for each in outcome.pictures), class_="few"))
    if outcome.files:
        parts.append(_files(outcome, folder))
    return element("section", *parts, class_=f"step {_color(number)}")


def _command(text: str) -> Markup:
    # Lines break between words alone, never within --an-option.
    words = [join(element("span", word), " ") for word in text.split(" ")]
    button = element("button", "Copy", type="button", hidden="")
    return element("div", element("code", Markup("".join(words).rstrip())), button, class_="command")


def _files(outcome: Outcome, folder: Path) -> Markup:
    names = [Path(os.path.relpath(path, folder)).as_posix() for path in outcome.files]
    links = [element("a", name, href=name) for name in names]
    return element("p", "Open: ", *(join(link, " ") for link in links), class_="files")


def _color(number: int) -> str:
    return f"s{number % 8}"


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
