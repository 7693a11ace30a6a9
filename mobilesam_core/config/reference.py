"""The reference of every key (``docs/config.md``), made from the schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from mobilesam_core.config.schema import section_of, train_schema

_INTRO = """\
# The training config: every key

Made by `mobilesam config schema --format markdown`; the words are those of the code, in `mobilesam_core/config/`.

`mobilesam train` reads one YAML file. Write one by

```sh
mobilesam config init /data/mine --out train.yaml       # looks at your data: format, splits, sizes, this machine
mobilesam config convert old.json --out train.yaml      # from MobileSAM_Finetune's JSON (docs/migrate.md)
```

or by hand, from an [example](../examples/configs). Only `data.train` must be there; everything else has a default.
`--set optim.lr=1e-4` changes a key from the shell. Paths are relative to the working directory, those of data to
`data.root`. An unknown key is an error that names the nearest known one. Sections may be written either way:

```yaml
optim: {lr: 1.0e-4, batch_size: 4}
train:
  epochs: 20
```

**In an editor.** `mobilesam config schema --out mobilesam.schema.json` writes the JSON Schema; editors with the YAML
language server (VS Code's YAML extension, Neovim, …) then complete keys, show these texts and mark mistakes in a file
that begins with

```yaml
# yaml-language-server: $schema=mobilesam.schema.json
```
"""


def reference() -> str:
    """Markdown: a table of keys, types, defaults and meanings for each section."""
    schema = train_schema()
    parts = [_INTRO, *_rows_of("Top level", schema)]
    for name, paths in _placed(schema).items():
        definition = schema["$defs"][name]
        tag = definition["properties"].get("format", {}).get("const")
        if tag is None:
            parts += _rows_of(", ".join(paths), definition)
        else:
            places = ", ".join(f"`{path}`" for path in paths)
            parts += _rows_of(_title(tag), definition, f"In {places}.")
    return "\n".join(parts)


def _placed(schema: dict[str, Any]) -> dict[str, list[str]]:
    """The sections by name, each with every path it can stand at, in the order in which they are met."""
    found: dict[str, list[str]] = {}

    def walk(section: dict[str, Any], prefix: str) -> None:
        for key, node in section["properties"].items():
            path = f"{prefix}{key}" + ("[]" if "items" in node else "")
            for name in _sections(node):
                places = found.setdefault(name, [])
                if path not in places:
                    places.append(path)
                    walk(schema["$defs"][name], f"{path}.")

    walk(schema, "")
    return found


def _sections(node: dict[str, Any]) -> Iterator[str]:
    if name := section_of(node):
        yield name
    for choice in (node, *node.get("anyOf", ())):
        yield from (one["$ref"].rpartition("/")[2] for one in choice.get("oneOf", ()))


def _title(tag: str) -> str:
    return f"format: {tag}"


def _rows_of(title: str, section: dict[str, Any], where: str = "") -> list[str]:
    lines = [f"## {title}", "", f"{section['description']} {where}".strip(), ""]
    lines += ["| key | value | default | |", "|---|---|---|---|"]
    required = section.get("required", ())
    for key, node in section["properties"].items():
        default = "**required**" if key in required else _default(node)
        cells = (f"`{key}`", _value(node), default, node.get("description", ""))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*lines, ""]


def _default(node: dict[str, Any]) -> str:
    return f"`{json.dumps(node['default'])}`" if "default" in node else ""


def _value(node: dict[str, Any]) -> str:
    """What may be written, in a few words."""
    if "anyOf" in node:
        return " or ".join(_value(choice) for choice in node["anyOf"])
    if "oneOf" in node:
        return "a set"
    if "$ref" in node:
        return "section"
    if "const" in node or "enum" in node:
        return ", ".join(f"`{value}`" for value in node.get("enum", [node.get("const")]))
    if "prefixItems" in node:
        return "[" + ", ".join(_value(item) for item in node["prefixItems"]) + "]"
    if "items" in node:
        return f"list of {_value(node['items'])}"
    kind = {"boolean": "true, false", "string": "path" if node.get("format") == "path" else "text"}
    return kind.get(node["type"], node["type"]) + _bounds(node)


def _bounds(node: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {node[key]:g}" for key, sign in signs.items() if key in node]
    if "multipleOf" in node:
        bounds.append(f"a multiple of {node['multipleOf']}")
    return f" {', '.join(bounds)}" if bounds else ""
