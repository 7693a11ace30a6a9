"""Writing files so that a reader never sees half of one; and telling one from another."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mobilesam_core.errors import OutputError, UsageError

_TEMPORARY = re.compile(r"\.(?P<stem>.+)\.[a-z0-9_]{8}\.part(\.[^.]*)?")  # the names that atomic_path gives


def output_error(path: Path, error: OSError) -> OutputError:
    """Say in one sentence why ``path`` could not be written."""
    if error.errno == errno.ENOSPC:
        return OutputError(f"The disk is full: {path} was not written.", "Free some space and run again.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"No permission to write {path}.", "Choose another folder or change its permissions.")
    return OutputError(f"Cannot write {path}: {error.strerror or error}.", "Check the path and run again.")


def make_folder(path: Path) -> Path:
    """Create ``path`` and its parents; an :class:`OutputError` says why it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(path, error) from error
    return path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; rename it to ``path`` once the block succeeds.

    The temporary name keeps the suffix of ``path``, since image writers choose the format by it.
    When the block fails the temporary file is removed and whatever ``path`` held stays.

    Raises:
        OutputError: the file cannot be written (no permission, full disk).
    """
    make_folder(path.parent)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=f".part{path.suffix}")
    except OSError as error:
        raise output_error(path, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes private files; give the result the mode an ordinary open() would have.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, replace: bool = False) -> Iterator[Path]:
    """Yield a new folder beside ``path``; rename it to ``path``, which may be an empty folder, once the block succeeds.

    replace: whatever folder ``path`` is goes then. When the block fails the new folder is removed with all that is in
    it, and ``path`` stays.

    Raises:
        OutputError: the folder cannot be made or renamed.
    """
    make_folder(path.parent)
    try:
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
    except OSError as error:
        raise output_error(path, error) from error
    try:
        yield temporary
        _publish(temporary, path, replace)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _publish(temporary: Path, path: Path, replace: bool) -> None:
    try:
        umask = os.umask(0)  # as in atomic_path
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        if path.exists() and replace:
            aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
            path.rename(aside / path.name)
            try:
                temporary.rename(path)
            except BaseException:  # Ctrl-C too
                (aside / path.name).rename(path)
                aside.rmdir()
                raise
            shutil.rmtree(aside, ignore_errors=True)
            return
        if path.exists():
            path.rmdir()
        temporary.rename(path)
    except OSError as error:
        raise output_error(path, error) from error


def remove_leftovers(folder: Path, stems: Collection[str] | None = None) -> None:
    """Remove what processes that were killed in :func:`atomic_path` left in ``folder``: of files of these ``stems``
    (None: of all)."""
    for path in folder.glob(".*.part*"):
        temporary = _TEMPORARY.fullmatch(path.name)
        if temporary and (stems is None or temporary["stem"] in stems):
            path.unlink(missing_ok=True)


def printable(name: str) -> str:
    """``name`` with a question mark for each byte of a file's name that is no UTF-8, so that it can be written."""
    return name.encode("utf-8", "replace").decode()


def require_free(path: Path, overwrite: bool) -> None:
    """Raise a UsageError, before any work, if ``path`` is there already and shall not be replaced."""
    if path.exists() and not overwrite:
        raise UsageError(f"{path} is there already.", "Choose another name with --out, or replace it with --overwrite.")


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def file_sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
