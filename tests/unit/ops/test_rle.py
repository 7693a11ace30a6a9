from __future__ import annotations

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mobilesam_core.ops.rle import compress_rle, decode_rle, encode_rle, polygons_to_rle, rle_areas, rle_boxes, rle_ious


def masks() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    random = [rng.random(tuple(rng.integers(1, 40, 2))) < rng.random() for _ in range(60)]
    large = np.zeros((700, 900), bool)
    large[13:690, 17:880] = True  # runs long enough for several digits
    return [*random, large, np.zeros((5, 7), bool), np.ones((5, 7), bool)]


def plain_rle(mask: np.ndarray) -> dict:
    column_major = mask.T.ravel().astype(int)
    edges = np.flatnonzero(np.diff(column_major, prepend=0, append=-1))
    return {"size": list(mask.shape), "counts": np.diff(edges, prepend=0).tolist()}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' decode
def test_round_trip_and_agreement_with_pycocotools() -> None:
    for mask in masks():
        rle = json.loads(json.dumps(encode_rle(mask)))
        assert np.array_equal(decode_rle(rle), mask)
        assert np.array_equal(coco_mask.decode(rle).astype(bool), mask)


def test_plain_counts_decode_and_compress() -> None:
    for mask in masks():
        assert np.array_equal(decode_rle(plain_rle(mask)), mask)
        assert compress_rle(plain_rle(mask)) == encode_rle(mask)


def test_ious_are_of_each_with_each() -> None:
    masks = np.random.default_rng(0).random((5, 9, 12)) > np.linspace(0.2, 0.9, 5)[:, None, None]
    rles = [encode_rle(mask) for mask in masks]
    expected = [[(mask & other).sum() / (mask | other).sum() for other in masks[2:]] for mask in masks[:2]]
    assert rle_ious(rles[:2], rles[2:]) == pytest.approx(np.array(expected))
    assert rle_ious(rles[:2], []).shape == (2, 0) and rle_ious([], rles).shape == (0, 5)


def test_areas_and_boxes() -> None:
    mask = np.zeros((9, 11), bool)
    mask[2:5, 3:9] = True
    rles = [encode_rle(mask), encode_rle(np.zeros((9, 11), bool))]
    assert rle_areas(rles).tolist() == [18, 0]
    assert rle_boxes(rles).tolist() == [[3, 2, 9, 5], [0, 0, 0, 0]]
    assert rle_areas(rles * 200).tolist() == [18, 0] * 200
    assert rle_boxes(rles * 200).shape == (400, 4)
    assert rle_areas([]).shape == (0,)
    assert rle_boxes([]).shape == (0, 4)


@pytest.mark.parametrize(
    ("rle", "problem"),
    [
        ({"size": [4, 5], "counts": [3, 4, 12]}, "19 pixels"),
        ({"size": [4, 5], "counts": [3, 4, 14]}, "21 pixels"),
        ({"size": [4, 5], "counts": [3, -4, 21]}, "negative|neither"),
        ({"size": [4, 5], "counts": [3, 10**30]}, "neither"),
        ({"size": [4, 5], "counts": [3, float("nan")]}, "neither"),
        ({"size": [4, 5], "counts": encode_rle(np.ones((4, 6), bool))["counts"]}, "24 pixels"),
        ({"size": [4, 5], "counts": encode_rle(np.ones((4, 4), bool))["counts"]}, "16 pixels"),
        ({"size": [4, 5], "counts": "no RLE é"}, "no compressed RLE"),
        ({"size": [4, 5], "counts": "o" * 40}, "no compressed RLE"),
        ({"size": [4, 5], "counts": ""}, "no compressed RLE"),
        ({"size": [4, 5]}, "neither"),
        ({"size": [4], "counts": [20]}, "not \\[height, width\\]"),
        ({"size": [4, -5], "counts": [20]}, "not \\[height, width\\]"),
        ({"size": [10**6, 10**6], "counts": [10**12]}, "too large"),
        ({"counts": [20]}, "not \\[height, width\\]"),
    ],
)
def test_malformed(rle: dict, problem: str) -> None:
    for read in (decode_rle, compress_rle):
        with pytest.raises(ValueError, match=problem):
            read(rle)


def test_polygons_are_united() -> None:
    left, right = [1, 1, 4, 1, 4, 4, 1, 4], [6.0, 2.0, 9.0, 2.0, 9.0, 5.0, 6.0, 5.0]
    both = decode_rle(polygons_to_rle([left, right], 8, 12))
    assert both.shape == (8, 12)
    assert both[2, 2] and both[3, 7] and not both[3, 5]
    assert both.sum() == sum(decode_rle(polygons_to_rle([each], 8, 12)).sum() for each in (left, right))


@pytest.mark.parametrize(
    ("polygons", "problem"),
    [
        ([], "no polygon"),
        ([[1, 1, 4, 4]], "at least 3 points"),
        ([[1, 1, 4, 4, 5]], "at least 3 points"),
        ([[1, 1, 4, 4, 5, 6, 7]], "at least 3 points"),
        ([[1, 1, 4, 1, 4, float("nan")]], "finite"),
        ([[1, 1, 4, 1, 4, float("inf")]], "finite"),
        ([[1, 1, 4, 1, 4, 1e9]], "far outside"),
        ([[1, 1, 4, 1, 4, 10**400]], "a coordinate too large"),
        ([["a", 1, 4, 1, 4, 4]], "no list of numbers"),
        ([[[1, 1], [4, 1], [4, 4]]], "at least 3 points"),
        ([[1, 1, 4, 1, 4, None]], "no list of numbers|finite"),
    ],
)
def test_bad_polygons(polygons: list, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        polygons_to_rle(polygons, 8, 12)
