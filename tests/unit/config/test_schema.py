from __future__ import annotations

from pathlib import Path
from typing import Any

from mobilesam_core.config.reference import reference
from mobilesam_core.config.schema import train_schema

REPOSITORY = Path(__file__).parents[3]


def test_every_key_says_what_it_is() -> None:
    schema = train_schema()
    silent = [
        f"{name}.{key}"
        for name, section in {"top level": schema, **schema["$defs"]}.items()
        for key, node in section["properties"].items()
        if not node.get("description") and "const" not in node
    ]
    assert silent == [], "give these fields a docstring"


def test_descriptions_are_plain_lines() -> None:
    schema = train_schema()
    accumulate = schema["$defs"]["OptimConfig"]["properties"]["accumulate"]
    assert accumulate == {
        "default": 1,
        "description": "Batches summed into one optimizer step.",
        "minimum": 1,
        "type": "integer",
    }
    texts: list[str] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            texts.extend([node["description"]] if isinstance(node.get("description"), str) else [])
            for each in node.values():
                walk(each)
        elif isinstance(node, list):
            for each in node:
                walk(each)

    walk(schema)
    assert len(texts) > 100 and not any("``" in text or "\n" in text for text in texts)


def test_the_schema_is_closed_as_configs_are() -> None:
    schema = train_schema()
    assert all(each["additionalProperties"] is False for each in [schema, *schema["$defs"].values()])
    assert schema["required"] == ["data"]


def test_the_written_reference_is_up_to_date() -> None:
    written = (REPOSITORY / "docs/config.md").read_text(encoding="utf-8")
    assert written == reference(), "mobilesam config schema --format markdown --out docs/config.md --overwrite"


def test_the_reference_has_every_key_at_every_place() -> None:
    text = reference()
    for line in (
        "## model.encoder",
        "## format: folder",
        "In `data.train`, `data.train.sets[].set`, `data.val`.",
        "## distill.teachers[].features[]",
        "| `lr` | number > 0 | `0.0001` |",
        "| `image_size` | integer ≥ 64, a multiple of 64 or null | `null` |",
        "| `scale` | [number > 0, number > 0] | `[1.0, 1.0]` |",
        "| `train` | a set | **required** |",
    ):
        assert line in text, line
    defined = {key for section in train_schema()["$defs"].values() for key in section["properties"]}
    assert all(f"| `{key}` |" in text for key in defined)
