"""The page, made with Gradio; nothing else imports it."""

from __future__ import annotations

import base64
import html
import io
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from mobilesam_core.amg.workflow import nothing_found, settle_thresholds
from mobilesam_core.app.models import Models, everything_settings
from mobilesam_core.app.pictures import FILES, file_name
from mobilesam_core.app.session import Click, Session
from mobilesam_core.app.uploads import LIMITS, MAX_BYTES, NamedImage
from mobilesam_core.app.visitors import Visitors
from mobilesam_core.config.amg import AmgConfig
from mobilesam_core.config.loading import validate
from mobilesam_core.errors import MobileSamError, PromptError, UsageError
from mobilesam_core.progress import NullReporter

_ASSETS = Path(__file__).parent / "assets"
_THUMBNAIL = 112
_OUTPUT_NAMES = {1: "1", 2: "2", 3: "3", 0: "Single"}
_log = logging.getLogger(__name__)

Change = Callable[[Session], str | None]
"""Changes a session; may return what to tell its user."""


def theme() -> gr.themes.Base:
    """Plain, with the fonts of the system: nothing is fetched from elsewhere."""
    return gr.themes.Soft(
        primary_hue="blue",
        neutral_hue="slate",
        radius_size="md",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        block_title_background_fill="none",
        block_title_background_fill_dark="none",
        block_title_padding="0",
        block_title_text_color="*body_text_color",
        block_title_text_color_dark="*body_text_color",
        block_title_text_weight="500",
    )


def css() -> str:
    """The styles of the page."""
    return (_ASSETS / "page.css").read_text("utf-8")


class Page:
    """Builds the page and answers its events.

    samples: images to choose from. open_first: whether the first of them is there from the start.
    """

    def __init__(self, models: Models, visitors: Visitors, samples: Sequence[NamedImage], open_first: bool) -> None:
        self._models, self._visitors, self._samples, self._open_first = models, visitors, samples, open_first

    def build(self) -> gr.Blocks:
        """The whole page, whose events are not offered as an API."""
        with gr.Blocks(title="MobileSAM", analytics_enabled=False, fill_width=True) as blocks:
            token = gr.State("")
            gr.HTML('<header class="sam-title"><h1>MobileSAM</h1><p>Click on a thing to cut it out.</p></header>')
            with gr.Row(equal_height=False):
                with gr.Column(scale=3, min_width=420):
                    canvas = gr.HTML(
                        html_template=(_ASSETS / "canvas.html").read_text("utf-8").replace("LIMITS", LIMITS),
                        js_on_load=(_ASSETS / "canvas.js").read_text("utf-8"),
                        apply_default_css=False,
                        elem_id="canvas",
                        view={},
                        max_bytes=MAX_BYTES,
                        limits=LIMITS,
                    )
                    output = gr.Radio(
                        _outputs(None),
                        value="auto",
                        label="Mask, and the score that the model gives it",
                        info="A single point may mean a part or the whole: 1, 2 and 3 are the model's guesses.",
                        elem_id="output",
                        visible=False,
                    )
                    downloads = gr.HTML("", elem_id="downloads")
                    gr.HTML((_ASSETS / "keys.html").read_text("utf-8"), apply_default_css=False)
                with gr.Column(scale=1, min_width=320):
                    samples = gr.HTML(
                        _thumbnails(self._samples), js_on_load=_PICK, elem_id="samples", apply_default_css=False
                    )
                    model = gr.Dropdown(
                        self._models.names,
                        value=self._models.names[0],
                        label="Model",
                        elem_id="model",
                        filterable=False,
                    )
                    with gr.Group():
                        everything = gr.Button("Find everything", variant="primary", elem_id="everything")
                        settings = _sliders(everything_settings(self._models.first))

            shown = [canvas, output, downloads]
            # Clicks follow one another at once; what takes seconds waits its turn, so that clicks stay quick.
            quick: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "multiple", "concurrency_limit": 4}
            quick |= {"concurrency_id": "clicks", "api_visibility": "private"}
            slow = quick | {"concurrency_limit": 1, "concurrency_id": "work"}
            canvas.point(self._point, token, shown, **quick)
            canvas.box(self._box, token, shown, **quick)
            canvas.undo(self._undo, token, shown, **quick)
            canvas.clear(self._clear, token, shown, **quick)
            output.input(self._choose, [token, output], shown, **quick)
            begun = blocks.load(self._begin, None, [token, *shown], **quick)
            if self._open_first:
                begun.then(self._first_sample, token, shown, **slow)
            samples.pick(self._sample, token, shown, **slow)
            canvas.received(self._received, token, shown, **slow)
            used = [*shown, model, *settings]
            model.input(self._use, [token, model], used, js=_saying("Opening the model…"), **slow)
            once = slow | {"trigger_mode": "once"}
            everything.click(self._everything, [token, *settings], shown, js=_saying("Looking for everything…"), **once)
        return blocks

    def _begin(self) -> list[Any]:
        session = Session(self._models.first)
        self._visitors.add(session)
        return [session.token, *self._change(session.token, _nothing)]

    def _first_sample(self, token: str) -> list[Any]:
        return self._change(token, lambda session: self._open(session, self._samples[0]))

    def _open(self, session: Session, image: NamedImage) -> None:
        session.open(image)
        self._visitors.make_room()

    def _point(self, token: str, event: gr.EventData) -> list[Any]:
        def change(session: Session) -> None:
            x, y = _numbers([_field(event, "x"), _field(event, "y")], 2)
            session.add(Click((x, y), bool(_field(event, "positive"))))

        return self._change(token, change)

    def _box(self, token: str, event: gr.EventData) -> list[Any]:
        def change(session: Session) -> None:
            x1, y1, x2, y2 = _numbers(_field(event, "box"), 4)
            session.add((x1, y1, x2, y2))

        return self._change(token, change)

    def _undo(self, token: str) -> list[Any]:
        return self._change(token, lambda session: session.undo())

    def _clear(self, token: str) -> list[Any]:
        return self._change(token, lambda session: session.clear())

    def _choose(self, token: str, output: str) -> list[Any]:
        return self._change(token, lambda session: session.choose(None if output == "auto" else int(output)))

    def _sample(self, token: str, event: gr.EventData) -> list[Any]:
        def change(session: Session) -> None:
            (number,) = _numbers([_field(event, "number")], 1)
            if not 0 <= number < len(self._samples):
                raise PromptError(f"There is no sample {number:g}.")
            self._open(session, self._samples[int(number)])

        return self._change(token, change)

    def _received(self, token: str) -> list[Any]:
        def change(session: Session) -> None:
            image = session.received
            if image is not None:
                self._open(session, image)
            elif session.image is None:  # else it was opened in place of one that came before it
                raise UsageError("No image has come.", "Open one.")

        return self._change(token, change)

    def _use(self, token: str, name: str) -> list[Any]:
        settings = [gr.skip()] * 7

        def change(session: Session) -> None:
            runtime = self._models.get(name)
            session.use(runtime)
            settings[:] = _values(everything_settings(runtime))

        shown = self._change(token, change)
        return [*shown, self._chosen_model(token), *settings]

    def _chosen_model(self, token: str) -> Any:
        """What the list of models is to name: the one that is used, whatever was chosen."""
        try:
            return self._models.name_of(self._visitors.get(token).runtime)
        except MobileSamError:
            return gr.skip()

    def _everything(self, token: str, *values: Any) -> list[Any]:
        def change(session: Session) -> str | None:
            given = validate(AmgConfig, dict(zip(_SETTINGS, values, strict=True)), "The settings")
            settings = settle_thresholds(given, session.runtime, NullReporter())
            session.find_everything(settings)
            return None if session.found else nothing_found(settings)

        return self._change(token, change)

    def _change(self, token: str, change: Change) -> list[Any]:
        """Change the session of ``token`` and show what it then is; what goes wrong is told, and changes nothing."""
        try:
            session = self._visitors.get(token)
        except MobileSamError as error:
            return [gr.HTML(view={"status": str(error), "wrong": True}), _radio(None), ""]
        try:
            told, wrong = change(session), False
        except MobileSamError as error:
            told, wrong = str(error), True
        except Exception:
            _log.exception("an event of the page failed")
            told, wrong = "Something went wrong on the server; its terminal says what.", True
        with session.lock:
            session.revision += 1  # so that the page hears of it even if nothing else has changed
            return [gr.HTML(view=_view(session, told, wrong)), _radio(session), _downloads(session)]


def _nothing(session: Session) -> None:
    return None


def _view(session: Session, told: str | None, wrong: bool) -> dict[str, Any]:
    """What the canvas shows."""
    view: dict[str, Any] = {"token": session.token, "revision": session.revision, "wrong": wrong}
    view["status"] = _status(session) if told is None else told
    if session.image is None:
        return view
    height, width = session.image.pixels.shape[:2]
    clicks = [step for step in session.steps if isinstance(step, Click)]
    boxes = [step for step in session.steps if not isinstance(step, Click)]
    everything = session.found is not None
    view |= {
        "width": width,
        "height": height,
        "photo": f"of/{session.token}/photo?{session.opened}",
        "layer": f"of/{session.token}/layer?{session.revision}" if session.answer or everything else "",
        "points": [] if everything else [[*click.at, click.positive] for click in clicks],
        "box": boxes[-1] if boxes and not everything else None,
        "undo": bool(session.steps) or everything,
    }
    return view


def _status(session: Session) -> str:
    if session.image is None:
        return ""
    if session.found is not None:
        return f"{len(session.found)} masks found."
    if session.answer is None:
        return f"{session.image.name}: click on a thing, or draw a box around it."
    score = session.answer.scores[session.chosen]
    return f"Mask with a score of {score:.2f}. Add points where it is wrong."


def _outputs(session: Session | None) -> list[tuple[str, str]]:
    if session is None or session.answer is None:
        return [("Automatic", "auto")]
    scores = session.answer.scores
    named = [(f"{name} · {scores[number]:.2f}", str(number)) for number, name in _OUTPUT_NAMES.items()]
    return [(f"Automatic · {scores[session.answer.automatic]:.2f}", "auto"), *named]


def _radio(session: Session | None) -> Any:
    visible = session is not None and session.answer is not None and session.found is None
    value = "auto" if session is None or session.output is None else str(session.output)
    return gr.Radio(choices=_outputs(session), value=value, visible=visible)


def _downloads(session: Session) -> str:
    if session.answer is None and session.found is None:
        return ""
    labels = {"mask.png": "Mask", "overlay.png": "Overlay", "coco.json": "COCO JSON"}
    if session.found is not None:
        labels["mask.png"] = "Mask of ids"
    links = [
        f'<a href="of/{session.token}/{ending}?{session.revision}" data-file="{ending}" '
        f'download="{html.escape(file_name(session, ending))}">{labels[ending]}</a>'
        for ending in FILES
    ]
    return f'<nav class="sam-downloads" aria-label="Downloads"><span>Download</span>{"".join(links)}</nav>'


_WORK = """document.querySelector("#canvas .sam").dispatchEvent(new CustomEvent("work", { detail: "%s" }));"""
_PICK = f"""
element.addEventListener("click", (event) => {{
  const button = event.target.closest("button[data-number]");
  if (!button) return;
  {_WORK % "Opening the sample…"}
  trigger("pick", {{ number: Number(button.dataset.number) }});
}});
"""


def _saying(text: str) -> str:
    """JavaScript that has the canvas say that there is work under way, and lets an event's values pass."""
    return f"(...values) => {{ {_WORK % text} return values; }}"


def _thumbnails(samples: Sequence[NamedImage]) -> str:
    if not samples:
        return ""
    buttons = []
    for number, sample in enumerate(samples):
        small = Image.fromarray(sample.pixels)
        small.thumbnail((_THUMBNAIL, _THUMBNAIL))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=88)
        picture = base64.b64encode(buffer.getvalue()).decode()
        name = html.escape(sample.name)
        buttons.append(
            f'<button type="button" data-number="{number}" title="{name}" aria-label="Sample: {name}">'
            f'<img src="data:image/jpeg;base64,{picture}" alt=""></button>'
        )
    return f'<div class="sam-samples" role="group" aria-label="Samples"><p>Samples</p>{"".join(buttons)}</div>'


_SETTINGS = (
    "points_per_side",
    "pred_iou_thresh",
    "stability_score_thresh",
    "box_nms_thresh",
    "crop_n_layers",
    "min_mask_region_area",
    "strategy",
)


def _sliders(settings: AmgConfig) -> list[Any]:
    shown = [
        gr.Slider(4, 64, settings.points_per_side, step=1, label="Points per side"),
        gr.Slider(0, 1, settings.pred_iou_thresh, step=0.01, label="Least predicted IoU"),
        gr.Slider(0, 1, settings.stability_score_thresh, step=0.01, label="Least stability"),
    ]
    with gr.Accordion("More settings", open=False):
        more = [
            gr.Slider(0, 1, settings.box_nms_thresh, step=0.01, label="Most overlap of boxes"),
            gr.Slider(0, 2, settings.crop_n_layers, step=1, label="Layers of crops", info="Each takes far longer."),
            gr.Slider(0, 1000, settings.min_mask_region_area, step=10, label="Least hole or part, px"),
            gr.Radio(["grid", "coarse-to-fine"], value=settings.strategy, label="Strategy"),
        ]
    return [*shown, *more]


def _values(settings: AmgConfig) -> list[Any]:
    return [getattr(settings, name) for name in _SETTINGS]


def _field(event: gr.EventData, name: str) -> Any:
    data = event._data if isinstance(event._data, dict) else {}
    if name not in data:
        raise PromptError(f"The page sent no {name}.", "Reload it.")
    return data[name]


def _numbers(values: Any, count: int) -> list[float]:
    numbers = values if isinstance(values, list) else []
    good = [float(n) for n in numbers if isinstance(n, (int, float)) and not isinstance(n, bool) and math.isfinite(n)]
    if len(good) != count or len(numbers) != count:
        raise PromptError(f"The page sent no {count} numbers.", "Reload it.")
    return good
