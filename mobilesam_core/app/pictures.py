"""What the page shows and gives to download, as bytes of files."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mobilesam_core.amg.formats import label_map
from mobilesam_core.amg.formats import mask_record as found_record
from mobilesam_core.amg.workflow import draw_found
from mobilesam_core.app.session import Session
from mobilesam_core.app.uploads import NamedImage
from mobilesam_core.errors import UsageError
from mobilesam_core.ops.drawing import Closeup, distinct_color, line_width, new_canvas, outline_mask
from mobilesam_core.ops.rle import decode_rle
from mobilesam_core.prediction.segment import MaskPrediction
from mobilesam_core.prediction.workflow import draw_prediction, mask_record

_SHOWN_SIDE = 1280
_OPACITY = 115  # of 255
_COLORS = 127  # a fill and an outline each, and transparent: the palette of a PNG


def shown(image: NamedImage) -> Closeup:
    """The whole image, small enough for a page."""
    height, width = image.pixels.shape[:2]
    return Closeup((0, 0, width, height), min(1.0, _SHOWN_SIDE / max(height, width)))


def photo(session: Session) -> bytes:
    """A JPEG of the image as the page shows it."""
    image = _image_of(session)
    buffer = io.BytesIO()
    Image.fromarray(shown(image).image(image.pixels)).save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue()


def layer(session: Session) -> bytes:
    """A transparent PNG of the masks, of the size of :func:`photo`: of everything that was found, or of the prompts."""
    view = shown(_image_of(session))
    width, height = view.size
    if session.found is not None:
        largest_first = sorted(enumerate(session.found), key=lambda pair: -pair[1].area)
        return _tint([(number, view.mask(decode_rle(each.rle))) for number, each in largest_first], (height, width))
    mask = session.mask((height, width))
    return _tint([] if mask is None else [(0, mask)], (height, width))


def mask_file(session: Session) -> bytes:
    """A PNG at the image's size: 0 and 255 of the mask, or the 16-bit ids of everything that was found."""
    if session.found is not None:
        height, width = _image_of(session).pixels.shape[:2]
        return _png(label_map(session.found, height, width))
    return _png(_prediction(session).mask.astype(np.uint8) * 255)


def overlay_file(session: Session) -> bytes:
    """A PNG of the image with masks and prompts on it, as ``mobilesam predict`` and ``mobilesam amg`` draw it."""
    image = _image_of(session)
    if session.found is not None:
        return _png(draw_found(image.pixels, session.found))
    canvas = new_canvas(image.pixels)
    prediction = _prediction(session)
    assert session.answer is not None
    draw_prediction(canvas, prediction, session.answer.request)
    return _png(canvas)


def coco_file(session: Session) -> bytes:
    """A COCO JSON of the image, with what ``mobilesam predict`` and ``mobilesam amg`` write of a mask."""
    image = _image_of(session)
    height, width = image.pixels.shape[:2]
    if session.found is not None:
        records = [found_record(each) for each in session.found]
    else:
        prediction = _prediction(session)
        assert session.answer is not None
        records = [mask_record(prediction, session.answer.request, session.runtime)]
    document = {
        "categories": [{"id": 1, "name": "object"}],
        "images": [{"id": 1, "file_name": image.name, "width": width, "height": height}],
        "annotations": [_annotation(number, record) for number, record in enumerate(records, 1)],
    }
    return json.dumps(document, allow_nan=False).encode()


FILES: dict[str, tuple[str, Callable[[Session], bytes]]] = {
    "mask.png": ("image/png", mask_file),
    "overlay.png": ("image/png", overlay_file),
    "coco.json": ("application/json", coco_file),
}
"""What can be downloaded: by its ending, its media type and who makes it."""


def file_name(session: Session, ending: str) -> str:
    """What a download is called: ``dog_mask.png``."""
    return f"{Path(_image_of(session).name).stem}_{ending}"


def _annotation(number: int, record: dict[str, Any]) -> dict[str, Any]:
    ids = {"id": number, "image_id": 1, "category_id": 1, "iscrowd": 0}
    return ids | record | {"score": record["predicted_iou"]}


def _image_of(session: Session) -> NamedImage:
    if session.image is None:
        raise UsageError("There is no image yet.", "Open one, or choose a sample.")
    return session.image


def _prediction(session: Session) -> MaskPrediction:
    """The mask that is shown, at the image's size."""
    mask = session.mask()
    if mask is None or session.answer is None:
        raise UsageError("There is no mask yet.", "Click on an object, or draw a box around it.")
    candidate = session.output - 1 if session.output else None
    return MaskPrediction(0, candidate, mask, session.answer.scores[session.chosen], True)


def _tint(masks: Sequence[tuple[int, np.ndarray]], shape: tuple[int, int]) -> bytes:
    """A PNG with a palette: each mask filled and outlined in the colour of its number, later ones on earlier ones."""
    indices = np.zeros(shape, np.uint8)
    for number, mask in masks:
        entry = 1 + 2 * (number % _COLORS)
        indices[mask] = entry
        outline_mask(indices, mask, (entry + 1, 0, 0), line_width(indices))
    palette = [(0, 0, 0)] + [distinct_color(number // 2) for number in range(2 * _COLORS)]
    picture = Image.fromarray(indices)
    picture.putpalette([channel for color in palette for channel in color])
    opacity = bytes([0] + [_OPACITY, 255] * _COLORS)
    return _saved(picture, transparency=opacity)


def _png(pixels: np.ndarray) -> bytes:
    return _saved(Image.fromarray(pixels))


def _saved(picture: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1, **options)
    return buffer.getvalue()
