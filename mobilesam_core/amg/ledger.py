"""What is done in a folder of results: of which image, and by which settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mobilesam_core.errors import UsageError
from mobilesam_core.files import write_json
from mobilesam_core.jobs.inputs import ImageFile


class Ledger:
    """One small file an image in ``.amg/``, written when all its results are.

    settings: what the results depend on, in plain types.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self._folder = folder
        self._settings = settings

    def due(self, images: Sequence[ImageFile], overlay: bool) -> list[ImageFile]:
        """Those that are not done, or lack the ``overlay`` that is wanted.

        Raises:
            UsageError: results of another image of that name are there, or results of other settings.
        """
        return [image for image in images if not self._is_done(image, overlay)]

    def forget(self, images: Sequence[ImageFile]) -> None:
        """All of them are to be done again, whatever happens next."""
        for image in images:
            self._path(image).unlink(missing_ok=True)

    def enter(self, image: ImageFile, masks: int, overlay: bool) -> None:
        """``image`` is done."""
        entry = {"image": _identity(image), "masks": masks, "overlay": overlay, "settings": self._settings}
        write_json(self._path(image), entry)

    def holds(self, image: ImageFile) -> bool:
        """Whether ``image`` is done."""
        return self._path(image).exists()

    def _path(self, image: ImageFile) -> Path:
        return self._folder / ".amg" / f"{image.name}.json"

    def _is_done(self, image: ImageFile, overlay: bool) -> bool:
        try:
            entry = json.loads(self._path(image).read_text("utf-8"))
            of, settings, drawn = entry["image"], entry["settings"], entry["overlay"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return False
        remedy = "Choose another folder with --out, or replace them with --overwrite."
        if image.path.exists() and of != _identity(image):
            raise UsageError(f"{self._folder} holds the masks of another image called {image.name}.", remedy)
        if changed := [key for key in self._settings if settings.get(key) != self._settings[key]]:
            raise UsageError(
                f"{self._folder} holds masks that were made with another {changed[0]} "
                f"({settings.get(changed[0])!r}, not {self._settings[changed[0]]!r}).",
                remedy,
            )
        return bool(drawn or not overlay)


def _identity(image: ImageFile) -> dict[str, Any]:
    return {"file": image.path.name, "bytes": image.path.stat().st_size}
