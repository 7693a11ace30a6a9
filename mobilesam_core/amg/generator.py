"""Everything in an image, found by asking at many points (Kirillov et al., "Segment Anything", 2023, appendix B)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mobilesam_core.amg.candidates import Candidates, best_of_each, cut_off
from mobilesam_core.amg.grid import Crop, coarse_to_fine, crops, point_grids, tiles
from mobilesam_core.amg.regions import remove_small_regions
from mobilesam_core.errors import UsageError
from mobilesam_core.ops.boxes import mask_box
from mobilesam_core.ops.masks import place_masks
from mobilesam_core.ops.rle import decode_rle, encode_rle, expand_rle
from mobilesam_core.ops.tiles import Tiling
from mobilesam_core.runtime.opening import as_runtime
from mobilesam_core.runtime.protocol import EncodedImage, Runtime

if TYPE_CHECKING:
    from mobilesam_core.models.sam import Sam

OutputMode = Literal["binary_mask", "uncompressed_rle", "coco_rle"]
Strategy = Literal["grid", "coarse-to-fine"]

_FINE_SHARE = 0.25
"""Of the points between the coarse ones coarse-to-fine asks at so many."""

_POINTS_COMPARED = 512  # at a time


@dataclass(frozen=True)
class FoundMask:
    """A mask of an image, in its pixels.

    rle: COCO's compressed RLE. box: ``(x1, y1, x2, y2)`` of the first and the last pixel (right and bottom inclusive,
    as segment_anything has it). point: the ``(x, y)`` that was asked about. crop: the part of the image it was seen in.
    """

    rle: dict[str, Any]
    area: int
    box: tuple[int, int, int, int]
    predicted_iou: float
    stability_score: float
    point: tuple[float, float]
    crop: Crop


class SamAutomaticMaskGenerator:
    """Finds masks with the arguments, defaults and results of segment_anything's class of this name.

    Args:
        model: a torch model on the device to use, or any :class:`~mobilesam_core.runtime.protocol.Runtime`.
        points_per_side: points along each side of the image, or None with ``point_grids``.
        points_per_batch: points decoded together; None fits it to the device. It changes no result.
        pred_iou_thresh: masks have a higher predicted IoU; 0 keeps all.
        stability_score_thresh: least stability score; 0 keeps all.
        stability_score_offset: by how much that score moves the mask threshold, in logits.
        box_nms_thresh: of masks whose boxes overlap by more than this IoU the best-scored stays.
        crop_n_layers: layers of crops to look at besides the whole image; layer n has 4^n.
        crop_nms_thresh: the same as ``box_nms_thresh``, between crops; those of smaller crops stay.
        crop_overlap_ratio: overlap of crops, as a share of the image's shorter side.
        crop_n_points_downscale_factor: layer n has its points a side divided by this to the n.
        point_grids: ``(n, 2)`` points in [0, 1] for each layer, instead of ``points_per_side``.
        min_mask_region_area: holes and separate parts of fewer pixels are removed; 0 leaves them.
        output_mode: what ``segmentation`` is in :meth:`generate`'s records.
        strategy: ``grid`` asks at every point. ``coarse-to-fine`` asks at a quarter of them, then at a quarter of the
            others: those where the image's embedding is least like where was asked around them. That is more than
            twice as fast, and may miss small objects.
        tile: side, in pixels of the image, of square tiles to look at besides the whole image, as layer 1 of crops.
        overlap: pixels that neighbouring tiles share.

    Raises:
        UsageError: both or neither of ``points_per_side`` and ``point_grids``, another mode or strategy, tiles that
            there cannot be, or tiles and layers of crops.
    """

    def __init__(
        self,
        model: Sam | Runtime,
        points_per_side: int | None = 32,
        points_per_batch: int | None = None,
        pred_iou_thresh: float = 0.88,
        stability_score_thresh: float = 0.95,
        stability_score_offset: float = 1.0,
        box_nms_thresh: float = 0.7,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: int = 1,
        point_grids: Sequence[np.ndarray] | None = None,
        min_mask_region_area: int = 0,
        output_mode: OutputMode = "binary_mask",
        *,
        strategy: Strategy = "grid",
        tile: int | None = None,
        overlap: int = 64,
    ) -> None:
        if output_mode not in ("binary_mask", "uncompressed_rle", "coco_rle"):
            raise UsageError(f"There is no output_mode {output_mode!r}.")
        if strategy not in ("grid", "coarse-to-fine"):
            raise UsageError(f"There is no strategy {strategy!r}.")
        if tile is not None and crop_n_layers:
            raise UsageError("tile and crop_n_layers both say where to crop.", "Give one of them.")
        self.model = model
        self.runtime = as_runtime(model)
        self.points_per_batch = points_per_batch
        self.pred_iou_thresh = pred_iou_thresh
        self.stability_score_thresh = stability_score_thresh
        self.stability_score_offset = stability_score_offset
        self.box_nms_thresh = box_nms_thresh
        self.crop_n_layers = crop_n_layers
        self.crop_nms_thresh = crop_nms_thresh
        self.crop_overlap_ratio = crop_overlap_ratio
        self.tiling = None if tile is None else Tiling(tile, overlap)
        self.min_mask_region_area = min_mask_region_area
        self.output_mode = output_mode
        layers = crop_n_layers if self.tiling is None else 1
        self.passes = _passes(
            points_per_side, point_grids, layers, crop_n_points_downscale_factor, strategy == "coarse-to-fine"
        )

    def generate(self, image: np.ndarray) -> list[dict[str, Any]]:
        """The masks of a ``(H, W, 3)`` RGB uint8 image; best-scored first unless crops or regions have the last word.

        Each is a dict of ``segmentation`` (``(H, W)`` bool, or an RLE), ``area`` in pixels, ``bbox`` ``[x, y, w, h]``
        (from the first to the last pixel), ``predicted_iou``, ``point_coords`` ``[[x, y]]``, ``stability_score`` and
        ``crop_box`` ``[x, y, w, h]``.
        """
        return [self._record(found) for found in self.find(image)]

    def find(self, image: np.ndarray, encoded: EncodedImage | None = None) -> list[FoundMask]:
        """The masks of a ``(H, W, 3)`` RGB (``(H, W)`` for a model of one channel) uint8 image.

        encoded: the whole image's encoding, where it is known already.
        """
        height, width = image.shape[:2]
        found: list[FoundMask] = []
        if self.tiling is None:
            every_crop = crops(height, width, self.crop_n_layers, self.crop_overlap_ratio)
        else:
            every_crop = tiles(height, width, self.tiling)
        with self.runtime.running():
            for crop in every_crop:
                found += self._find_in_crop(image, crop, encoded if crop.layer == 0 else None)
        if len(every_crop) > 1 and found:
            # A mask of a smaller crop was seen at a higher resolution.
            closeness = np.array([1 / (each.crop.shape[0] * each.crop.shape[1]) for each in found])
            boxes = np.array([each.box for each in found])
            found = [found[i] for i in best_of_each(boxes, closeness, self.crop_nms_thresh).tolist()]
        if self.min_mask_region_area > 0 and found:
            found = self._without_small_regions(found)
        return found

    def _find_in_crop(self, image: np.ndarray, crop: Crop, encoded: EncodedImage | None) -> Iterator[FoundMask]:
        x1, y1, x2, y2 = crop.box
        if encoded is None:
            encoded = self.runtime.encode(np.ascontiguousarray(image[y1:y2, x1:x2]))
        search = _Search(self, encoded, crop, (image.shape[0], image.shape[1]))
        for number, points in enumerate(self.passes[crop.layer]):
            scaled = points * np.array([x2 - x1, y2 - y1])
            search.ask(scaled if number == 0 else scaled[search.most_unlike(scaled)])
        return search.results()

    def _without_small_regions(self, found: Sequence[FoundMask]) -> list[FoundMask]:
        """Masks without specks and pinholes; of those that became alike the untouched ones stay."""
        cleaned, untouched = [], []
        for each in found:
            mask, changed = remove_small_regions(decode_rle(each.rle), self.min_mask_region_area)
            untouched.append(float(not changed))
            if changed:
                x1, y1, x2, y2 = (int(edge) for edge in mask_box(mask))
                box = (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1))
                each = replace(each, rle=encode_rle(mask), area=int(np.count_nonzero(mask)), box=box)
            cleaned.append(each)
        threshold = max(self.box_nms_thresh, self.crop_nms_thresh)
        kept = best_of_each(np.array([each.box for each in cleaned]), np.array(untouched), threshold)
        return [cleaned[i] for i in kept.tolist()]

    def _record(self, found: FoundMask) -> dict[str, Any]:
        x1, y1, x2, y2 = found.box
        left, top, right, bottom = found.crop.box
        segmentation: Any = found.rle
        if self.output_mode != "coco_rle":
            segmentation = decode_rle(found.rle) if self.output_mode == "binary_mask" else expand_rle(found.rle)
        return {
            "segmentation": segmentation,
            "area": found.area,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "predicted_iou": found.predicted_iou,
            "point_coords": [list(found.point)],
            "stability_score": found.stability_score,
            "crop_box": [left, top, right - left, bottom - top],
        }


class _Search:
    """The masks found in one crop so far."""

    def __init__(
        self, settings: SamAutomaticMaskGenerator, encoded: EncodedImage, crop: Crop, image_shape: tuple[int, int]
    ) -> None:
        self._settings = settings
        self._frame = encoded.frame
        self._crop = crop
        self._image_shape = image_shape
        self._search = settings.runtime.search(encoded)
        self._chunk = settings.points_per_batch or self._search.points_at_once
        self._encoded = encoded
        self._points = np.empty((0, 2))
        self._parts: list[Candidates] = []

    def ask(self, points: np.ndarray) -> None:
        """Look for masks at ``(n, 2)`` float64 points in pixels of the crop."""
        first = len(self._points)
        self._points = np.concatenate([self._points, points])
        for start in range(first, len(self._points), self._chunk):
            self._ask(start, self._points[start : start + self._chunk])

    def most_unlike(self, points: np.ndarray) -> np.ndarray:
        """Indices, in order, of the share of ``(n, 2)`` points that promises most that is new.

        A point of the same thing as its neighbour has nearly the same embedding, and finds the same masks: what counts
        is the cosine to the most similar of the points around it that were asked.
        """
        count = math.ceil(_FINE_SHARE * len(points))
        embedding = self._settings.runtime.store(self._encoded.embedding).astype(np.float32)
        embedding /= np.linalg.norm(embedding, axis=0).clip(min=1e-12)

        def embedding_at(places: np.ndarray) -> np.ndarray:
            """``(n, D)`` of length 1."""
            grid = embedding.shape[-1]
            cells = (places * np.array(self._frame.scale_xy) * (grid / self._frame.size)).astype(int).clip(0, grid - 1)
            return embedding[:, cells[:, 1], cells[:, 0]].T

        asked, spacing = embedding_at(self._points), np.array(self._crop.shape[::-1]) / len(self._points) ** 0.5
        likeness = np.empty(len(points))
        for start in range(0, len(points), _POINTS_COMPARED):
            part = points[start : start + _POINTS_COMPARED]
            cosines = embedding_at(part) @ asked.T
            far = (np.abs(part[:, None] - self._points) > 1.01 * spacing).any(axis=2)
            likeness[start : start + len(part)] = np.where(far, -1.0, cosines).max(axis=1)
        # Rounded, so that ties do not depend on the last bit of a product.
        return np.sort(np.round(likeness, 4).argsort(kind="stable")[:count])

    def results(self) -> Iterator[FoundMask]:
        """The best of each object, best-scored first."""
        if not self._parts:
            return
        boxes, scores = (np.concatenate([getattr(p, name) for p in self._parts]) for name in ("boxes", "predicted_iou"))
        places = [(part, i) for part in self._parts for i in range(len(part))]
        left, top, _, _ = self._crop.box
        for number in best_of_each(boxes, scores, self._settings.box_nms_thresh).tolist():
            candidates, i = places[number]
            mask = self._search.mask(candidates.logits[i], self._settings.runtime.mask_threshold)
            mask = place_masks(mask, self._crop.box, self._image_shape)
            x1, y1, x2, y2 = candidates.boxes[i].tolist()
            x, y = self._points[int(candidates.points[i])].tolist()
            yield FoundMask(
                rle=encode_rle(mask),
                area=int(candidates.areas[i]),
                box=(left + x1, top + y1, left + x2, top + y2),
                predicted_iou=float(candidates.predicted_iou[i]),
                stability_score=float(candidates.stability[i]),
                point=(left + x, top + y),
                crop=self._crop,
            )

    def _ask(self, first: int, points: np.ndarray) -> None:
        settings, threshold = self._settings, self._settings.runtime.mask_threshold
        answers, predicted_iou = self._search.ask(points * np.array(self._frame.scale_xy))
        # Before any mask is drawn: of a usual image's masks nine in ten end here.
        good = np.ones_like(predicted_iou, bool)
        if settings.pred_iou_thresh > 0:
            good = predicted_iou > settings.pred_iou_thresh
        rows, outputs = np.nonzero(good)
        if not len(rows):
            return
        logits = self._search.draw(answers, rows, outputs)
        measured = self._search.measure(logits, threshold, settings.stability_score_offset)
        kept = ~cut_off(measured.boxes, self._crop, *self._image_shape)
        if settings.stability_score_thresh > 0:
            kept &= measured.stability >= settings.stability_score_thresh
        if not kept.any():
            return
        found = Candidates(
            logits=logits,
            boxes=measured.boxes,
            areas=measured.areas,
            predicted_iou=predicted_iou[rows, outputs],
            stability=measured.stability,
            points=first + rows,
        )
        self._parts.append(found[np.flatnonzero(kept)])


def _passes(
    points_per_side: int | None,
    grids: Sequence[np.ndarray] | None,
    layers: int,
    downscale: int,
    sparse_first: bool,
) -> list[list[np.ndarray]]:
    """For each layer of crops the points to ask at, ``(n, 2)`` in [0, 1], pass by pass."""
    if (points_per_side is None) == (grids is None):
        raise UsageError("Exactly one of points_per_side and point_grids says where to ask.")
    if points_per_side is None:
        assert grids is not None
        if sparse_first:
            raise UsageError("The strategy coarse-to-fine makes its own points.", "Give points_per_side.")
        if len(grids) <= layers:
            raise UsageError(f"{layers} layers of crops need {layers + 1} point_grids, not {len(grids)}.")
        return [[np.asarray(grid, np.float64)] for grid in grids]
    whole = point_grids(points_per_side, layers, downscale)
    if not sparse_first:
        return [[grid] for grid in whole]
    return [[grid[chosen] for chosen in coarse_to_fine(round(len(grid) ** 0.5))] for grid in whole]
