from __future__ import annotations

from pathlib import Path

import pytest

from mobilesam_core.errors import PromptError, UsageError
from mobilesam_core.prediction.requests import (
    ImageRequest,
    ObjectRequest,
    check_inside,
    objects_from_flags,
    read_prompt_file,
)

NAN, INFINITY = float("nan"), float("inf")


def test_flags_make_one_object_and_several_boxes_one_each() -> None:
    (one,) = objects_from_flags([(1, 2)], [(3, 4)], [(0, 0, 9, 9)], Path("m.png"))
    assert one == ObjectRequest(((1, 2), (3, 4)), (1, 0), (0, 0, 9, 9), Path("m.png"))
    two = objects_from_flags([], [], [(0, 0, 9, 9), (1, 1, 2, 2)], None)
    assert two == (ObjectRequest(box=(0, 0, 9, 9)), ObjectRequest(box=(1, 1, 2, 2)))


def test_flags_that_say_nothing_or_too_much() -> None:
    with pytest.raises(UsageError, match="Nothing"):
        objects_from_flags([], [], [], None)
    for points, mask in (([(1.0, 1.0)], None), ([], Path("m.png"))):
        with pytest.raises(UsageError, match="--prompts"):
            objects_from_flags(points, [], [(0, 0, 9, 9), (1, 1, 2, 2)], mask)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (ObjectRequest(((NAN, 1),), (1,)), "nan,1 is not finite"),
        (ObjectRequest(box=(0, 0, INFINITY, 5)), "is not finite"),
        (ObjectRequest(box=(5, 0, 5, 5)), "x1 < x2"),
        (ObjectRequest(box=(0, 5, 5, 4)), "y1 < y2"),
        (ObjectRequest(((1, 1),), (2,)), "label 2"),
        (ObjectRequest(((1, 1),), ()), "1 points but 0 labels"),
        (ObjectRequest(), "no point, box or mask"),
    ],
)
def test_problems_of_any_image(wanted: ObjectRequest, said: str) -> None:
    (problem,) = wanted.problems()
    assert said in problem


def test_all_that_lies_outside_is_named_with_the_range() -> None:
    objects = (
        ObjectRequest(((0, 0), (640, 480)), (1, 1), (0, 0, 640, 480)),
        ObjectRequest(((640.5, 3),), (1,), (-1, 0, 5, 5)),
    )
    with pytest.raises(PromptError) as caught:
        check_inside(ImageRequest(Path("a.jpg"), objects), 480, 640)
    assert "a.jpg" in caught.value.message and "object 0" not in caught.value.message
    assert "object 1: the point 640.5,3 is outside the image (x from 0 to 640, y from 0 to 480)" in str(caught.value)
    assert "object 1: the box -1,0,5,5" in str(caught.value)


def test_a_prompt_file(tmp_path: Path) -> None:
    text = """{"images": [{"image": "x/a.jpg", "objects": [
        {"points": [[1, 2.5], [3, 4]], "labels": [1, 0]},
        {"points": [[5, 6]], "box": [0, 0, 10, 10], "mask": "m.png"}]}]}"""
    (tmp_path / "prompts.json").write_text(text)
    (request,) = read_prompt_file(tmp_path / "prompts.json")
    assert request.image == tmp_path / "x" / "a.jpg"
    assert request.objects == (
        ObjectRequest(((1, 2.5), (3, 4)), (1, 0)),
        ObjectRequest(((5, 6),), (1,), (0, 0, 10, 10), tmp_path / "m.png"),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not JSON"),
        ("[]", "prompts.json"),
        ('{"images": []}', "images: "),
        ('{"images": [{"image": "a.jpg", "objects": []}]}', "images.0.objects"),
        ('{"images": [{"image": "a.jpg", "objects": [{"pionts": [[1, 2]]}]}]}', "did you mean 'points'"),
        ('{"images": [{"image": "a.jpg", "objects": [{"points": [["1", 2]]}]}]}', "objects.0.points.0.0"),
        ('{"images": [{"image": "a.jpg", "objects": [{"points": [[1, NaN]]}]}]}', "points.0.1"),
        ('{"images": [{"image": "a.jpg", "objects": [{"box": [1, 2, 3]}]}]}', "objects.0.box"),
        ('{"images": [{"image": "a.jpg", "objects": [{"box": [9, 0, 3, 3]}]}]}', "a.jpg, object 0: the box 9,0,3,3"),
        ('{"images": [{"image": "a.jpg", "objects": [{"points": [[1, 2]], "labels": [1, 0]}]}]}', "2 labels"),
        ('{"images": [{"image": "a.jpg", "objects": [{}]}]}', "no point, box or mask"),
    ],
)
def test_a_prompt_file_that_cannot_be_used(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "prompts.json").write_text(text)
    with pytest.raises(PromptError) as caught:
        read_prompt_file(tmp_path / "prompts.json")
    assert said in str(caught.value)


def test_all_problems_of_a_prompt_file_come_at_once(tmp_path: Path) -> None:
    objects = '[{"box": [9, 0, 3, 3]}, {"points": [[1, 2]], "labels": [3]}]'
    (tmp_path / "p.json").write_text(f'{{"images": [{{"image": "a.jpg", "objects": {objects}}}]}}')
    with pytest.raises(PromptError) as caught:
        read_prompt_file(tmp_path / "p.json")
    assert "object 0" in str(caught.value) and "object 1" in str(caught.value)


def test_a_prompt_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"none\.json cannot be read"):
        read_prompt_file(tmp_path / "none.json")
