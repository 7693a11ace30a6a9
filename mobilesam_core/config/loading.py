"""Reading configs: YAML file → ``--set`` overrides → validated tree, with every error reported at once."""

from __future__ import annotations

import difflib
import json
import re
import typing
from collections.abc import Hashable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mobilesam_core.config.amg import AmgConfig
from mobilesam_core.config.base import Config
from mobilesam_core.config.train import TrainConfig
from mobilesam_core.errors import ConfigError

ConfigT = TypeVar("ConfigT", bound=Config)


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads ``1e-4`` as a number and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key '{key}' is given twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


# YAML 1.1 as PyYAML reads it wants a dot and a sign in a float; people write 1e-4.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def packaged_configs() -> list[str]:
    """Names of the configs that come with the package (``mobilesam train quickstart``)."""
    folder = resources.files("mobilesam_core.config") / "packaged"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def read_config_text(config: str) -> str:
    """The YAML text of a file, or of a packaged config when ``config`` is one's name and no such file exists.

    Raises:
        ConfigError: neither exists, or the file cannot be read.
    """
    path = Path(config)
    if config in packaged_configs() and not path.exists():
        return (resources.files("mobilesam_core.config") / "packaged" / f"{config}.yaml").read_text("utf-8")
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"There is no config file '{config}'.",
            f"Pass a YAML file, or the name of a packaged config: {', '.join(packaged_configs())}.",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read the config '{config}': {error}.", "Pass a YAML file.") from error


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML; a :class:`ConfigError` gives line and column of what is no YAML."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{where}{at} is not valid YAML: {problem}.", "Correct that line.") from error


def apply_overrides(tree: dict[str, Any], overrides: Sequence[str], option: str = "--set") -> dict[str, Any]:
    """A copy of ``tree`` with each ``dotted.key=value`` set; values are read as YAML (``1e-4``, ``null``, ``[1, 2]``).

    option: what the overrides were given with, for messages.

    Raises:
        ConfigError: an override has no ``=`` or leads through a value that is no section.
    """
    result: dict[str, Any] = json.loads(json.dumps(tree, default=str))
    for override in overrides:
        dotted, equals, text = override.partition("=")
        if not equals or not dotted.strip():
            raise ConfigError(f"'{option} {override}' has no value.", f"Write {option} key=value.")
        *sections, key = dotted.strip().split(".")
        node = result
        for section in sections:
            if node.get(section) is None:
                node[section] = {}
            node = node[section]
            if not isinstance(node, dict):
                raise ConfigError(f"'{option} {override}': '{section}' is a value, not a section.", "Check the key.")
        node[key] = parse_yaml(text, f"The value of '{option} {override}'")
    return result


def validate(schema: type[ConfigT], tree: Any, where: str) -> ConfigT:
    """Validate ``tree`` against ``schema``; the :class:`ConfigError` lists every problem with its dotted path."""
    if not isinstance(tree, dict):
        raise ConfigError(f"{where} holds no settings.", "It must be a YAML mapping such as 'data: {...}'.")
    try:
        # Strict JSON mode: no number is made from a text, yet paths and tuples can be written down.
        return schema.model_validate_json(json.dumps(tree, default=str), strict=True)
    except ValidationError as error:
        lines = [_sentence(schema, tree, problem) for problem in error.errors()]
        count = "one problem" if len(lines) == 1 else f"{len(lines)} problems"
        raise ConfigError(f"{where} has {count}:\n  " + "\n  ".join(lines), "Correct the config.") from error


def load_train_config(config: str, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read, override and validate a training config: a YAML file or a packaged name.

    Raises:
        ConfigError: with every problem found, each with its dotted path.
    """
    where = f"The config '{config}'"
    tree = parse_yaml(read_config_text(config), where)
    if isinstance(tree, dict):
        tree = apply_overrides(tree, overrides)
    return validate(TrainConfig, tree, where)


def load_amg_config(config: str | None, changes: Mapping[str, Any]) -> AmgConfig:
    """The settings of a YAML file (None: the defaults), with ``changes`` in place of its values.

    Raises:
        ConfigError: with every problem found.
    """
    where = "The choice of amg settings" if config is None else f"The config '{config}'"
    tree = parse_yaml(read_config_text(config), where) or {} if config is not None else {}
    return validate(AmgConfig, {**tree, **changes} if isinstance(tree, dict) else tree, where)


def dump_yaml(config: Config) -> str:
    """The whole config as YAML that :func:`load_train_config` reads back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def changed_keys(old: Config, new: Config) -> list[str]:
    """Dotted paths whose values differ, each with both values."""
    left, right = dict(flatten(old.model_dump(mode="json"))), dict(flatten(new.model_dump(mode="json")))
    return [
        f"{key}: {left.get(key)!r} → {right.get(key)!r}"
        for key in sorted(left.keys() | right.keys())
        if left.get(key) != right.get(key)
    ]


def flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each leaf of a tree of mappings with its dotted path."""
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, tree


def _sentence(schema: type[BaseModel], tree: dict[str, Any], problem: ErrorDetails) -> str:
    """One error as 'dotted.path: what is wrong'."""
    path, owner = _locate(schema, tree, problem["loc"])
    dotted = ".".join(path) or "(top level)"
    if problem["type"] == "extra_forbidden":
        known = sorted(owner.model_fields)
        near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.6)
        hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(known)}"
        return f"{dotted}: unknown key; {hint}"
    if problem["type"] == "missing":
        return f"{dotted}: required, but not given"
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    value = problem["input"]
    return f"{dotted}: {message}" if isinstance(value, dict) else f"{dotted}: {message}, not {value!r}"


def _locate(schema: type[BaseModel], tree: Any, location: tuple[int | str, ...]) -> tuple[list[str], type[BaseModel]]:
    """The dotted path as the user wrote it, and the section class that owns its last key.

    Pydantic puts the tag of a discriminated union (``data.train.folder.images``) into the location; users never
    wrote that part.
    """
    path: list[str] = []
    owner, candidates = schema, [schema]
    for part in location:
        if isinstance(part, int):  # an item of a list: its sections are the list's
            path.append(str(part))
            # A missing item has a place of its own, beyond the end.
            tree = tree[part] if isinstance(tree, list) and part < len(tree) else None
            continue
        tagged = [c for c in candidates if _tag(c) == part]
        if tagged and not (isinstance(tree, dict) and part in tree):
            candidates = tagged
            owner = tagged[0]
            continue
        owner = candidates[0] if candidates else owner
        path.append(str(part))
        field = owner.model_fields.get(str(part))
        candidates = [] if field is None else list(_sections(field.annotation))
        tree = tree.get(part) if isinstance(tree, dict) else None
    return path, owner


def _tag(section: type[BaseModel]) -> object:
    field = section.model_fields.get("format")
    return typing.get_args(field.annotation)[0] if field is not None else None


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _sections(inner)
