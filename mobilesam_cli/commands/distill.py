"""``mobilesam distill``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobilesam_cli.model_options import Checkpoint, Device, ImageSize, ModelType, Precision
from mobilesam_cli.options import Images, Json, Overrides, ShardOption
from mobilesam_core.errors import DataError, UsageError

if TYPE_CHECKING:
    from mobilesam_core.distillation.checking import StoreInfo, Verification
    from mobilesam_core.distillation.teacher import LevelExtractor
    from mobilesam_core.jobs.inputs import ImageFile, Shard

Levels = Annotated[
    str | None,
    typer.Option(
        "--levels",
        metavar="LEVEL,...",
        help="What to keep: neck (the embedding, by default), stages.N of vit_t and vit_nano, blocks.N of vit_b, vit_l "
        "and vit_h.",
        show_default=False,
    ),
]
Store = Annotated[Path, typer.Argument(metavar="STORE", help="Folder of a feature store.", show_default=False)]
distill = typer.Typer(no_args_is_help=True, help="Store a teacher's features, and look at what is stored.")


@distill.command("extract")
def extract(
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CONFIG | IMAGES...",
            help="A training config with a distill section; or image files, folders, patterns; '-' reads a list from "
            "stdin.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the feature store (for images: features).")
    ] = None,
    checkpoint: Checkpoint = None,
    levels: Levels = None,
    model_type: ModelType = None,
    image_size: ImageSize = None,
    precision: Precision = "32",
    shard: ShardOption = "1/1",
    overrides: Overrides = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Run a teacher over images once, and store what its encoder puts out.

    With a CONFIG, of each of its teachers that has a store, what mobilesam
    train CONFIG will read; with IMAGES, what --checkpoint and --levels say.

    The store is the one of mobilesam embed: the same command goes on where it
    stopped, adds what is new, and skips what is there; further levels of the
    same images are added to it. Its size is told before the start. Features
    are float16: 2 MiB an image for the neck of SAM's models at 1024 pixels,
    6 MiB for a block of vit_b.

    [bold]Examples[/]

      mobilesam distill extract distill.yaml --set data.root=/data/photos

      mobilesam distill extract photos/ --checkpoint sam_vit_b_01ec64.pth --out vit_b

      mobilesam distill extract photos/ --checkpoint sam_vit_b_01ec64.pth --levels blocks.8,neck --out vit_b

      mobilesam distill extract photos/ --checkpoint sam_vit_h_4b8939.pth --out vit_h --shard $SLURM_ARRAY_TASK_ID/16
    """
    from mobilesam_cli.console import print_json, reporter, show_stored
    from mobilesam_cli.errors import raise_failures
    from mobilesam_core.jobs.inputs import Shard, find_images

    share = Shard.parse(shard)
    if images is not None and len(images) == 1 and images[0].lower().endswith((".yaml", ".yml")):
        given = {"--out": out, "--checkpoint": checkpoint, "--levels": levels, "--model-type": model_type}
        _extract_for_config(
            images[0], overrides or [], given | {"--image-size": image_size}, share, device, precision, json
        )
        return
    if overrides:
        raise UsageError("--set changes a config, and none is given.", "Name a YAML file in place of IMAGES.")
    names = _parse_levels("neck" if levels is None else levels)
    out = out or Path("features")
    files = find_images(images or [], sys.stdin if "-" in (images or []) else (), out)

    from mobilesam_core.embedding.workflow import store_features

    extractor = _open(checkpoint, model_type, image_size, device, precision, names)
    result = store_features(files, extractor, out, shard=share, title="Extracting", reporter=reporter())
    if json:
        print_json(result.to_json())
    else:
        show_stored("images' features", result, out)
    raise_failures(len(result.failures), result.images, "extracted", result.failures_file)


def _extract_for_config(
    config: str,
    overrides: list[str],
    given: dict[str, object],
    share: Shard,
    device: Device,
    precision: Precision,
    json: bool,
) -> None:
    from mobilesam_cli.console import print_json, reporter, show_stored
    from mobilesam_cli.errors import raise_failures
    from mobilesam_core.config.loading import load_train_config

    if taken := [option for option, value in given.items() if value is not None]:
        raise UsageError(f"{taken[0]} does not go with a config, which says it itself.", "Change the config, or --set.")
    settings = load_train_config(config, overrides)

    from mobilesam_core.distillation.extraction import extract_for_training
    from mobilesam_core.prediction.device import resolve_device

    extracted = extract_for_training(
        settings, device=resolve_device(device), precision=precision, shard=share, reporter=reporter()
    )
    if json:
        print_json([{"teacher": each.teacher, "store": str(each.store), **each.result.to_json()} for each in extracted])
    for each in extracted:
        if not json:
            show_stored(f"images' features by {each.teacher}", each.result, each.store)
    for each in extracted:
        raise_failures(len(each.result.failures), each.result.images, "extracted", each.result.failures_file)


@distill.command("info")
def info(store: Store, json: Json = False) -> None:
    """What a feature store holds, and what made it.

    [bold]Example[/]

      mobilesam distill info vit_b
    """
    from mobilesam_cli.console import print_json
    from mobilesam_core.distillation.checking import describe_store

    found = describe_store(store)
    if json:
        print_json(found.to_json())
    else:
        _show_info(found)


@distill.command("verify")
def verify(
    store: Store,
    images: Images = None,
    checkpoint: Annotated[
        str | None,
        typer.Option("--checkpoint", help="The teacher, to compare a few images with.", show_default=False),
    ] = None,
    model_type: ModelType = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Read every feature again; with IMAGES, look for what is missing too.

    Each tensor is compared with its checksum. IMAGES that the store lacks, or
    that have changed since, are all named. With --checkpoint, eight of them go
    through the teacher again. Anything wrong ends with exit code 1.

    [bold]Examples[/]

      mobilesam distill verify vit_b

      mobilesam distill verify vit_b photos/ --checkpoint sam_vit_b_01ec64.pth
    """
    from mobilesam_cli.console import print_json, reporter
    from mobilesam_core.distillation.checking import verify_store
    from mobilesam_core.jobs.inputs import find_images
    from mobilesam_core.stores.features import FeatureStore

    if checkpoint is not None and not images:
        raise UsageError("--checkpoint compares features of images, and none are named.", "Name IMAGES too.")
    files: list[ImageFile] = []
    if images:
        files = find_images(images, sys.stdin if "-" in images else (), store)
    extractor = None
    if checkpoint is not None:
        known = FeatureStore(store)
        levels = sorted({level for entry in known.entries.values() for level in entry.levels})
        precision = known.producer.precision
        if precision not in ("32", "bf16"):
            raise UsageError(
                f"{store} was made in {precision}, which torch does not compute.", "Leave --checkpoint out."
            )
        extractor = _open(checkpoint, model_type, known.producer.image_size, device, precision, levels)  # type: ignore[arg-type]
    found = verify_store(store, files, extractor, reporter=reporter())
    if json:
        print_json(found.to_json())
    _conclude(found, store, quiet=json)


def _parse_levels(text: str) -> list[str]:
    levels = [level.strip() for level in text.split(",")]
    if not all(levels) or len(set(levels)) < len(levels):
        raise UsageError(f"'{text}' is no list of levels.", "Write e.g. --levels blocks.8,neck, each once.")
    return levels


def _open(
    checkpoint: str | None,
    model_type: str | None,
    image_size: int | None,
    device: Device,
    precision: Precision,
    levels: list[str],
) -> LevelExtractor:
    from mobilesam_cli.console import reporter
    from mobilesam_core.checkpoints.loading import default_checkpoint
    from mobilesam_core.distillation.teacher import LevelExtractor, open_teacher
    from mobilesam_core.prediction.device import resolve_device

    runtime = open_teacher(
        checkpoint or default_checkpoint(model_type, reporter()),
        reporter(),
        model_name=model_type,
        image_size=image_size,
        device=resolve_device(device),
        precision=precision,
    )
    return LevelExtractor(runtime, levels)


def _show_info(found: StoreInfo) -> None:
    from rich.table import Table

    from mobilesam_cli.console import stdout

    producer = found.producer
    stdout().print(
        f"{found.images} images in {found.files} files, {found.bytes / 2**20:.1f} MiB; by {producer.model} "
        f"{producer.encoder_sha256[:12]} at {producer.image_size} pixels, precision {producer.precision}",
        soft_wrap=True,
    )
    table = Table("level", "images", "shape", "layout", "MiB")
    for name, level in sorted(found.levels.items()):
        shape = " x ".join(map(str, level.shape))
        table.add_row(name, str(level.images), shape, level.layout, f"{level.bytes / 2**20:.1f}")
    stdout().print(table)


def _conclude(found: Verification, store: Path, quiet: bool) -> None:
    from mobilesam_cli.console import stdout

    if found.broken:
        listed = "\n  ".join(found.broken.values())
        raise DataError(
            f"{len(found.broken)} file(s) of {store} are broken:\n  {listed}",
            "Remove them; the same distill extract command makes only what they held.",
        )
    if found.missing:
        listed = "\n  ".join(found.missing)
        raise DataError(
            f"{store} lacks {len(found.missing)} image(s), or they have changed since:\n  {listed}",
            "Run distill extract with the same teacher; it makes only what is missing.",
        )
    if found.different:
        listed = "\n  ".join(f"{image}: off by {error:.1e}" for image, error in found.different.items())
        raise DataError(f"The teacher makes other features:\n  {listed}", "Remove the store and extract again.")
    if not quiet:
        with_teacher = f"; {found.compared} images are as the teacher makes them" if found.compared else ""
        stdout().print(f"{found.checked} features are whole{with_teacher}: {store}", soft_wrap=True)
