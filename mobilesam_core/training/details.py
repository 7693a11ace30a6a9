"""What a validation found besides its figures: ``validation/epoch_003/`` of a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from mobilesam_core.errors import DataError
from mobilesam_core.evaluation.calibration import Calibration
from mobilesam_core.evaluation.types import PromptKind
from mobilesam_core.evaluation.worst import WorstCases
from mobilesam_core.files import printable, write_json

_NAME = "details.json"


@dataclass(frozen=True)
class WorstObject:
    """One of the objects that came out worst. picture: the name of its file, beside this one."""

    picture: str
    image: str
    object: int
    iou: float
    predicted_iou: float


@dataclass(frozen=True)
class Details:
    """By kind of prompt. worst: the worst first."""

    calibration: dict[PromptKind, Calibration]
    worst: dict[PromptKind, tuple[WorstObject, ...]]


def write_details(folder: Path, calibration: Mapping[PromptKind, Calibration], worst: WorstCases) -> None:
    """Write ``details.json`` and the pictures it names.

    Raises:
        OutputError: a file cannot be written.
    """
    found = {
        kind: tuple(
            WorstObject(name, printable(score.image), score.object, score.iou, score.predicted_iou)
            for name, score in zip(names, worst.scores(kind), strict=True)
        )
        for kind, names in worst.write(folder).items()
    }
    write_json(folder / _NAME, asdict(Details(dict(calibration), found)))


def read_details(folder: Path) -> Details | None:
    """What :func:`write_details` wrote into ``folder``; None where it did not.

    Raises:
        DataError: the file cannot be read, or is another.
    """
    path = folder / _NAME
    if not path.exists():
        return None
    try:
        return TypeAdapter(Details).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(f"{path} does not hold the details of a validation.", "Remove that file.") from error
