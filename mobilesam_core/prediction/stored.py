"""Embeddings that were made before, instead of running the image encoder."""

from __future__ import annotations

from pathlib import Path

from mobilesam_core.errors import DataError, UsageError
from mobilesam_core.files import file_sha256
from mobilesam_core.models.sam import Sam
from mobilesam_core.ops.resize import Frame
from mobilesam_core.prediction.encoded import EncodedImage
from mobilesam_core.stores.features import NECK, FeatureStore
from mobilesam_core.stores.producer import Producer


class StoredEmbeddings:
    """The embeddings in ``folder``, for a model whose weights are in float32 when this is built.

    Raises:
        UsageError: the folder holds no embeddings, or those of another encoder.
        DataError: one of its files is broken.
    """

    def __init__(self, folder: Path, model: Sam) -> None:
        self._model = model
        self._store = FeatureStore(folder)
        if what := Producer.of(model).difference(self._store.producer):
            raise UsageError(
                f"The embeddings in {folder} were made by {what}.",
                "Name the checkpoint and the --image-size they were made with, or make new ones with mobilesam embed.",
            )

    def of(self, path: Path) -> EncodedImage:
        """The encoding of an image file, float16 as it was stored, in the model's precision and on its device.

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
        weight = self._model.prompt_encoder.no_mask_embed.weight
        embedding = self._store.read(sha256)[None].to(weight.device, weight.dtype)
        return EncodedImage(embedding, Frame.of(*self._store.entries[sha256].original_size, self._model.image_size))
