"""The JSON Schema of the training config: what editors complete and check, and the reference is made from."""

from __future__ import annotations

import re
from typing import Any

from mobilesam_core.config.train import TrainConfig


def train_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the YAML that ``mobilesam train`` reads.

    Every key has its docstring as ``description``; a section has its class's.
    """
    schema = TrainConfig.model_json_schema()
    definitions = schema["$defs"]
    for section in (schema, *definitions.values()):
        _clean(section, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mobilesam training config",
        **{key: schema[key] for key in ("description", "type", "additionalProperties", "required", "properties")},
        "$defs": dict(sorted(definitions.items())),
    }


def section_of(key: dict[str, Any]) -> str | None:
    """The name in ``$defs`` of the section that a key, or each item of a list, holds; None if it is a value or has a
    choice of sections."""
    for inner in (key, key.get("items", {}), *key.get("anyOf", ())):
        if "$ref" in inner:
            return str(inner["$ref"]).rpartition("/")[2]
    return None


def _clean(section: dict[str, Any], definitions: dict[str, dict[str, Any]]) -> None:
    """Leave out what tells a user nothing: pydantic's titles, and the defaults of whole sections."""
    section.pop("title", None)
    _plain(section)
    for key in section["properties"].values():
        key.pop("title", None)
        if name := section_of(key):
            key.setdefault("description", definitions[name]["description"])
            if key.get("default") is not None:
                del key["default"]
        _plain(key)


def _plain(node: dict[str, Any]) -> None:
    """Docstrings mark code by two backticks and break lines anywhere; readers of the schema expect one, and none."""
    if "description" in node:
        node["description"] = re.sub(r"\s+", " ", node["description"].replace("``", "`")).strip()
