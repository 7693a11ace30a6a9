"""The report of a run that the command line made, and made anew from its folder."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from .conftest import Run

CONFIG = """
model: {name: vit_nano, checkpoint: CHECKPOINT, image_size: 64}
data:
  train: {format: shapes, count: 6, size: 64, max_shapes: 4}
  val: {format: shapes, count: 2, size: 64, max_shapes: 4, seed: 9}
  max_objects: 3
  workers: 0
optim: {batch_size: 2, lr: 1.0e-3}
train: {run: first, epochs: 2, threads: 1, log_every: 1, validation: {overlays: 2}}
"""
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>'


class Page(HTMLParser):
    """Parses a page, insists that every tag is closed in order, and remembers what it holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, nano_checkpoint: Path) -> Path:
    """The folder of a run of seconds, from weights, by the command line."""
    work = tmp_path_factory.mktemp("report")
    (work / "c.yaml").write_text(CONFIG.replace("CHECKPOINT", str(nano_checkpoint)))
    ended = subprocess.run(
        [sys.executable, "-m", "mobilesam_cli", "train", "c.yaml"],
        cwd=work,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ended.returncode == 0, ended.stderr
    folder = work / "runs" / "mobilesam" / "first"
    assert "report: runs/mobilesam/first/report.html" in ended.stdout
    return folder


@pytest.fixture
def run_folder(trained: Path, tmp_path: Path) -> Path:
    """A copy to change, under the same name."""
    return shutil.copytree(trained, tmp_path / "mobilesam" / "first")


def test_the_page_shows_figures_curves_masks_and_what_was_run(trained: Path) -> None:
    page = Page((trained / "report.html").read_text())
    text = " ".join(page.texts)
    records = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    before, *epochs = [record for record in records if record["split"] == "val"]
    best = max(epochs, key=lambda record: record["miou"])
    for name in ("box_miou", "point_miou", "loss"):
        assert f"{before[name]:.3f} → " in page.texts and f"{best[name]:.3f}" in page.texts
        assert f"{best[name] - before[name]:+.3f}" in page.texts
    assert f"Best epoch: {best['epoch']} (step {best['step']}), measured on {best['objects']:.0f} validation" in text
    for title in ("Training losses", "Validation: masks", "Validation: loss", "Learning rate", "True IoU over"):
        assert any(each.startswith(title) for each in page.texts), title
    assert page.tags.count("svg") == 5
    # Two images before and after; two of the worst objects by boxes and two by points.
    assert page.tags.count("img") == 2 * 2 + 2 * 2
    assert (trained / "config.yaml").read_text() in page.texts
    assert json.loads((trained / "environment.json").read_text())["packages"]["torch"] in text


def test_calibration_is_measured_in_every_validation(trained: Path) -> None:
    records = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        if record["split"] != "val":
            continue
        details = json.loads((trained / f"validation/epoch_{record['epoch']:03d}/details.json").read_text())
        for kind in ("box", "point"):
            found = details["calibration"][kind]
            assert record[f"{kind}_ece"] == found["ece"] and record[f"{kind}_bias"] == found["bias"]
            assert found["objects"] == record["objects"] == sum(each["objects"] for each in found["bins"])
            mean = sum(each["objects"] * (each["iou"] or 0) for each in found["bins"]) / found["objects"]
            assert mean == pytest.approx(record[f"{kind}_miou"])
            ious = [each["iou"] for each in details["worst"][kind]]
            assert ious == sorted(ious) and len(ious) == 2


def test_nothing_is_fetched(trained: Path) -> None:
    text = (trained / "report.html").read_text()
    page = Page(text)
    assert "script" not in page.tags and "link" not in page.tags
    for name, value in page.attributes:
        assert name not in ("href", "srcset") and (name != "src" or value.startswith("data:image/jpeg;base64,"))
    assert not re.search(r"https?://|url\(|@import", text)
    assert ("content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in page.attributes


def test_made_anew_it_is_the_same(run_folder: Path, run_cli: Run) -> None:
    page = run_folder / "report.html"
    first = page.read_bytes()
    page.unlink()
    ran = run_cli("report", run_folder)
    assert ran.code == 0 and ran.out == f"{page}\n"
    assert page.read_bytes() == first
    assert not list(run_folder.glob(".*"))


def test_foreign_text_stays_text(run_folder: Path, run_cli: Run) -> None:
    moved = run_folder.rename(run_folder.with_name(HOSTILE.replace("/", "")))
    config = moved / "config.yaml"
    config.write_text(config.read_text().replace("root: .", f"root: '</pre>{HOSTILE}'"))
    assert HOSTILE in config.read_text()
    (moved / "environment.json").write_text(json.dumps({HOSTILE: HOSTILE, "packages": {HOSTILE: 1}}))
    with (moved / "metrics.jsonl").open("a") as log:
        log.write(json.dumps({"split": "train", "step": 7, "epoch": 2, "total": 0.5, HOSTILE: 0.25}) + "\n")
    for details in moved.glob("validation/*/details.json"):
        tree = json.loads(details.read_text())
        tree["worst"]["box"][0]["image"] = HOSTILE
        details.write_text(json.dumps(tree))
    assert run_cli("report", moved).code == 0
    page = Page((moved / "report.html").read_text())
    assert "script" not in page.tags and not any(name.startswith("on") for name, _ in page.attributes)
    assert all(value.startswith("data:") for name, value in page.attributes if name == "src")
    assert "mobilesam/" + HOSTILE.replace("/", "") in page.texts
    assert sum(HOSTILE in text for text in page.texts) >= 5


def test_a_killed_run_without_pictures_still_has_a_page(run_folder: Path, run_cli: Run) -> None:
    for name in ("overlays", "validation", "state.pt", "environment.json", "report.html"):
        path = run_folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    log = run_folder / "metrics.jsonl"
    log.write_text(log.read_text() + '{"split": "train", "st')
    assert run_cli("report", run_folder).code == 0
    page = Page((run_folder / "report.html").read_text())
    assert page.tags.count("img") == 0 and page.tags.count("svg") == 4
    assert any("no pictures of the best epoch" in text for text in page.texts)


def test_what_is_no_run_is_said_in_a_sentence(run_folder: Path, run_cli: Run, tmp_path: Path) -> None:
    empty = run_cli("report", tmp_path)
    assert empty.code == 2 and "is not the folder of a training run: it has no metrics.jsonl." in empty.err
    lines = (run_folder / "metrics.jsonl").read_text().splitlines()
    page = (run_folder / "report.html").read_bytes()
    for name, content, code, said in (
        ("metrics.jsonl", "\n".join([*lines[:2], "{broken", *lines[2:], ""]), 1, "Line 3 of "),
        ("config.yaml", "train: [", 2, "is not valid YAML"),
        ("environment.json", "{", 1, "environment.json cannot be read as JSON"),
    ):
        path = run_folder / name
        whole = path.read_text()
        path.write_text(content)
        ran = run_cli("report", run_folder)
        assert ran.code == code and said in ran.err and "Traceback" not in ran.err, name
        path.write_text(whole)
    for picture in run_folder.glob("overlays/*/*.png"):
        picture.write_bytes(b"no picture")
    for details in run_folder.glob("validation/*/details.json"):
        details.write_text("{}")
    broken = run_cli("report", run_folder)
    assert broken.code == 1 and "does not hold the details of a validation" in broken.err
    for details in run_folder.glob("validation/*/details.json"):
        details.unlink()
    assert "is not an image that can be read" in run_cli("report", run_folder).err
    assert (run_folder / "report.html").read_bytes() == page, "what was there must stay"
