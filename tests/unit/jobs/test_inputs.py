from __future__ import annotations

from pathlib import Path

import pytest

from mobilesam_core.errors import UsageError
from mobilesam_core.jobs.inputs import ImageFile, Shard, find_images


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a/cat.jpg", "a/cat.png", "a/b/cat.jpg", "dog.png", "c/dog.png", ".hidden/cat.jpg", "a/notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _names(images: list[ImageFile]) -> list[str]:
    return [image.name for image in images]


def test_a_folder_is_searched_and_names_say_where_an_image_lies(tree: Path) -> None:
    assert _names(find_images([str(tree)])) == ["a/b/cat", "a/cat_jpg", "a/cat_png", "c/dog", "dog"]


def test_names_of_a_folder_do_not_depend_on_what_else_it_holds(tree: Path) -> None:
    before = {image.path: image.name for image in find_images(["a/b"])}
    (tree / "a/b/d").mkdir()
    (tree / "a/b/d/cat.jpg").touch()
    after = {image.path: image.name for image in find_images(["a/b"])}
    assert before.items() <= after.items() and len(after) == 2


def test_files_of_one_stem_get_names_of_their_own(tree: Path) -> None:
    images = find_images(["dog.png", "c/dog.png", "a/cat.jpg"])
    assert len({name.casefold() for name in _names(images)}) == 3 and "cat" in _names(images)
    assert {str(image.path) for image in images} == {"dog.png", "c/dog.png", "a/cat.jpg"}


def test_patterns_lists_and_repetitions(tree: Path) -> None:
    assert _names(find_images(["**/dog.*"])) == ["c-dog", f"{tree.name}-dog"]
    listed = find_images(["-"], ["dog.png\n", "\n", "a/b\n"])
    assert _names(listed) == ["cat", "dog"]
    assert _names(find_images(["dog.png", "./dog.png", str(tree / "dog.png")])) == ["dog"]


def test_names_stay_below_the_results_folder(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree / "c")
    images = find_images(["../dog.png", "dog.png", "../c/dog.png"])
    assert len(images) == 2 and not any(".." in image.name for image in images)


def test_results_are_no_input(tree: Path) -> None:
    before = find_images(["."], out=Path("masks"))
    (tree / "masks").mkdir()
    (tree / "masks/0.png").touch()
    assert find_images(["."], out=Path("masks")) == before
    for argument in ("a", "a/cat.jpg", "a/*.jpg"):
        with pytest.raises(UsageError, match="where the results go"):
            find_images([argument], out=tree / "a")


@pytest.mark.parametrize("arguments", [[], ["*.bmp"], ["empty"], ["-"]])
def test_nothing_to_do_is_said(tree: Path, arguments: list[str]) -> None:
    (tree / "empty").mkdir()
    with pytest.raises(UsageError):
        find_images(arguments)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_are_disjoint_and_complete(count: int) -> None:
    images = [ImageFile(Path(f"{i}.png"), str(i)) for i in range(5)]
    shares = [Shard.parse(f"{number}/{count}").of(images) for number in range(1, count + 1)]
    assert sorted((i for share in shares for i in share), key=lambda i: i.name) == images
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    suffixes = {Shard(number, count).suffix() for number in range(1, count + 1)}
    assert len(suffixes) == count


@pytest.mark.parametrize("text", ["5/3", "0/3", "1", "a/b", "1/0", "-1/2", ""])
def test_impossible_shards(text: str) -> None:
    with pytest.raises(UsageError, match="share"):
        Shard.parse(text)
