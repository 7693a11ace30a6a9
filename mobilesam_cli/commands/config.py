"""``mobilesam config``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mobilesam_cli.model_options import Overwrite
from mobilesam_cli.options import Json

if TYPE_CHECKING:
    from mobilesam_core.config.finetune.convert import FinetuneConversion
    from mobilesam_core.training.starter import StarterConfig

config = typer.Typer(no_args_is_help=True, help="Write training configs, and what editors need to know of them.")


@config.command("init")
def init(
    data: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Your data: images with masks or annotations.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="The config, a YAML.")] = Path("train.yaml"),
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Look at a folder of data and write a commented config that trains on it as it is.

    Told apart are COCO JSON, labelme, SA-1B's layout, YOLO polygons, and images beside mask images
    (one object, connected components, ids, classes, or a folder of masks an image), with their splits
    by name: train, val, test. FOLDER may also be the folder of images, or one COCO file.

    Model, sizes and length are chosen for the objects found and for this machine.

    [bold]Examples[/]

      mobilesam config init /data/nuclei

      mobilesam config init photos/annotations/instances_train.json --out photos.yaml

      mobilesam config init /data/nuclei && mobilesam train train.yaml
    """
    from mobilesam_cli.console import print_json, reporter
    from mobilesam_core.training.starter import write_starter

    made = write_starter(data, out, overwrite=overwrite, reporter=reporter())
    if json:
        print_json(made.to_json())
    else:
        _show_starter(made)


@config.command("convert")
def convert(
    old: Annotated[Path, typer.Argument(metavar="JSON", help="A config of MobileSAM_Finetune.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", help="The config, a YAML.", show_default="JSON's name, with .yaml")
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Convert a JSON config of MobileSAM_Finetune, flat or nested, to a commented YAML that is checked.

    Every key is mapped, or named with the reason why nothing stands for it; unknown keys are named, too.

    [bold]Examples[/]

      mobilesam config convert configs/mobileSAM.json

      mobilesam config convert old.json --out train.yaml --json | jq .dropped
    """
    from mobilesam_cli.console import print_json
    from mobilesam_core.config.finetune.convert import convert_finetune, read_finetune
    from mobilesam_core.files import require_free, write_text

    text = read_finetune(old)
    target = out or Path(old.with_suffix(".yaml").name)
    require_free(target, overwrite)

    from mobilesam_core.data.recognise.workflow import mask_mode_of

    found = convert_finetune(text, old.name, mask_mode_of)
    write_text(target, found.text)
    if json:
        print_json({"config": str(target), **found.to_json()})
    else:
        _show_conversion(found, target)


@config.command("schema")
def schema(
    out: Annotated[Path | None, typer.Option("--out", help="A file for it.", show_default="stdout")] = None,
    form: Annotated[
        Literal["json", "markdown"],
        typer.Option("--format", help="JSON Schema, for editors; or a reference of every key, for people."),
    ] = "json",
    overwrite: Overwrite = False,
) -> None:
    """Print the JSON Schema of training configs, or a reference of every key with its default and meaning.

    Editors complete, explain and check a config that begins with

      # yaml-language-server: $schema=mobilesam.schema.json

    [bold]Examples[/]

      mobilesam config schema --out mobilesam.schema.json

      mobilesam config schema --format markdown | less
    """
    from json import dumps

    from mobilesam_core.config.reference import reference
    from mobilesam_core.config.schema import train_schema
    from mobilesam_core.files import require_free, write_text

    if out is not None:
        require_free(out, overwrite)
    text = reference() if form == "markdown" else dumps(train_schema(), indent=2, ensure_ascii=False) + "\n"
    if out is None:
        print(text, end="")
    else:
        write_text(out, text)


def _show_starter(made: StarterConfig) -> None:
    import shlex

    from mobilesam_cli.console import stdout

    sets = [made.train.describe("train on"), *([] if made.val is None else [made.val.describe("validate on")])]
    next_command = f"mobilesam train {shlex.quote(str(made.path))}"
    for line in (
        f"{made.data.why}: {', '.join(sets)}.",
        *made.remarks,
        f"{made.path} is written. Next: {next_command}",
    ):
        stdout().print(line, soft_wrap=True, markup=False, emoji=False)


def _show_conversion(found: FinetuneConversion, target: Path) -> None:
    from mobilesam_cli.console import stdout

    for key, why in found.dropped.items():
        stdout().print(f"{key}: dropped; {why}", soft_wrap=True, markup=False, emoji=False)
    for key in found.unknown:
        stdout().print(f"{key}: unknown, left out", soft_wrap=True, markup=False, emoji=False)
    counts = f"{len(found.mapped)} keys mapped, {len(found.dropped)} dropped, {len(found.unknown)} unknown"
    stdout().print(f"{counts}: {target}", soft_wrap=True, markup=False, emoji=False)
