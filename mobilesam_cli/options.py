"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from mobilesam_cli.completion import complete_config

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key of the config, e.g. --set optim.lr=1e-4. May be given several times.",
        show_default=False,
    ),
]
DataConfig = Annotated[
    str | None,
    typer.Option(
        "--config",
        help="Take the data from a training config.",
        show_default=False,
        autocompletion=complete_config,
    ),
]
MaskMode = Literal["binary", "components", "instances", "classes", "per_instance"]
Images = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="IMAGES...",
        help="Image files, folders (searched through), patterns; '-' reads a list from stdin.",
        show_default=False,
    ),
]
ShardOption = Annotated[
    str, typer.Option("--shard", metavar="I/N", help="Do the I-th of N equal shares of the images.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document on stdout.")]
