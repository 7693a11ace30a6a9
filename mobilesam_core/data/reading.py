"""Reading image and mask files, upright and in one dtype, whatever they were saved as.

Colours are taken as they are stored: alpha is dropped, not composited (as ``PIL.Image.convert("RGB")`` and
OpenCV do). Images of more than 8 bits (16-bit PNG and TIFF, 32-bit integer, float) are scaled
linearly so that their own least value becomes 0 and their greatest 255: cameras store 10, 12 or 14 bits in
16, and the range of the type would turn those black.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from mobilesam_core.errors import DataError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".pgm", ".ppm"})
LOSSY_SUFFIXES = frozenset({".jpg", ".jpeg", ".webp"})
_EXIF_ORIENTATION = 0x0112
_UNREADABLE = "Replace the file, or remove it and what belongs to it."


def is_image(path: Path) -> bool:
    """Whether ``path`` is a file that its name calls an image; hidden files are none."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def list_images(folder: Path) -> list[Path]:
    """The image files of ``folder``, sorted by name."""
    return sorted(filter(is_image, folder.iterdir()))


def folders_below(root: Path) -> list[Path]:
    """``root`` and every folder below it, sorted; hidden ones are left out."""
    below = sorted(path for path in root.rglob("*") if path.is_dir())
    return [root, *(p for p in below if not any(part.startswith(".") for part in p.relative_to(root).parts))]


def read_image(path: Path, channels: int = 3) -> np.ndarray:
    """Read an image, upright: ``(H, W, 3)`` uint8 RGB, or ``(H, W)`` uint8 when ``channels`` is 1.

    Raises:
        DataError: the file is missing, empty, truncated, or no image.
    """
    return read_oriented(path, channels)[0]


def read_oriented(path: Path, channels: int = 3) -> tuple[np.ndarray, int]:
    """:func:`read_image`, and the EXIF orientation (1 to 8) that was undone."""
    image, orientation, deep_colour = _open(path)
    if deep_colour:
        image = Image.fromarray(_to_8_bit(_deep_colour(path), path))
    elif image.mode[0] in "IF":  # 16- or 32-bit integers, or floats
        image = Image.fromarray(_to_8_bit(np.asarray(image), path))
    elif image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # a palette may hold transparency, which PIL warns of losing
    pixels = np.array(image.convert("RGB" if channels == 3 else "L"))  # a copy: torch wants to own what it wraps
    return upright(pixels, orientation), orientation


def read_label_map(path: Path, shape: tuple[int, int], orientation: int = 1) -> np.ndarray:
    """Read a mask of ids, exactly, for an upright image of ``shape`` ``(H, W)``: ``(H, W)`` integers.

    A palette image's indices are the ids. A mask saved in the frame of the image before its EXIF rotation
    (told by its size) is turned by ``orientation``, the image's own.

    Raises:
        DataError: the file is missing, unreadable, of another size, in colour, of a lossy format, or
            holds numbers that are no ids.
    """
    mask, own, _ = _open(path)
    if path.suffix.lower() in LOSSY_SUFFIXES:
        raise DataError(f"{path} is a {path.suffix} file, which does not keep ids exactly.", "Save it as PNG.")
    values = np.asarray(mask)
    if values.ndim == 3:
        colours = values[..., : 1 if mask.mode == "LA" else 3]
        if (colours != colours[..., :1]).any():
            raise DataError(
                f"{path} is a colour image; ids are read from one channel.",
                "Save the ids as a grey or palette PNG, or use mask_mode: binary if any colour means object.",
            )
        values = colours[..., 0]
    if values.dtype.kind == "f":
        _require_finite(values, path)
        if (values != np.floor(values)).any():
            raise DataError(f"{path} holds fractions instead of ids.", "Save the ids as whole numbers.")
    if values.dtype.kind in "fi":
        if values.size and values.min() < 0:
            raise DataError(f"{path} holds negative ids.", "Number the objects from 1; 0 is background.")
        values = values.astype(np.int64)
    elif values.dtype == bool:
        values = values.astype(np.uint8)
    return fit_mask(upright(values, own), shape, orientation, path)


def read_binary_mask(path: Path, shape: tuple[int, int], orientation: int = 1) -> np.ndarray:
    """Read a mask of one object, for an upright image of ``shape`` ``(H, W)``: ``(H, W)`` bool.

    Whatever is not 0 (black, in colour; alpha does not count; index 0 of a palette) is object. In a lossy
    file it is what is brighter than half, since compression smears the edges. Sizes and EXIF as in
    :func:`read_label_map`.

    Raises:
        DataError: the file is missing, unreadable or of another size.
    """
    mask, own, _ = _open(path)
    values = np.asarray(mask)
    if values.ndim == 3:
        values = values[..., :1] if mask.mode in ("LA", "PA") else values[..., :3]
        values = values.max(axis=2)
    if values.dtype.kind == "f":
        _require_finite(values, path)
    found = values > 127 if path.suffix.lower() in LOSSY_SUFFIXES else values != 0
    return fit_mask(upright(found, own), shape, orientation, path)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation (1 to 8) of ``(H, W)`` or ``(H, W, C)`` pixels."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def fit_mask(mask: np.ndarray, shape: tuple[int, int], orientation: int, path: Path) -> np.ndarray:
    """``mask`` as it lies on an upright image of ``shape``, turned by ``orientation`` if that makes it fit.

    Raises:
        DataError: it has another size; the message names ``path``.
    """
    if mask.shape != shape and orientation in (5, 6, 7, 8) and mask.shape == shape[::-1]:
        mask = upright(mask, orientation)
    if mask.shape != shape:
        raise DataError(
            f"{path} is {mask.shape[1]} x {mask.shape[0]} pixels, its image {shape[1]} x {shape[0]}.",
            "A mask must have the size of its image.",
            "size",
        )
    return mask


class _Opened(NamedTuple):
    """A decoded file as it is stored; ``deep_colour`` says that PIL cut its 16 bits a channel down to 8."""

    image: Image.Image
    orientation: int
    deep_colour: bool


def _open(path: Path) -> _Opened:
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty (0 bytes).", _UNREADABLE)
        with Image.open(path) as image:
            raw_modes = [str(tile[3]) for tile in getattr(image, "tile", [])]
            deep_colour = image.mode[0] not in "IF" and any(";16" in mode for mode in raw_modes)
            image.load()
            # After load(), which turns TIFFs itself and then no longer reports their orientation.
            orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
            return _Opened(image, orientation if orientation in range(1, 9) else 1, deep_colour)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.", "Check the path.") from None
    except PermissionError:
        raise DataError(f"No permission to read {path}.", "Change its permissions.") from None
    except Image.UnidentifiedImageError:
        raise DataError(f"{path} is not an image that can be read.", _UNREADABLE) from None
    # A decoder meets a broken file with any of these.
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read: {error}.", _UNREADABLE) from error


def _deep_colour(path: Path) -> np.ndarray:
    """``(H, W, 3)`` RGB at the file's own depth."""
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise DataError(f"{path} is a 16-bit image of a kind that cannot be read.", "Save it as 8-bit PNG.")
    if pixels.ndim == 2:
        pixels = pixels[..., None].repeat(3, axis=2)
    return np.ascontiguousarray(pixels[..., 2::-1])


def _to_8_bit(values: np.ndarray, path: Path) -> np.ndarray:
    """Scale linearly: the least of ``values`` to 0, the greatest to 255; a constant image becomes 0."""
    values = values.astype(np.float64)
    _require_finite(values, path)
    low, high = values.min(), values.max()
    return np.rint((values - low) * (255.0 / ((high - low) or 1.0))).astype(np.uint8)


def _require_finite(values: np.ndarray, path: Path) -> None:
    if not np.isfinite(values).all():
        raise DataError(f"{path} holds values that are not finite numbers (NaN or infinity).", _UNREADABLE)
