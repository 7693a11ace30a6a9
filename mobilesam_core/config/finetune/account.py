"""An old config of which every key is accounted for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from mobilesam_core.config.commented import Draft


class Keep(NamedTuple):
    """Where an old key goes.

    convert: gives the new value, or raises a ValueError that says why there is none. comment: what is different there.
    """

    new: str
    convert: Callable[[Any], Any]
    comment: str = ""


class OldConfig:
    """Old values by dotted key (``teachers[0].name``), which leave as they are mapped or dropped, and the new config.

    mapped: old key → new key. dropped: old key → why nothing stands for it.
    """

    def __init__(self, tree: Mapping[str, Any]) -> None:
        self._tree = tree
        self._left = dict(_leaves(tree))
        self.new = Draft()
        self.mapped: dict[str, str] = {}
        self.dropped: dict[str, str] = {}

    @property
    def rest(self) -> tuple[str, ...]:
        """The keys that nothing was said of."""
        return tuple(self._left)

    def value(self, key: str) -> Any:
        """What ``key`` holds; None if it is not there, or was accounted for."""
        return self._left.get(key)

    def count(self, key: str) -> int:
        """How many objects the list at the top-level ``key`` has."""
        items = self._tree.get(key)
        return len(items) if isinstance(items, list) and key not in self._left else 0

    def below(self, key: str) -> list[str]:
        """``key`` and all keys below it that are left."""
        return [each for each in self._left if each == key or each.startswith((f"{key}.", f"{key}["))]

    def drop(self, key: str, why: str) -> None:
        """Account for what is left of ``key`` and below it by a reason."""
        for each in self.below(key):
            del self._left[each]
            self.dropped[each] = why

    def claim(self, key: str, new: str) -> None:
        """Account for ``key``, if it is left, as part of ``new``."""
        if key in self._left:
            del self._left[key]
            self.mapped[key] = new

    def follow(self, rules: Mapping[str, Keep | str]) -> None:
        """Keep each key that ``rules`` has, or drop it for the reason they give."""
        for key, rule in rules.items():
            if isinstance(rule, str):
                self.drop(key, rule)
            elif key in self._left:
                self.keep(key, rule)

    def keep(self, key: str, rule: Keep) -> Any:
        """Move ``key`` where ``rule`` says and return its new value; None if it was dropped: null, or unusable."""
        value = self._left.get(key)
        if value is None:
            self.drop(key, "null: the default is taken")
            return None
        try:
            new = rule.convert(value)
        except ValueError as error:
            self.drop(key, str(error))
            return None
        self.claim(key, rule.new)
        self.new.set(rule.new, new, f"{key}; {rule.comment}" if rule.comment else key)
        return new


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            for place, item in enumerate(value):
                yield from _leaves(item, f"{prefix}{key}[{place}].")
        else:
            yield f"{prefix}{key}", value
