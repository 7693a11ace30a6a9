from __future__ import annotations

import errno
from pathlib import Path

import pytest

from mobilesam_core.errors import OutputError
from mobilesam_core.files import atomic_folder, atomic_path, make_folder, write_json, write_text


def test_a_failed_write_leaves_the_old_file_and_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "result.txt"
    write_text(path, "old")
    with pytest.raises(ValueError, match="boom"), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise ValueError("boom")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("code", "words"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "No permission")])
def test_errors_of_the_disk_are_sentences(tmp_path: Path, code: int, words: str) -> None:
    path = tmp_path / "result.txt"
    with pytest.raises(OutputError, match=words) as caught, atomic_path(path) as temporary:
        temporary.write_text("half")
        raise OSError(code, "strange words")
    assert str(path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_under_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError):
        make_folder(tmp_path / "file" / "folder")


def test_results_have_ordinary_permissions(tmp_path: Path) -> None:
    path, plain = tmp_path / "a" / "result.json", tmp_path / "plain"
    write_json(path, {"é": 1})
    plain.write_text("x")
    assert path.read_text(encoding="utf-8") == '{\n  "é": 1\n}\n'
    assert path.stat().st_mode == plain.stat().st_mode


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "set"
    with pytest.raises(ValueError, match="boom"), atomic_folder(path) as temporary:
        (temporary / "half").write_text("x")
        raise ValueError("boom")
    assert list(tmp_path.iterdir()) == []
    path.mkdir()
    with atomic_folder(path) as temporary:
        (temporary / "whole").write_text("x")
        assert list(path.iterdir()) == []
    assert [each.name for each in path.iterdir()] == ["whole"] and list(tmp_path.iterdir()) == [path]
    (tmp_path / "plain").mkdir()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    with pytest.raises(OutputError, match="set"), atomic_folder(path) as temporary:
        (temporary / "other").write_text("x")
    assert [each.name for each in path.iterdir()] == ["whole"] and len(list(tmp_path.iterdir())) == 2
