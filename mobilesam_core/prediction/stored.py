"""Embeddings that were made before, instead of running the image encoder."""

from __future__ import annotations

from pathlib import Path

from mobilesam_core.errors import DataError, UsageError
from mobilesam_core.files import file_sha256
from mobilesam_core.ops.frame import Frame
from mobilesam_core.ops.layout import NECK
from mobilesam_core.runtime.protocol import EncodedImage, Runtime
from mobilesam_core.stores.features import FeatureStore


class StoredEmbeddings:
    """The embeddings in ``folder``, for ``runtime``.

    Raises:
        UsageError: the folder holds no embeddings, or those of another encoder.
        DataError: one of its files is broken.
    """

    def __init__(self, folder: Path, runtime: Runtime) -> None:
        self._runtime = runtime
        self._store = FeatureStore(folder)
        if what := runtime.producer.difference(self._store.producer):
            raise UsageError(
                f"The embeddings in {folder} were made by {what}.",
                "Name the checkpoint and the --image-size they were made with, or make new ones with mobilesam embed.",
            )

    def of(self, path: Path) -> EncodedImage:
        """The encoding of an image file, float16 as it was stored, as the runtime takes it.

        Raises:
            DataError: there is none of this content.
        """
        try:
            sha256 = file_sha256(path)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.", "Embeddings belong to image files.") from error
        if sha256 not in self._store or NECK not in self._store.entries[sha256].levels:
            raise DataError(
                f"{self._store.folder} holds no embedding of {path}: it was not embedded, or has changed since.",
                f"Run mobilesam embed {path} --out {self._store.folder} with the same weights.",
            )
        frame = Frame.of(*self._store.entries[sha256].original_size, self._runtime.image_size)
        return EncodedImage(self._runtime.restore(self._store.read(sha256)), frame)


def refuse_tiles(stored: Path | StoredEmbeddings | None, tiled: bool) -> None:
    """Stored embeddings are of whole images.

    Raises:
        UsageError: there are such, and images are looked at in tiles.
    """
    if stored is not None and tiled:
        raise UsageError(
            "Stored embeddings are of whole images, not of tiles.", "Leave out --embeddings, or the tiles."
        )
