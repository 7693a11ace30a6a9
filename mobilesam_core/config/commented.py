"""YAML with comments: configs that a command writes for people to read and change."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from mobilesam_core.config.train import TrainConfig

_WIDTH = 120


class _Dumper(yaml.SafeDumper):
    """Writes what occurs twice twice, and not a mark in its place."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class Draft:
    """A training config in the making, each key with a comment on why it is so."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {}
        self._comments: dict[str, str] = {}

    def set(self, key: str, value: Any, comment: str = "") -> None:
        """Set the dotted ``key``; sections it leads through are made."""
        *sections, last = key.split(".")
        node = self.tree
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = value
        if comment:
            self._comments[key] = " ".join(comment.split())

    def get(self, key: str) -> Any:
        """What the dotted ``key`` was set to; None if it was not."""
        node: Any = self.tree
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        return node

    def yaml(self, header: Sequence[str]) -> str:
        """The whole, its sections in their usual order, below ``header``'s lines as comments."""
        top = ["# " + line.replace("\n", " ") if line else "#" for line in header]
        ordered = {section: self.tree[section] for section in TrainConfig.model_fields if section in self.tree}
        return "\n".join([*top, "", *_lines(ordered, self._comments, "", 0)]) + "\n"


def wrapped(text: str, indent: str = "") -> list[str]:
    """``text`` as lines of a header, from the second on four spaces further in."""
    return textwrap.wrap(
        text,
        _WIDTH - 2,
        initial_indent=indent,
        subsequent_indent=f"{indent}    ",
        break_on_hyphens=False,
        break_long_words=False,
    )


def _lines(tree: Mapping[str, Any], comments: Mapping[str, str], prefix: str, depth: int) -> Iterator[str]:
    for key, value in tree.items():
        path, indent = f"{prefix}{key}", "  " * depth
        is_section = isinstance(value, dict) and bool(value)
        is_list = isinstance(value, list) and bool(value) and isinstance(value[0], dict)
        line = f"{indent}{key}:" + ("" if is_section or is_list else f" {_inline(value)}")
        comment = comments.get(path, "")
        if comment and len(line) + 3 + len(comment) > _WIDTH:
            yield f"{indent}# {comment}"
            comment = ""
        yield f"{line}  # {comment}" if comment else line
        if is_section:
            yield from _lines(value, comments, f"{path}.", depth + 1)
        elif is_list:
            yield from (f"{indent}  - {_inline(item)}" for item in value)


def _inline(value: Any) -> str:
    text = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, width=float("inf"), sort_keys=False, allow_unicode=True
    )
    return text.removesuffix("\n").removesuffix("\n...")
