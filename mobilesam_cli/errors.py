"""Exceptions → what the user reads, and the exit code."""

from __future__ import annotations

from pathlib import Path

from mobilesam_cli.console import stderr
from mobilesam_core.errors import DataError, MobileSamError


def report_error(error: Exception) -> int:
    """Print ``error`` for a user on stderr and return the exit code.

    Ours carry a remedy and a code; an error of the disk names its file; memory running out says what to lower;
    all else is a bug, and says so.
    """
    from rich.markup import escape

    console = stderr()
    if isinstance(error, MobileSamError):
        if error.told:
            return error.exit_code
        label = "Stopped" if error.exit_code == 130 else "Error"
        message, remedy, code = error.message, error.remedy, error.exit_code
    elif isinstance(error, OSError) and error.filename:
        label, message, code = "Error", f"{error.strerror}: {error.filename}.", 1
        remedy = "Check the path, its permissions and the free space."
    elif isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        label, message, code = "Error", "There is not enough memory for this.", 1
        remedy = "Lower optim.batch_size, data.max_objects or model.image_size; of amg, --points-per-batch."
    else:
        label, message, code = "Internal error", f"{type(error).__name__}: {error}", 1
        remedy = "This is a bug. Run again with --debug before the command and report the traceback."
    console.print(f"[bold red]{label}:[/] {escape(message)}", highlight=False, soft_wrap=True)
    if remedy:
        console.print(f"[bold]→[/] {escape(remedy)}", highlight=False, soft_wrap=True)
    return code


def raise_failures(failed: int, done: int, what: str, listed_in: Path | None) -> None:
    """End a batch some of whose images could not be ``what`` (``segmented``) as one that failed; not if none is."""
    if failed:
        raise DataError(
            f"{failed} of {done + failed} images could not be {what}; {listed_in} lists them.", "Repair or remove them."
        )
