"""What pages are put together from."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from mobilesam_core.data.reading import read_image
from mobilesam_core.pages.markup import Markup, element, join
from mobilesam_core.pages.style import STYLE

_PICTURE_WIDTH = 1200


def page(title: str, *body: str, style: Markup = STYLE, script: Markup | None = None) -> str:
    """A whole HTML document that fetches nothing, which a browser is told. script: JavaScript, run at the end."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    scripts = []
    if script is not None:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'"
        scripts.append(element("script", script))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("title", title),
        element("style", style),
    )
    return f"<!doctype html>\n{element('html', head, element('body', *body, *scripts), lang='en')}\n"


def section(title: str, *content: str) -> Markup:
    """A part with a heading; nothing where there is no content."""
    return element("section", element("h2", title), *content) if any(content) else Markup("")


def tile(label: str, before: float | None, after: float, better: int) -> Markup:
    """A figure, and what it was before. better: 1 where more is better, else -1."""
    change = Markup("")
    if before is not None:
        kind = "good" if (after - before) * better > 0 else "bad"
        change = join(
            element("span", f"{before:.3f} → ", class_="before"),
            element("strong", f"{after:.3f}"),
            element("span", f"{after - before:+.3f}", class_=f"change {kind if after != before else ''}"),
        )
    return element("div", element("h3", label), change or element("strong", f"{after:.3f}"), class_="tile")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """A table; without ``head``, of facts: names and values."""
    titles = [element("tr", *(element("th", each) for each in head))] if head else []
    lines = [element("tr", *(element("td", cell) for cell in row)) for row in rows]
    # A box of its own scrolls where a table is wider than the page.
    return element("div", element("table", *titles, *lines, class_="" if head else "facts"), class_="scroll")


def picture(path: Path, caption: str) -> Markup:
    """An image file, made part of the page.

    Raises:
        DataError: it cannot be read.
    """
    return element("figure", element("img", src=_data_uri(path), alt=caption), element("figcaption", caption))


def _data_uri(path: Path) -> str:
    pixels = Image.fromarray(read_image(path, 3))
    pixels.thumbnail((_PICTURE_WIDTH, _PICTURE_WIDTH))
    data = io.BytesIO()
    pixels.save(data, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
