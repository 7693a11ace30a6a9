from __future__ import annotations

from pathlib import Path

import pytest

from mobilesam_core.errors import UsageError
from mobilesam_core.jobs.names import distinct_names


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["x/a.jpg", "x/b.png"], ["a", "b"]),
        (["x/a.jpg", "x/a.png"], ["a_jpg", "a_png"]),
        (["x/a.jpg", "y/a.jpg", "y/b.jpg"], ["x-a", "y-a", "b"]),
        (["run1/best.pt", "run2/best.safetensors"], ["best_pt", "best_safetensors"]),
        (["x/A.jpg", "y/a.jpg"], ["x-A", "y-a"]),
        (["failures.png", "a.png"], ["failures_png", "a"]),
    ],
)
def test_names_are_short_and_distinct(paths: list[str], names: list[str]) -> None:
    found = distinct_names([Path(path) for path in paths], reserved=["failures"])
    assert found == names
    assert len({name.casefold() for name in found}) == len(paths)


@pytest.mark.parametrize(
    "paths",
    [
        ["x/a.jpg", "y/a.jpg", "y/x-a.jpg"],
        ["/a-b/c.png", "/a/b-c.png", "/a-b-c.png"],
        ["/a-b/c/d", "/a/b-c/d", "/a/b/c-d"],
    ],
)
def test_names_stay_distinct_where_joining_would_make_them_equal(paths: list[str]) -> None:
    assert len(set(distinct_names([Path(path) for path in paths]))) == 3


def test_a_file_given_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="2 times"):
        distinct_names([Path("a.jpg"), Path("x/../a.jpg")])
