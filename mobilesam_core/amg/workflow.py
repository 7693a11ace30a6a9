"""``mobilesam amg``: everything in many images, written as it is found."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mobilesam_core.amg.formats import FormatName, ImageMasks, build_format
from mobilesam_core.amg.generator import FoundMask, SamAutomaticMaskGenerator
from mobilesam_core.amg.ledger import Ledger
from mobilesam_core.config.amg import AmgConfig, AmgThresholds
from mobilesam_core.data.reading import read_image
from mobilesam_core.data.sample import BadFile
from mobilesam_core.files import remove_leftovers
from mobilesam_core.jobs.inputs import WHOLE, ImageFile, Shard
from mobilesam_core.jobs.runner import Job, run_job
from mobilesam_core.ops.drawing import distinct_color, fill_mask, line_width, new_canvas, outline_mask, write_png
from mobilesam_core.ops.rle import decode_rle
from mobilesam_core.prediction.stored import StoredEmbeddings, refuse_tiles
from mobilesam_core.progress import NullReporter, Reporter
from mobilesam_core.runtime.protocol import EncodedImage, Runtime, file_channels


@dataclass(frozen=True)
class AmgOptions:
    """out: the folder of the results. shard: this run's share of the images. overlay: draw a picture of each image too.
    overwrite: replace the results of an earlier run. embeddings: a feature store to take embeddings of whole images
    from."""

    out: Path
    format: FormatName = "png"
    overlay: bool = False
    shard: Shard = WHOLE
    overwrite: bool = False
    embeddings: Path | None = None


@dataclass(frozen=True)
class AmgResult:
    """What a run did with its share of the images; ``skipped`` ones were done already.

    thresholds: that masks were kept by. written: the file of the whole set, if the format has one. failures_file:
    lists the failures (None: none).
    """

    images: int
    skipped: int
    masks: int
    thresholds: AmgThresholds
    seconds: float
    failures: tuple[BadFile, ...]
    failures_file: Path | None
    written: Path | None

    def to_json(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {
            "images": self.images,
            "skipped": self.skipped,
            "masks": self.masks,
            **self.thresholds.model_dump(),
            "seconds": round(self.seconds, 3),
            "failures": [{"image": failure.source, "problem": failure.problem} for failure in self.failures],
            "written": None if self.written is None else str(self.written),
        }


def generate_masks(
    images: Sequence[ImageFile],
    runtime: Runtime,
    settings: AmgConfig,
    options: AmgOptions,
    reporter: Reporter | None = None,
) -> AmgResult:
    """Find and write the masks of this share of ``images``.

    Images that are done are left out, so an interrupted run goes on where it stopped. One that cannot be used is
    reported and listed in ``failures.jsonl``; the error of a single image is raised.

    Raises:
        UsageError: the folder holds results of other images or settings and ``overwrite`` is off, image files cannot
            have the model's channels, or the embeddings are of another encoder or given with tiles; nothing was done.
        OutputError: a result cannot be written.
        Interrupted: Ctrl-C or SIGTERM; finished images are kept.
    """
    reporter = reporter or NullReporter()
    channels = file_channels(runtime.channels, runtime.source)
    refuse_tiles(options.embeddings, settings.tile is not None)
    stored = None if options.embeddings is None else StoredEmbeddings(options.embeddings, runtime)
    form = build_format(options.format, options.out)
    settings = settle_thresholds(settings, runtime, reporter)
    ledger = Ledger(options.out, _what_counts(runtime, settings, options))
    numbered = options.shard.of(list(enumerate(images, 1)))
    own = [image for _, image in numbered]
    if options.overwrite:
        ledger.forget(own)
    due = ledger.due(own, options.overlay)
    if len(due) < len(own):
        reporter.info(f"{len(own) - len(due)} of {len(own)} images are done already.")
    _clear_leftovers(options.out, due)
    failures_file = options.out / f"failures{options.shard.suffix()}.jsonl"
    generator = build_generator(runtime, settings)
    masks = 0

    def write(image: ImageFile, found: _Found) -> None:
        nonlocal masks
        overlay = options.out / f"{image.name}_overlay.png"
        if found.pixels is not None:
            write_png(overlay, draw_found(found.pixels, found.masks.masks))
        else:
            overlay.unlink(missing_ok=True)  # of an earlier run
        form.write(found.masks)
        ledger.enter(image, len(found.masks.masks), options.overlay)
        masks += len(found.masks.masks)

    job = Job(
        load=lambda image: (read_image(image.path, channels), None if stored is None else stored.of(image.path)),
        work=lambda image, loaded: _find(generator, settings, image, *loaded, options.overlay),
        write=write,
        note=lambda found: {"masks": str(len(found.masks.masks))},
    )
    start = time.perf_counter()
    failures = run_job(job, due, failures_file, "Finding masks", reporter, raise_first=len(images) == 1)
    seconds = time.perf_counter() - start
    if due and not masks and len(failures) < len(due):
        reporter.warning(nothing_found(settings))
    written = form.finish([(number, image) for number, image in numbered if ledger.holds(image)], options.shard)
    return AmgResult(
        images=len(due) - len(failures),
        skipped=len(own) - len(due),
        masks=masks,
        thresholds=_thresholds(settings),
        seconds=seconds,
        failures=tuple(failures),
        failures_file=failures_file if failures else None,
        written=written,
    )


def settle_thresholds(settings: AmgConfig, runtime: Runtime, reporter: Reporter) -> AmgConfig:
    """``settings`` with both thresholds: where one is left open, what the model's file suggests, else the default.
    Tells which they are."""
    suggested = runtime.amg_thresholds
    found, told = {}, []
    for name, value in suggested or AmgThresholds():
        given = getattr(settings, name)
        origin = "given" if given is not None else "the default" if suggested is None else runtime.source.name
        found[name] = value if given is None else given
        told.append(f"{name} {found[name]:g} ({origin})")
    reporter.info(f"Masks are kept by {', '.join(told)}.")
    return settings.model_copy(update=found)


def _thresholds(settings: AmgConfig) -> AmgThresholds:
    return AmgThresholds.model_validate(settings.model_dump(include=set(AmgThresholds.model_fields)))


def build_generator(runtime: Runtime, settings: AmgConfig) -> SamAutomaticMaskGenerator:
    """The generator of these settings, whose thresholds are settled."""
    return SamAutomaticMaskGenerator(runtime, **settings.model_dump(exclude={"min_area", "max_masks"}))


def find_masks(
    generator: SamAutomaticMaskGenerator, settings: AmgConfig, image: np.ndarray, encoded: EncodedImage | None = None
) -> tuple[FoundMask, ...]:
    """The masks of a ``(H, W, 3)`` RGB (``(H, W)`` for a model of one channel) uint8 image, best-scored first.

    encoded: the whole image's encoding, where it is known already.
    """
    found = [each for each in generator.find(image, encoded) if each.area >= max(1, settings.min_area)]
    return tuple(sorted(found, key=lambda each: -each.predicted_iou)[: settings.max_masks])


def nothing_found(settings: AmgConfig) -> str:
    """What to tell a user whose images gave no mask at all."""
    return (
        f"No mask passed the thresholds ({_thresholds(settings)}). The defaults suit the official weights; for "
        "others lower both, for nano to 0.7 and 0.8 or less."
    )


@dataclass(frozen=True)
class _Found:
    """pixels: of the image, to draw on, where that is wanted."""

    masks: ImageMasks
    pixels: np.ndarray | None


def _find(
    generator: SamAutomaticMaskGenerator,
    settings: AmgConfig,
    image: ImageFile,
    pixels: np.ndarray,
    encoded: EncodedImage | None,
    keep_pixels: bool,
) -> _Found:
    found = find_masks(generator, settings, pixels, encoded)
    return _Found(ImageMasks(image, pixels.shape[0], pixels.shape[1], found), pixels if keep_pixels else None)


def _what_counts(runtime: Runtime, settings: AmgConfig, options: AmgOptions) -> dict[str, Any]:
    """What results depend on."""
    left_out = {"points_per_batch"} if settings.tile is not None else {"points_per_batch", "overlap"}
    return {
        "format": options.format,
        "precision": runtime.precision,
        "embeddings": options.embeddings is not None,  # stored in float16, they move some edges
        "model": runtime.model,
        "image_size": runtime.image_size,
        "checkpoint_sha256": runtime.sha256,
        **settings.model_dump(mode="json", exclude=left_out),
    }


def _clear_leftovers(out: Path, images: Sequence[ImageFile]) -> None:
    """Remove what a killed run left half-written of these images."""
    folders: dict[Path, set[str]] = defaultdict(set)
    for image in images:
        name = PurePosixPath(image.name)
        for hidden in ("", ".amg", ".parts"):
            folders[out / hidden / name.parent] |= {name.name, f"{name.name}_overlay"}
        folders[out / name] |= {"metadata", *(path.stem for path in (out / name).glob("*.png"))}
    for folder, stems in folders.items():
        remove_leftovers(folder, stems)


def draw_found(pixels: np.ndarray, masks: Sequence[FoundMask]) -> np.ndarray:
    """A picture of an image with all of its masks, smaller ones on larger ones."""
    canvas = new_canvas(pixels)
    width = line_width(canvas)
    for number, each in sorted(enumerate(masks), key=lambda pair: -pair[1].area):
        mask = decode_rle(each.rle)
        fill_mask(canvas, mask, distinct_color(number))
        outline_mask(canvas, mask, distinct_color(number), width)
    return canvas
