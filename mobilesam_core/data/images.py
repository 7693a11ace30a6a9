"""Images without labels."""

from __future__ import annotations

from pathlib import Path

from mobilesam_core.config.data import ImagesConfig
from mobilesam_core.data.folder import require_folder
from mobilesam_core.data.reading import folders_below, list_images, read_image
from mobilesam_core.data.sample import Sample, path_key
from mobilesam_core.errors import DataError
from mobilesam_core.ops.masks import RleMasks


class ImagesSource:
    """The images of a folder and of those below it, each with no object, sorted by path; hidden ones are left out.

    Raises:
        DataError: the folder is missing, or holds no image.
    """

    def __init__(self, config: ImagesConfig, root: Path, channels: int = 3) -> None:
        self._folder = require_folder(root / config.images, "images")
        self._channels = channels
        self._paths = sorted(path for folder in folders_below(self._folder) for path in list_images(folder))
        if not self._paths:
            raise DataError(
                f"The folder {self._folder} holds no image.", "Check `images` of the data set and `data.root`.", "set"
            )

    def __len__(self) -> int:
        return len(self._paths)

    def describe(self, index: int) -> str:
        return str(self._paths[index])

    def __getitem__(self, index: int) -> Sample:
        path = self._paths[index]
        image = read_image(path, self._channels)
        return Sample(path_key(path, self._folder), image, RleMasks([], image.shape[:2], []), str(path))
