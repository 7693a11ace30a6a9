"""``mobilesam demo``: the whole toolkit, one workflow after the other."""

from __future__ import annotations

import time
from pathlib import Path

from mobilesam_core.demo.outcome import KINDS, DemoResult, StepResult
from mobilesam_core.demo.page import render
from mobilesam_core.demo.plan import DemoFolder, DemoOptions, claim_folder
from mobilesam_core.demo.steps import STEPS, Demo, Step
from mobilesam_core.errors import Interrupted, OutputError
from mobilesam_core.files import output_error, write_text
from mobilesam_core.interrupt import interrupts_kept
from mobilesam_core.progress import NullReporter, Reporter


def run_demo(options: DemoOptions, reporter: Reporter | None = None, began: float | None = None) -> DemoResult:
    """Do all steps; after each, ``index.html`` tells of those that were done.

    began: when the user's wait began, by ``time.perf_counter``; None: now.

    Raises:
        UsageError: the folder is taken.
        OutputError: a file cannot be written, or an exported model is not what it was made from.
        Interrupted: Ctrl-C or SIGTERM; says what is kept.
    """
    reporter = reporter or NullReporter()
    began = time.perf_counter() if began is None else began
    folder = claim_folder(options.out)
    demo = Demo(folder, options, reporter)
    planned = tuple(step.title for step in STEPS)
    result = DemoResult(folder.page, planned, (), 0.0)
    for number, step in enumerate(STEPS, 1):
        reporter.info(f"[{number}/{len(STEPS)}] {step.title}: {step.about}")
        try:
            with interrupts_kept():
                done = _done(step, demo)
                result = DemoResult(folder.page, planned, (*result.steps, done), time.perf_counter() - began)
                write_text(folder.page, render(result))
        except (KeyboardInterrupt, Interrupted) as error:
            raise _interrupted(step, number, folder, error) from error
        except (OSError, OutputError) as error:
            raise _unwritten(error, folder) from error
        reporter.info(f"[{number}/{len(STEPS)}] {done.outcome.sentence} ({done.seconds:.1f} s)")
    _warn(result, reporter)
    return result


def _done(step: Step, demo: Demo) -> StepResult:
    start = time.perf_counter()
    outcome = step.run(demo)
    return StepResult(step.name, step.title, step.about, time.perf_counter() - start, outcome)


def _interrupted(step: Step, number: int, folder: DemoFolder, stop: BaseException) -> Interrupted:
    said = f"{stop.message} " if isinstance(stop, Interrupted) else ""
    kept = ", ".join(sorted(path.name for path in folder.path.iterdir() if not path.name.startswith(".")))
    return Interrupted(
        f"The demo was stopped in step {number} of {len(STEPS)} ({step.title}). {said}"
        + (f"Kept in {folder.path}: {kept}." if kept else "Nothing was made yet."),
        f"Remove {folder.path} and run the demo again, or go on by hand"
        + (f": {folder.page} has the commands of the steps that were done." if folder.page.exists() else "."),
    )


def _unwritten(error: OSError | OutputError, folder: DemoFolder) -> OutputError:
    if isinstance(error, OSError):
        error = output_error(Path(error.filename or folder.path), error)
    return OutputError(error.message, f"{error.remedy} Remove {folder.path} before: it keeps what was made so far.")


def _warn(result: DemoResult, reporter: Reporter) -> None:
    for kind in KINDS:
        gain = result.gain(kind)
        if gain is not None and gain[1] <= gain[0]:
            reporter.warning(
                f"mIoU by {kind} did not rise ({gain[0]:.3f} → {gain[1]:.3f}): draw more images (--images)."
            )
