"""``mobilesam embed``: each image through the encoder once, and what comes out onto the disk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mobilesam_core.data.reading import read_image
from mobilesam_core.data.sample import BadFile
from mobilesam_core.files import file_sha256
from mobilesam_core.jobs.inputs import WHOLE, ImageFile, Shard
from mobilesam_core.jobs.runner import Job, run_job
from mobilesam_core.ops.frame import STRIDE
from mobilesam_core.progress import NullReporter, Reporter
from mobilesam_core.runtime.protocol import EncodedImage, Runtime, file_channels
from mobilesam_core.stores.features import NECK, FeatureWriter, require_space


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


def embed_images(
    images: Sequence[ImageFile],
    runtime: Runtime,
    out: Path,
    *,
    shard: Shard = WHOLE,
    reporter: Reporter | None = None,
) -> EmbedResult:
    """Store the embeddings of this share of ``images`` in ``out``.

    Images whose content is in the store are left out, so an interrupted run goes on where it stopped. One that cannot
    be used is reported and listed in ``failures.jsonl``; the error of a single image is raised.

    Raises:
        UsageError: the store holds features of another encoder, or image files cannot have the model's channels.
        OutputError: the disk has too little space, or a file cannot be written.
        Interrupted: Ctrl-C or SIGTERM; what was embedded is stored.
    """
    reporter = reporter or NullReporter()
    channels = file_channels(runtime.channels, runtime.source)
    own = shard.of(images)
    failures_file = out / f"failures{shard.suffix()}.jsonl"
    with FeatureWriter(out, runtime.producer, shard.suffix()) as writer:
        hashes = _hash(own, reporter)
        due = _due(own, hashes, writer)
        if len(due) < len(own):
            reporter.info(f"{len(own) - len(due)} of {len(own)} images are embedded already.")
        require_space(out, len(due) * _embedding_bytes(runtime))

        def write(image: ImageFile, encoded: EncodedImage) -> None:
            features = {NECK: (runtime.store(encoded.embedding), "CHW")}
            writer.add(image.name, hashes[image.path], encoded.frame.original, features)  # type: ignore[arg-type]

        def work(_: ImageFile, pixels: np.ndarray) -> EncodedImage:
            with runtime.running():
                return runtime.encode(pixels)

        job = Job(load=lambda image: read_image(image.path, channels), work=work, write=write, note=lambda _: {})
        start = time.perf_counter()
        failures = run_job(job, due, failures_file, "Embedding", reporter, raise_first=len(images) == 1)
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


def _due(images: Sequence[ImageFile], hashes: dict[Path, str], writer: FeatureWriter) -> list[ImageFile]:
    """Images that are not stored, each content once."""
    due, seen = [], set()
    for image in images:
        sha256 = hashes[image.path]
        if not sha256 or not (writer.holds(sha256) or sha256 in seen):
            due.append(image)
        seen.add(sha256)
    return due


def _embedding_bytes(runtime: Runtime) -> int:
    """Of one image's embedding in float16."""
    return 2 * runtime.embed_dim * (runtime.image_size // STRIDE) ** 2
