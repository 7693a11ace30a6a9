"""What a user can cause, and what the command line exits with.

::

    MobileSamError              1  the work failed
    ├── UsageError              2  wrong use: arguments, options, files named on the command line
    │   ├── ConfigError         2  a YAML file or a --set override
    │   └── PromptError         2  a point, box or mask that cannot be used
    ├── DataError               1  an image, mask or annotation file
    ├── CheckpointError         1  weights: unreadable, untrusted, or of another architecture
    │   └── UnreachableError    1  weights to download, and no connection
    ├── TrainingError           1  training cannot go on (a loss that is not finite, …)
    ├── OutputError             1  a file cannot be written (permission, full disk)
    └── Interrupted           130  Ctrl-C or SIGTERM, after what was done had been saved

Every message is one or more plain sentences: what is wrong, where, and what to do about it.
Anything else that escapes is a bug of ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

DataFault = Literal["set", "unpaired", "unusable", "annotation", "size", "empty", "too_small"]
"""What is wrong with data: the set as a whole; what belongs together and is not there; a file; an entry of an
annotation file; the size of a mask; a mask of nothing; objects too small for the model's input."""


class MobileSamError(Exception):
    """Base of all errors a user can cause.

    ``remedy`` says what to do; the command line prints it on its own line. ``told``: another process of the same run
    tells of it, so this one ends in silence.
    """

    exit_code = 1
    told = False

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class UsageError(MobileSamError):
    """The command was called in a way that cannot work."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration is wrong; the message lists every problem with its dotted path."""


class PromptError(UsageError):
    """A point, box or mask prompt cannot be used with this image."""


class DataError(MobileSamError):
    """An image, mask or annotation cannot be used.

    fault: of what kind. parts: the single faults, where one message sums up several.
    """

    def __init__(
        self, message: str, remedy: str = "", fault: DataFault = "unusable", parts: Sequence[DataError] = ()
    ) -> None:
        super().__init__(message, remedy)
        self.fault = fault
        self.parts = tuple(parts)


class CheckpointError(MobileSamError):
    """Weights cannot be read, trusted or matched to the model."""


class UnreachableError(CheckpointError):
    """Weights are not here yet and their server cannot be reached."""


class TrainingError(MobileSamError):
    """Training cannot go on."""


class OutputError(MobileSamError):
    """A result cannot be written."""


class Interrupted(MobileSamError):
    """The user asked to stop; the message says what was saved and how to go on."""

    exit_code = 130
