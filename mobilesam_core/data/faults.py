"""Naming all that is wrong with a thing, and not the first alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from mobilesam_core.errors import DataError

Found = TypeVar("Found")
Pixels = TypeVar("Pixels")
OnFault = Callable[[DataError], None]
"""Told of each part of a set that cannot be used and is left out."""

_LISTED = 50  # in one message; more would hide what it says


class Faults:
    """Collects DataErrors, so that what follows the first is looked at too."""

    def __init__(self) -> None:
        self.found: list[DataError] = []

    @contextmanager
    def catch(self) -> Iterator[None]:
        """Remember the DataError that ends the block, and go on after it."""
        try:
            yield
        except DataError as fault:
            self.found.append(fault)

    def settle(self, on_fault: OnFault | None = None) -> None:
        """Tell ``on_fault`` of each.

        Raises:
            DataError: there are some and no ``on_fault``; it names all.
        """
        if self.found and on_fault is None:
            raise sum_up(self.found)
        for fault in self.found:
            assert on_fault is not None
            on_fault(fault)


def read_both(annotations: Callable[[], Found], image: Callable[[], Pixels]) -> tuple[Found, Pixels]:
    """What the two readers give; where both fail, one DataError says what is wrong with each."""
    faults = Faults()
    with faults.catch():
        found = annotations()
    with faults.catch():
        pixels = image()
    faults.settle()  # from here on both are there
    return found, pixels


def single(fault: DataError) -> tuple[DataError, ...]:
    """The faults that one error sums up, or itself."""
    return fault.parts or (fault,)


def sum_up(found: Sequence[DataError]) -> DataError:
    """One error that says what all of ``found`` (at least one) say."""
    if len(found) == 1:
        return found[0]
    faults = [each for fault in found for each in single(fault)]
    lines = [fault.message for fault in faults[:_LISTED]]
    if len(faults) > _LISTED:
        lines.append(f"… and {len(faults) - _LISTED} more")
    remedies = dict.fromkeys(fault.remedy for fault in faults if fault.remedy)
    return DataError(
        f"{len(faults)} faults:\n  " + "\n  ".join(lines), " ".join(remedies), faults[0].fault, parts=faults
    )
