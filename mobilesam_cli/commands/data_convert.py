"""``mobilesam data convert``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mobilesam_cli.data_sets import set_of_config
from mobilesam_cli.model_options import Overwrite
from mobilesam_cli.options import DataConfig, Json, MaskMode, Overrides
from mobilesam_core.errors import UsageError

if TYPE_CHECKING:
    from mobilesam_core.config.data import SetConfig
    from mobilesam_core.data.convert import Conversion

Source = Literal["folder", "coco", "sa1b", "yolo", "labelme"]
Target = Literal["coco", "sa1b", "yolo", "labelme", "per_instance", "instances"]

_OPTIONS: dict[Source, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "folder": (("images", "masks"), ("mask_mode",)),
    "coco": (("images", "annotations"), ()),
    "sa1b": (("images",), ("annotations",)),
    "yolo": (("images", "labels"), ()),
    "labelme": (("annotations",), ("images",)),
}
"""The options that a format needs, and those that it may have."""


def convert(
    to: Annotated[Target, typer.Option("--to", help="What to write; per_instance and instances are kinds of folder.")],
    out: Annotated[Path, typer.Option("--out", help="A new folder for it.", show_default=False)],
    config: DataConfig = None,
    split: Annotated[Literal["train", "val"], typer.Option("--split", help="Which set of the config.")] = "train",
    source: Annotated[Source | None, typer.Option("--from", help="Or: the format of …", show_default=False)] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="… a folder of images, with …", show_default=False)
    ] = None,
    masks: Annotated[
        Path | None, typer.Option("--masks", help="(folder) a folder of masks of the same stems,", show_default=False)
    ] = None,
    mask_mode: Annotated[
        MaskMode | None, typer.Option("--mask-mode", help="what they hold,", show_default="instances")
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            "--annotations", help="(coco) a JSON file, (sa1b, labelme) a folder of JSON files,", show_default=False
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="(yolo) a folder of text files.", show_default=False)
    ] = None,
    lossy: Annotated[
        bool, typer.Option("--lossy", help="Of overlapping objects, which instances cannot hold, keep the smaller.")
    ] = False,
    overwrite: Overwrite = False,
    overrides: Overrides = None,
    json: Json = False,
) -> None:
    """Write a data set in another format, masks kept to the pixel, with its images.

    The folder appears once all is written. Objects that overlap do not fit into
    'instances', and are refused without --lossy. Classes go into coco, yolo and labelme.
    What is printed at the end is what a training config says to use the new set.

    [bold]Examples[/]

      mobilesam data convert --config nuclei.yaml --split val --to coco --out nuclei_coco

      mobilesam data convert --from coco --images val2017 --annotations val2017.json --to yolo --out val_yolo

      mobilesam data convert --from labelme --annotations labelled --to per_instance --out mine

      mobilesam data convert --from sa1b --images photos --annotations masks --to labelme --out corrections
    """
    given = {"images": images, "masks": masks, "mask_mode": mask_mode, "annotations": annotations, "labels": labels}
    options = {name: value for name, value in given.items() if value is not None}
    data, root = _data(config, split, overrides, source, options)

    from mobilesam_cli.console import print_json, reporter
    from mobilesam_core.data.convert import convert

    result = convert(data, root, to, out, lossy=lossy, overwrite=overwrite, reporter=reporter())
    if json:
        print_json(result.to_json())
    else:
        _show(result, split)


def _data(
    config: str | None,
    split: Literal["train", "val"],
    overrides: list[str] | None,
    source: Source | None,
    options: dict[str, Path | MaskMode],
) -> tuple[SetConfig, Path]:
    """The data set the options name, and what its paths are relative to."""
    if (config is None) == (source is None):
        raise UsageError(
            "Name the data once: " + ("none is given." if config is None else "--config and --from are both given."),
            "Use --config train.yaml, or --from with --images and what goes with it.",
        )
    if config is None:
        assert source is not None
        if overrides:
            raise UsageError("--set changes a config, but there is no --config.")
        return _set_of(source, options), Path()
    if options:
        raise UsageError(f"{_option(next(iter(options)))} goes with --from, not with --config.")
    chosen, data = set_of_config(config, split, overrides or [])
    return chosen, data.root


def _set_of(source: Source, options: dict[str, Path | MaskMode]) -> SetConfig:
    from pydantic import TypeAdapter

    from mobilesam_core.config.data import SetConfig

    needed, optional = _OPTIONS[source]
    if missing := [name for name in needed if name not in options]:
        raise UsageError(f"--from {source} needs {' and '.join(_option(name) for name in missing)}.")
    if strange := [name for name in options if name not in needed + optional]:
        raise UsageError(f"{_option(strange[0])} does not go with --from {source}.")
    defaults = {"mask_mode": "instances"} if source == "folder" else {}
    chosen: SetConfig = TypeAdapter(SetConfig).validate_python({"format": source, **defaults, **options})
    return chosen


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _show(result: Conversion, split: str) -> None:
    from mobilesam_cli.console import stdout

    classes = f", {len(result.categories)} classes" if len(result.categories) > 1 else ""
    facts = f"{result.images} images, {result.objects} objects{classes}"
    stdout().print(f"{facts}: {result.folder}", soft_wrap=True, markup=False, emoji=False)
    stdout().print("In a training config:\n", soft_wrap=True)
    print(result.yaml(split), end="")  # not through rich, which would read marks of its own in names
