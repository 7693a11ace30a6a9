"""Each image through an encoder once, and what comes out onto the disk: ``mobilesam embed``, ``distill extract``."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mobilesam_core.data.reading import read_image
from mobilesam_core.data.sample import BadFile
from mobilesam_core.files import file_sha256
from mobilesam_core.jobs.inputs import WHOLE, ImageFile, Shard
from mobilesam_core.jobs.runner import Job, run_job
from mobilesam_core.ops.frame import STRIDE
from mobilesam_core.ops.layout import NECK, Layout
from mobilesam_core.progress import NullReporter, Reporter
from mobilesam_core.runtime.protocol import Runtime, file_channels
from mobilesam_core.stores.features import FeatureWriter, require_space
from mobilesam_core.stores.producer import Producer

Features = Mapping[str, tuple[np.ndarray, Layout]]


class Extractor(Protocol):
    """What features come from.

    source: the file of its weights. channels: of the images. producer: what the features are stored as.
    levels: names of what it extracts. image_bytes: of one image's features in float16.
    """

    @property
    def source(self) -> Path: ...

    @property
    def channels(self) -> int: ...

    @property
    def producer(self) -> Producer: ...

    @property
    def levels(self) -> Sequence[str]: ...

    @property
    def image_bytes(self) -> int: ...

    def extract(self, image: np.ndarray) -> Features:
        """The features, float16, of a ``(H, W, 3)`` RGB (``(H, W)`` for one channel) uint8 image."""


class EmbeddingExtractor:
    """The :class:`Extractor` of any runtime's final embeddings."""

    levels = (NECK,)

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.source, self.channels, self.producer = runtime.source, runtime.channels, runtime.producer
        self.image_bytes = 2 * runtime.embed_dim * (runtime.image_size // STRIDE) ** 2

    def extract(self, image: np.ndarray) -> Features:
        with self._runtime.running():
            return {NECK: (self._runtime.store(self._runtime.encode(image).embedding), "CHW")}


@dataclass(frozen=True)
class EmbedResult:
    """What a run did with its share of the images; ``skipped`` ones were in the store already, by their content.

    bytes: written, of all files together. failures_file: lists the failures (None: none).
    """

    images: int
    skipped: int
    bytes: int
    seconds: float
    failures: tuple[BadFile, ...]
    failures_file: Path | None

    def to_json(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {
            "images": self.images,
            "skipped": self.skipped,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
            "failures": [{"image": failure.source, "problem": failure.problem} for failure in self.failures],
        }


def store_features(
    images: Sequence[ImageFile],
    extractor: Extractor,
    out: Path,
    *,
    shard: Shard = WHOLE,
    title: str = "Embedding",
    reporter: Reporter | None = None,
) -> EmbedResult:
    """Store the features of this share of ``images`` in ``out``.

    Images whose content is in the store are left out, so an interrupted run goes on where it stopped. One that cannot
    be used is reported and listed in ``failures.jsonl``; the error of a single image is raised.

    Raises:
        UsageError: the store holds features of another encoder, or image files cannot have the model's channels.
        OutputError: the disk has too little space, or a file cannot be written.
        Interrupted: Ctrl-C or SIGTERM; what was embedded is stored.
    """
    reporter = reporter or NullReporter()
    channels = file_channels(extractor.channels, extractor.source)
    own = shard.of(images)
    failures_file = out / f"failures{shard.suffix()}.jsonl"
    with FeatureWriter(out, extractor.producer, shard.suffix()) as writer:
        hashes = _hash(own, reporter)
        due = _due(own, hashes, writer, extractor.levels)
        if len(due) < len(own):
            reporter.info(f"{len(own) - len(due)} of {len(own)} images are stored already.")
        # At most: of an image that has some of the levels, only the others are written.
        size = len(due) * extractor.image_bytes
        require_space(out, size)
        if due:
            reporter.info(f"{len(due)} images x {extractor.image_bytes / 2**20:.2f} MiB = {size / 2**20:.1f} MiB.")

        def work(_: ImageFile, pixels: np.ndarray) -> tuple[tuple[int, int], Features]:
            return (pixels.shape[0], pixels.shape[1]), extractor.extract(pixels)

        def write(image: ImageFile, found: tuple[tuple[int, int], Features]) -> None:
            original, features = found
            writer.add(image.name, hashes[image.path], original, features)

        def note(_: object) -> dict[str, str]:
            return {"written": f"{writer.written_bytes / 2**20:.0f} MiB"}

        job = Job(load=lambda image: read_image(image.path, channels), work=work, write=write, note=note)
        start = time.perf_counter()
        failures = run_job(job, due, failures_file, title, reporter, raise_first=len(images) == 1)
    return EmbedResult(
        images=len(due) - len(failures),
        skipped=len(own) - len(due),
        bytes=writer.written_bytes,
        seconds=time.perf_counter() - start,
        failures=tuple(failures),
        failures_file=failures_file if failures else None,
    )


def _hash(images: Sequence[ImageFile], reporter: Reporter) -> dict[Path, str]:
    """The sha256 of each image file; an empty text where it cannot be read, which shows again when it is."""
    hashes = {}
    with reporter.task("Looking for new images", len(images), "images") as task:
        for image in images:
            try:
                hashes[image.path] = file_sha256(image.path)
            except OSError:
                hashes[image.path] = ""
            task.advance()
    return hashes


def _due(
    images: Sequence[ImageFile], hashes: dict[Path, str], writer: FeatureWriter, levels: Sequence[str]
) -> list[ImageFile]:
    """Images of which a level is not stored, each content once."""
    due, seen = [], set()
    for image in images:
        sha256 = hashes[image.path]
        if not sha256 or (sha256 not in seen and writer.missing(sha256, levels)):
            due.append(image)
        seen.add(sha256)
    return due
