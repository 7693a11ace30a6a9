"""Ctrl-C ends what it came in as an interrupt, whatever became of it on the way."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from threading import Thread
from typing import NoReturn

import pytest

from mobilesam_core.errors import DataError, Interrupted
from mobilesam_core.interrupt import StopRequest, interrupts_kept

InterruptedAs = Callable[[Exception], NoReturn]


@pytest.fixture(autouse=True)
def handler_is_put_back(foreground: None) -> Iterator[None]:
    yield
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


@pytest.mark.parametrize("error", [ValueError("no shape"), ImportError("broken"), DataError("cut short")])
def test_an_error_in_the_place_of_an_interrupt_ends_as_one(interrupted_as: InterruptedAs, error: Exception) -> None:
    with pytest.raises(KeyboardInterrupt) as caught, interrupts_kept():
        interrupted_as(error)
    assert caught.value.__cause__ is error


def test_one_inside_the_other_both_know(interrupted_as: InterruptedAs) -> None:
    with pytest.raises(KeyboardInterrupt), interrupts_kept():
        try:
            with interrupts_kept():
                interrupted_as(ValueError())
        except KeyboardInterrupt:
            raise DataError("what became of it further out") from None


def test_what_nobody_interrupted_ends_as_it_is() -> None:
    with pytest.raises(ValueError, match="mine"), interrupts_kept():
        raise ValueError("mine")
    with interrupts_kept():
        pass


def test_an_answer_to_the_interrupt_is_left(interrupted_as: InterruptedAs) -> None:
    with pytest.raises(Interrupted, match="what is kept"), interrupts_kept():
        interrupted_as(Interrupted("Says what is kept."))
    with interrupts_kept(), pytest.raises(KeyboardInterrupt):  # as a server that says goodbye
        signal.raise_signal(signal.SIGINT)


def test_a_request_to_stop_is_no_interrupt() -> None:
    with pytest.raises(ValueError, match="mine"), interrupts_kept():
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGINT)
        assert stop.requested
        raise ValueError("mine")


def test_a_background_job_goes_on() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts_kept():
        signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_threads_keep_the_handler_of_the_main_one() -> None:
    seen: list[object] = []

    def work() -> None:
        with interrupts_kept():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
