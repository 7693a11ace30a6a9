"""HTML and SVG that cannot be broken by the texts in them."""

from __future__ import annotations

from html import escape

_WITHOUT_END = ("img", "meta")


class Markup(str):
    """HTML that is whole. Any other text is escaped where it becomes part of it."""

    __slots__ = ()


def element(tag: str, *children: str, **attributes: str | float) -> Markup:
    """``<tag ...>children</tag>``; ``class_`` and ``stroke_width`` become ``class`` and ``stroke-width``."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(str(value))}"' for name, value in attributes.items()
    )
    if tag in _WITHOUT_END:
        return Markup(f"<{tag}{written}>")
    return Markup(f"<{tag}{written}>{join(*children)}</{tag}>")


def join(*children: str) -> Markup:
    """The children one after the other, escaped unless they are :class:`Markup`."""
    return Markup("".join(child if isinstance(child, Markup) else escape(child) for child in children))
