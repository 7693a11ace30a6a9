"""Images that come from a stranger: what is read, and how much of it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from mobilesam_core.data.reading import read_image
from mobilesam_core.errors import DataError

MAX_BYTES = 32 * 2**20
MAX_SIDE = 10_000
MAX_PIXELS = 40_000_000
LIMITS = f"at most {MAX_BYTES // 2**20} MB, {MAX_SIDE:,} px a side and {MAX_PIXELS // 10**6} megapixels"
"""For people."""

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "PPM")  # not those that call other programs, such as EPS


def check_bytes(name: str, size: int) -> None:
    """Raises:
    DataError: that is too much.
    """
    if size > MAX_BYTES:
        raise DataError(f"{name} has {size / 2**20:.0f} MB; images have {LIMITS}.", "Make it smaller and try again.")


@dataclass(frozen=True)
class NamedImage:
    """pixels: ``(H, W, 3)`` RGB uint8, upright. name: of its file."""

    name: str
    pixels: np.ndarray


def read_upload(name: str, content: bytes) -> NamedImage:
    """Read an image that a browser sent.

    name: what the user's file is called.

    Raises:
        DataError: it is too large, or no image.
    """
    with TemporaryDirectory(prefix="mobilesam-app-") as folder:
        path = Path(folder) / "upload"
        path.write_bytes(content)
        return read_bounded(path, name)


def read_bounded(path: Path, name: str) -> NamedImage:
    """Read an image whose size, in bytes and in pixels, is looked at first; messages call it ``name``.

    Raises:
        DataError: it is missing, too large, or no image.
    """
    try:
        check_bytes(name, path.stat().st_size)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is below PIL's
            with Image.open(path, formats=_FORMATS) as image:
                width, height = image.size
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{name} has too many pixels; images have {LIMITS}.", "Make it smaller and try again."
        ) from error
    except FileNotFoundError:
        raise DataError(f"{name} does not exist.", "Check the path.") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(
            f"{name} is not an image that can be read.", f"Open one of these: {', '.join(_FORMATS)}."
        ) from error
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise DataError(
            f"{name} has {width:,} x {height:,} pixels; images have {LIMITS}.", "Make it smaller and try again."
        )
    try:
        return NamedImage(name, read_image(path))
    except DataError as error:
        raise DataError(error.message.replace(str(path), name), "Open another image.") from error
