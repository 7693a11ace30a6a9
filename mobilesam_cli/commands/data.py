"""``mobilesam data``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobilesam_cli.commands.data_convert import convert
from mobilesam_cli.completion import complete_config
from mobilesam_cli.model_options import Overwrite
from mobilesam_cli.options import Json, Overrides
from mobilesam_core.errors import DataError

if TYPE_CHECKING:
    from mobilesam_core.data.check.figures import SetFigures
    from mobilesam_core.data.check.workflow import DataCheck

_SHOWN, _CLASSES = 5, 20  # findings of a kind and classes; --json has all
TrainConfigFile = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG",
        help="A training config, or the name of a packaged one.",
        show_default=False,
        autocompletion=complete_config,
    ),
]
data = typer.Typer(no_args_is_help=True, help="Look after data sets: check, look at and convert them.")
data.command("convert")(convert)


@data.command("check")
def check(
    config: TrainConfigFile,
    overrides: Overrides = None,
    pictures: Annotated[
        Path | None,
        typer.Option("--pictures", metavar="DIR", help="Draw the worst findings into this folder.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Read all of data.train and data.val once, and name everything that is wrong.

    Errors would stop training, or make its figures untrue: files that cannot
    be read or do not pair up, masks of another size or of nothing, images of
    train that are in val too, whatever they are called. Warnings are of what
    is used as it is: masks that cover the whole image, tiny objects, the same
    picture twice, boxes without area. Any error ends with exit code 1.

    Sizes are the sides of squares of the objects' areas.

    [bold]Examples[/]

      mobilesam data check my.yaml

      mobilesam data check my.yaml --set model.image_size=1024 --pictures findings

      mobilesam data check my.yaml --json | jq '.findings[] | select(.severity == "error") | .source'
    """
    from mobilesam_cli.console import print_json, reporter, stdout
    from mobilesam_core.config.loading import load_train_config

    settings = load_train_config(config, overrides or [])

    from mobilesam_core.data.check.pictures import require_empty_folder, write_pictures
    from mobilesam_core.data.check.workflow import check_data

    if pictures is not None:
        require_empty_folder(pictures)
    found = check_data(settings, reporter())
    drawn = [] if pictures is None else write_pictures(found, pictures)
    if json:
        print_json(found.to_json())
    else:
        _show(found)
        if pictures is not None:
            stdout().print(f"{len(drawn)} pictures: {pictures}", soft_wrap=True, markup=False, emoji=False)
    if found.errors:
        raise DataError(f"The data have {found.errors} error(s).", "Correct what is listed and check again.")


@data.command("preview")
def preview(
    config: TrainConfigFile,
    out: Annotated[Path, typer.Option("--out", help="The picture, a PNG.")] = Path("preview.png"),
    count: Annotated[int, typer.Option("--count", min=1, help="Views on it.")] = 12,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Of the views and prompts.", show_default="train.seed")
    ] = None,
    overwrite: Overwrite = False,
    overrides: Overrides = None,
) -> None:
    """Draw what training sees: the views it begins with, their masks and prompts, in the model's input frame.

    Each object has a colour for its mask and box; points are green.
    What is plain grey at the right or at the bottom is padding.

    [bold]Examples[/]

      mobilesam data preview my.yaml --out sheet.png

      mobilesam data preview my.yaml --out crops.png --set data.augment.crop=256 --count 24 --seed 1
    """
    from mobilesam_cli.console import reporter, stdout
    from mobilesam_core.config.loading import load_train_config

    settings = load_train_config(config, overrides or [])

    from mobilesam_core.data.preview import preview as draw_preview

    drawn = draw_preview(settings, out, count=count, seed=seed, overwrite=overwrite, reporter=reporter())
    facts = f"{drawn.views} views with {drawn.boxes} boxes and {drawn.points} points"
    stdout().print(f"{facts}: {out}", soft_wrap=True, markup=False, emoji=False)


def _show(found: DataCheck) -> None:
    from rich.markup import escape

    from mobilesam_cli.console import stdout
    from mobilesam_core.data.check.findings import KINDS

    if found.figures:
        _show_figures(found)
    for name, figures in found.figures.items():
        if figures.classes:
            _show_classes(name, figures)
    counts = Counter(finding.kind for finding in found.findings)
    for kind, count in counts.items():
        severity, title = KINDS[kind]
        color = "red" if severity == "error" else "yellow"
        stdout().print(f"[bold {color}]{severity.capitalize()}[/] {title} ({count}):", soft_wrap=True)
        listed = [finding for finding in found.findings if finding.kind == kind]
        for finding in listed[:_SHOWN]:
            stdout().print(f"  {', '.join(finding.sets)}: {escape(finding.problem)}", soft_wrap=True, emoji=False)
        if count > _SHOWN:
            stdout().print(f"  … and {count - _SHOWN} more (--json lists all)")
        for remedy in dict.fromkeys(finding.remedy for finding in listed[:_SHOWN]):
            stdout().print(f"  [bold]→[/] {escape(remedy)}", soft_wrap=True, emoji=False)
    stdout().print(f"{found.errors} errors, {found.warnings} warnings")


def _show_figures(found: DataCheck) -> None:
    from rich.table import Table

    from mobilesam_cli.console import stdout

    table = Table(
        title=f"At an image size of {found.image_size}",
        title_justify="left",
        caption="A size is the side of the square of the same area (min 5% 25% 50% 75% 95% max);\n"
        "in the input it is that of the largest magnification that training may take.",
        caption_justify="left",
    )
    table.add_column("")
    for name in found.figures:
        table.add_column(name, justify="right")
    columns = list(found.figures.values())
    table.add_row("images", *(str(each.images) for each in columns))
    if any(each.unannotated is not None for each in columns):
        table.add_row("left out: no object", *(_figure(each.unannotated) for each in columns))
    if any(each.tiles is not None for each in columns):
        table.add_row("tiles trained on", *(_figure(each.tiles) for each in columns))
    table.add_row("objects", *(str(each.objects) for each in columns))
    table.add_row("objects an image", *(f"{each.objects_per_image:.1f}" for each in columns))
    table.add_row("sizes in pixels", *(_quantiles(each.sides) for each in columns))
    table.add_row("sizes in the input", *(_quantiles(each.sides_in_frame) for each in columns))
    table.add_section()
    for side in columns[0].histogram:
        table.add_row(f"size {side}", *(_share(each.histogram[side], each.objects) for each in columns))
    table.add_section()
    for size in columns[0].vanishing:
        label = f"area < {found.min_object_area} in {size}²"
        table.add_row(label, *(_share(each.vanishing[size], each.objects) for each in columns))
    stdout().print(table)


def _show_classes(name: str, figures: SetFigures) -> None:
    from rich.table import Table
    from rich.text import Text

    from mobilesam_cli.console import stdout

    classes = sorted(figures.classes or (), key=lambda each: -each.objects)
    table = Table(title=f"Classes of {name}", title_justify="left")
    for header, justify in (("class", "left"), ("objects", "right"), ("images", "right")):
        table.add_column(header, justify=justify)  # type: ignore[arg-type]
    for each in classes[:_CLASSES]:
        label = Text(str(each.id) if each.name is None else f"{each.id} {each.name}")
        table.add_row(label, _share(each.objects, figures.objects), str(each.images))
    if len(classes) > _CLASSES:
        table.add_row(f"… and {len(classes) - _CLASSES} more (--json lists all)")
    stdout().print(table)


def _share(count: int, total: int) -> str:
    return f"{count} {f'({count / total:.0%})' if count else '':>6}"


def _quantiles(values: Mapping[str, float]) -> str:
    return " ".join(f"{value:.0f}" for value in values.values())


def _figure(value: int | None) -> str:
    return "" if value is None else str(value)
