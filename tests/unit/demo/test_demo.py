"""The demo's chain and its page, with steps that cost nothing."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from mobilesam_core.config.loading import load_train_config
from mobilesam_core.demo import workflow
from mobilesam_core.demo.outcome import DemoResult, Outcome, Picture, StepResult
from mobilesam_core.demo.page import render
from mobilesam_core.demo.plan import DemoOptions, claim_folder
from mobilesam_core.demo.steps import STEPS, Demo, Step
from mobilesam_core.demo.workflow import run_demo
from mobilesam_core.errors import Interrupted, OutputError, UsageError
from mobilesam_core.files import output_error
from mobilesam_core.ops.drawing import write_png
from mobilesam_core.pages.charts import Series
from mobilesam_core.progress import NullReporter

HOSTILE = "</code><script>alert(1)</script>"


def small(out: Path, images: int = 16, image_size: int = 64) -> DemoOptions:
    return DemoOptions(out, images, image_size)


def make(name: str) -> Callable[[Demo], Outcome]:
    """A step that writes one file."""

    def run(demo: Demo) -> Outcome:
        (demo.folder.path / name).touch()
        return Outcome((f"mobilesam {name}",), f"{name} is there.", {})

    return run


def fail(error: BaseException) -> Callable[[Demo], Outcome]:
    """A step that makes a file and ends with ``error``."""

    def run(demo: Demo) -> Outcome:
        make("half")(demo)
        raise error

    return run


@pytest.fixture
def chain(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts these in the place of the demo's steps."""

    def use(*runs: Callable[[Demo], Outcome]) -> None:
        steps = tuple(Step(f"s{n}", f"Step {n}", "Does something.", run) for n, run in enumerate(runs, 1))
        monkeypatch.setattr(workflow, "STEPS", steps)

    return use


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Interrupted("Stopped after 3 images.", "Run again.")])
def test_a_stop_says_what_is_kept(tmp_path: Path, chain: Callable[..., None], stop: BaseException) -> None:
    chain(make("first"), fail(stop), make("third"))
    out = tmp_path / "demo"
    with pytest.raises(Interrupted) as caught:
        run_demo(small(out))
    assert caught.value.exit_code == 130
    said = "Stopped after 3 images. " if isinstance(stop, Interrupted) else ""
    assert caught.value.message == (
        f"The demo was stopped in step 2 of 3 (Step 2). {said}Kept in {out}: first, half, index.html."
    )
    page = (out / "index.html").read_text()
    assert "<span>first<" in page and "Not done when this page was written: Step 2, Step 3." in page


def test_a_stop_before_anything_was_made(tmp_path: Path, chain: Callable[..., None]) -> None:
    def stopped(demo: Demo) -> Outcome:
        raise KeyboardInterrupt

    chain(stopped)
    with pytest.raises(Interrupted, match="Nothing was made yet"):
        run_demo(small(tmp_path / "demo"))


def test_a_stop_that_looks_like_a_fault(
    tmp_path: Path, chain: Callable[..., None], interrupted_as: Callable[[Exception], NoReturn]
) -> None:
    chain(make("first"), lambda demo: interrupted_as(ValueError("what torch makes of it")))
    with pytest.raises(Interrupted, match=r"stopped in step 2 of 2 \(Step 2\)"):
        run_demo(small(tmp_path / "demo"))


def test_a_full_disk_is_one_sentence(tmp_path: Path, chain: Callable[..., None]) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for error in (full, output_error(tmp_path / "file", full)):
        out = tmp_path / type(error).__name__
        chain(make("first"), fail(error))
        with pytest.raises(OutputError, match=r"The disk is full: .* was not written") as caught:
            run_demo(small(out))
        assert f"Remove {out} before" in caught.value.remedy and (out / "index.html").exists()


def test_a_folder_that_is_taken_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").touch()
    (tmp_path / "file").touch()
    for out, said in (("full", "holds something already"), ("file", "is a file"), ("a\nb", "cannot be printed")):
        with pytest.raises(UsageError, match=said):
            run_demo(small(tmp_path / out))
    with pytest.raises(OutputError, match="file"):
        run_demo(small(tmp_path / "file/below"))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "mine"]
    (tmp_path / "empty").mkdir()
    assert claim_folder(tmp_path / "empty").path == tmp_path / "empty"


@pytest.mark.parametrize("options", [{"images": 15}, {"image_size": 100}, {"image_size": 0}])
def test_sizes_that_cannot_be(options: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        small(Path("demo"), **options)


@pytest.mark.parametrize("name", ["demo", "a demo: of #1 'and' \"two\" {é} 🔧"])
def test_the_configs_say_what_was_asked(tmp_path: Path, name: str) -> None:
    folder = claim_folder(tmp_path / name)
    folder.write_configs(small(folder.path, images=80, image_size=128))
    drawn, learnt = (load_train_config(str(path)) for path in (folder.draw_config, folder.train_config))
    assert drawn.data.train.count == 80 and drawn.data.val is not None and drawn.data.val.count == 5  # type: ignore[union-attr]
    assert learnt.model.image_size == 128 and learnt.data.root == folder.data
    run = learnt.train
    assert run.output_dir / run.project / run.run == folder.run.path


def results(folder: Path, box: tuple[float, float], point: tuple[float, float]) -> DemoResult:
    """A demo in which all steps were done."""
    write_png(folder / "a.png", np.zeros((8, 8, 3), np.uint8))
    plain = Outcome(
        (f"mobilesam {HOSTILE}",), HOSTILE, {"train_objects": 5, "masks": 7, "bytes_before": 4e6, "bytes_after": 1e6}
    )
    steps = [StepResult(step.name, step.title, step.about, 2.5, plain) for step in STEPS]
    for index, name in enumerate(("before", "after")):
        at = next(i for i, step in enumerate(steps) if step.name == name)
        figures = {"box_miou": box[index], "point_miou": point[index]}
        steps[at] = replace(steps[at], outcome=replace(plain, figures=figures, head=("a", "b"), rows=(("1", HOSTILE),)))
    at = next(i for i, step in enumerate(steps) if step.name == "predict")
    shown = tuple(Picture(folder / "a.png", HOSTILE) for _ in range(3))
    curves = (Series("loss", [(1, 2.0), (2, 1.0)]),)
    steps[at] = replace(steps[at], outcome=replace(plain, comparison=shown, curves=curves, files=(folder / "a.png",)))
    return DemoResult(folder / "index.html", tuple(step.title for step in STEPS), tuple(steps), 151.0)


def test_the_page_shows_gains_times_pictures_and_commands(tmp_path: Path) -> None:
    page = render(results(tmp_path, (0.5, 0.75), (0.4, 0.7)))
    assert "0.500 → " in page and "+0.250" in page and "+0.300" in page and "2 min 31 s" in page
    assert page.count("data:image/jpeg;base64,") == 3 and page.count("<code><span>mobilesam<") == len(STEPS)
    assert "Not done" not in page and 'href="a.png"' in page and "1.0 MB" in page and "<svg" in page
    assert HOSTILE not in page and page.count("<script>") == 1
    assert "http" not in page.replace("http-equiv", "")


def test_a_figure_that_did_not_rise_is_warned_of(tmp_path: Path) -> None:
    said: list[str] = []

    class Warned(NullReporter):
        def warning(self, message: str) -> None:
            said.append(message)

    workflow._warn(results(tmp_path, (0.5, 0.6), (0.4, 0.4)), Warned())
    assert len(said) == 1 and "by point did not rise (0.400 → 0.400)" in said[0]
