"""``mobilesam demo`` as a user meets it, and the commands on its page as they copy them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from .conftest import Run

SMALL, TINY = ("--images", "48", "--image-size", "128"), ("--images", "16", "--image-size", "64")
OUT = "a demo"


class Commands(HTMLParser):
    """The text of every ``<code>``."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "code":
            self._inside = True
            self.found.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "code"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.found[-1] += data


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mobilesam_cli", *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Of a background job's children, shells have SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_wrong_use_is_one_sentence(run_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").touch()
    (tmp_path / "file").touch()
    for arguments, said in (
        (("--out", tmp_path / "full"), "holds something already."),
        (("--out", tmp_path / "file"), "is a file."),
        (("--out", tmp_path / "new", "--image-size", "100"), "It is a multiple of 64"),
    ):
        ran = run_cli("demo", *arguments)
        assert ran.code == 2 and said in ran.err and "Traceback" not in ran.err and ran.out == ""
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "mine"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with a small demo in it, and what the command printed."""
    work = tmp_path_factory.mktemp("demo")
    running = start("demo", "--out", OUT, *SMALL, "--json", cwd=work)
    printed, said = running.communicate(timeout=600)
    assert running.returncode == 0, said
    return work, json.loads(printed)


@pytest.mark.slow
def test_the_demo_leaves_all_it_tells_of(made: tuple[Path, dict[str, Any]]) -> None:
    work, document = made
    assert document["page"] == f"{OUT}/index.html" and len(document["steps"]) == 10
    for kind in ("box", "point"):
        for when in ("before", "after"):
            (scored,) = json.loads((work / OUT / "eval" / when / "metrics.json").read_text())["checkpoints"]
            assert document[f"{kind}_miou"][when] == pytest.approx(scored["prompts"][kind]["miou"], abs=1e-5)
    page = (work / OUT / "index.html").read_text()
    for link in re.findall(r'href="([^"]*)"', page):
        assert (work / OUT / link).is_file(), link
    assert not re.search(r"https?://", page) and page.count('src="data:image/jpeg;base64,') >= 15
    assert not list((work / OUT).rglob(".*.part*"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_command_on_the_page_does_the_same_again(made: tuple[Path, dict[str, Any]]) -> None:
    work, document = made
    commands = Commands((work / OUT / "index.html").read_text()).found
    assert commands == [command for step in document["steps"] for command in step["commands"]]
    kept = [path for path in (work / OUT).rglob("*") if path.is_file() and _is_the_same_again(path)]
    before = {path: path.read_bytes() for path in kept}
    assert len(before) > 30
    bin_folder = work / "bin"
    bin_folder.mkdir(exist_ok=True)
    (bin_folder / "mobilesam").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m mobilesam_cli "$@"\n')
    (bin_folder / "mobilesam").chmod(0o755)
    environment = {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    for command in commands:
        ran = subprocess.run(command, shell=True, cwd=work, capture_output=True, text=True, env=environment)
        assert ran.returncode == 0, f"{command}\n{ran.stderr}"
    assert {path: path.read_bytes() for path in kept} == before
    first, second = (_losses(work / OUT / "runs/tools" / name / "metrics.jsonl") for name in ("first", "first-2"))
    assert first == pytest.approx(second, rel=1e-3)


def _losses(log: Path) -> list[float]:
    lines = map(json.loads, log.read_text().splitlines())
    return [line["total"] for line in lines if line["split"] == "train"]


def _is_the_same_again(path: Path) -> bool:
    """Masks, figures and pictures: what does not tell of times."""
    return path.suffix in (".png", ".csv") or path.name in ("metrics.json", "annotations.json")


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 2, 3, 5, 6, 7, 9])
def test_a_stop_in_any_step_says_what_is_kept(tmp_path: Path, step: int) -> None:
    said: list[str] = []
    with start("demo", *TINY, cwd=tmp_path) as running:
        assert running.stderr is not None
        for line in running.stderr:
            said.append(line)
            if line.startswith(f"[{step}/10]"):
                break
        time.sleep(0.2)
        os.killpg(running.pid, signal.SIGINT)
        said += running.stderr
    text = "".join(said)
    # A shell says 130 of both: Python dies of a SIGINT that met it in text it evaluates, as dataclasses are made of.
    assert running.returncode in (130, -signal.SIGINT) and "Traceback" not in text, text
    assert re.search(rf"The demo was stopped in step ({step}|{step + 1}) of 10", text), text
    assert (tmp_path / "demo/index.html").exists() == ("demo/index.html has the commands" in text)
    assert not list((tmp_path / "demo").rglob(".*.part*"))


@pytest.mark.slow
def test_the_page_opens_in_a_browser(made: tuple[Path, dict[str, Any]]) -> None:
    work, document = made
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no chromium on this machine")
    with playwright.sync_playwright() as session:
        browser = session.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("requestfailed", lambda request: problems.append(request.url))
        page.goto((work / OUT / "index.html").as_uri())
        sizes = page.eval_on_selector_all("img", "all => all.map(each => each.complete && each.naturalWidth)")
        assert len(sizes) >= 15 and all(sizes)
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.locator(".command button").first.click()
        assert page.evaluate("navigator.clipboard.readText()") == document["steps"][0]["commands"][0]
        browser.close()
    assert problems == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_as_it_comes_the_demo_teaches(tmp_path: Path) -> None:
    running = start("demo", "--json", cwd=tmp_path)
    printed, said = running.communicate(timeout=1200)
    assert running.returncode == 0, said
    document = json.loads(printed)
    for kind in ("box", "point"):
        assert document[f"{kind}_miou"]["after"] > document[f"{kind}_miou"]["before"] + 0.02
