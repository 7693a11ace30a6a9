from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from mobilesam_core.errors import DataError, Interrupted, OutputError
from mobilesam_core.jobs.inputs import ImageFile
from mobilesam_core.jobs.runner import Job, run_job
from mobilesam_core.progress import NullReporter

IMAGES = [ImageFile(Path(f"{i}.png"), str(i)) for i in range(12)]


class Recorder:
    """A job on numbers that fails where it is told to."""

    def __init__(self, bad: set[str] = frozenset(), unwritable: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        self.bad, self.unwritable = bad, unwritable
        self.written: list[tuple[str, int]] = []

    def load(self, image: ImageFile) -> int:
        if image.name in self.bad:
            raise DataError(f"{image.path} is broken.")
        return int(image.name)

    def write(self, image: ImageFile, found: int) -> None:
        if image.name in self.unwritable:
            raise OutputError("The disk is full.")
        self.written.append((image.name, found))

    def job(self) -> Job[int, int]:
        return Job(self.load, lambda image, loaded: loaded * 10, self.write, lambda found: {"found": str(found)})


def test_each_image_is_done_once_in_order(tmp_path: Path) -> None:
    recorder = Recorder()
    assert run_job(recorder.job(), IMAGES, tmp_path / "failures.jsonl", "Testing", NullReporter()) == []
    assert recorder.written == [(str(i), 10 * i) for i in range(12)]
    assert not (tmp_path / "failures.jsonl").exists()


def test_a_bad_image_costs_itself_alone(tmp_path: Path) -> None:
    recorder, path = Recorder(bad={"3", "11"}), tmp_path / "failures.jsonl"
    failures = run_job(recorder.job(), IMAGES, path, "Testing", NullReporter())
    assert [failure.source for failure in failures] == ["3.png", "11.png"] and len(recorder.written) == 10
    assert [json.loads(line)["problem"] for line in path.read_text().splitlines()] == [
        "3.png is broken.",
        "11.png is broken.",
    ]
    run_job(recorder.job(), IMAGES[3:4], path, "Testing", NullReporter())
    assert len(path.read_text().splitlines()) == 1
    run_job(Recorder().job(), IMAGES[:2], path, "Testing", NullReporter())
    assert not path.exists()


def test_the_error_of_a_single_image_is_raised(tmp_path: Path) -> None:
    job = Recorder(bad={"3"}).job()
    with pytest.raises(DataError, match=r"3\.png"):
        run_job(job, IMAGES[3:4], tmp_path / "failures.jsonl", "Testing", NullReporter(), raise_first=True)


def test_masks_that_do_not_fit_the_format_cost_their_image_alone(tmp_path: Path) -> None:
    recorder = Recorder()

    def write(image: ImageFile, found: int) -> None:
        if image.name == "5":
            raise DataError("Too many masks.")
        recorder.write(image, found)

    job = Job(recorder.load, lambda image, loaded: loaded, write, lambda found: {})
    failures = run_job(job, IMAGES, tmp_path / "failures.jsonl", "Testing", NullReporter())
    assert [failure.index for failure in failures] == [5] and len(recorder.written) == 11


def test_a_result_that_cannot_be_written_ends_the_job(tmp_path: Path) -> None:
    recorder = Recorder(unwritable={"2"})
    recorder.bad = {"0"}
    with pytest.raises(OutputError, match="full"):
        run_job(recorder.job(), IMAGES, tmp_path / "failures.jsonl", "Testing", NullReporter())
    assert recorder.written[:1] == [("1", 10)]
    assert "0.png" in (tmp_path / "failures.jsonl").read_text()


def test_a_signal_ends_it_after_the_image_in_hand(tmp_path: Path) -> None:
    recorder = Recorder()

    def work(image: ImageFile, loaded: int) -> int:
        if image.name == "4":
            os.kill(os.getpid(), signal.SIGTERM)
        return loaded * 10

    job = Job(recorder.load, work, recorder.write, lambda found: {})
    with pytest.raises(Interrupted, match="5 of 12"):
        run_job(job, IMAGES, tmp_path / "failures.jsonl", "Testing", NullReporter())
    assert [name for name, _ in recorder.written] == ["0", "1", "2", "3", "4"]
