"""``mobilesam app`` as its users meet it: a real server, and a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from mobilesam_core.checkpoints.loading import embedded_weights
from mobilesam_core.config.data import ShapesConfig
from mobilesam_core.data.shapes import ShapesSource

pytest.importorskip("gradio", reason="Gradio is not installed: pip install 'mobilesam[app]'")
playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="there is no chromium: apt-get install chromium"),
]

Run = Callable[..., Any]
Predict = Callable[..., np.ndarray]
REVISION = "() => Number(document.querySelector('#canvas [data-revision]').dataset.revision)"
MASK = re.compile("Mask with a score")


@dataclass(frozen=True)
class Served:
    """A server at ``address``; ``folder`` holds 0.png and 1.png, and second.safetensors, which it offers too."""

    address: str
    folder: Path
    process: subprocess.Popen[str]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("app")
    source = ShapesSource(ShapesConfig(format="shapes", domains=("polygons",), count=2, size=384, seed=3))
    for index in range(2):
        Image.fromarray(source[index].image).save(folder / f"{index}.png")
    shutil.copy(embedded_weights(), folder / "second.safetensors")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mobilesam_cli", "app", "--port", str(port)]
    command += ["--checkpoint", "nano", "--checkpoint", str(folder / "second.safetensors")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"})
    assert process.stderr is not None
    line = process.stderr.readline()
    try:
        assert f"http://127.0.0.1:{port}" in line, line + process.stderr.read()
        yield Served(f"http://127.0.0.1:{port}", folder, process)
        assert process.poll() is None, "the server went down"
    finally:
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=20)[1]
    assert process.returncode == 0 and "Traceback" not in rest, rest


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


class User:
    """Somebody at the page, in a browser context of their own."""

    def __init__(self, browser: Any, served: Served, image: str | None = "1.png") -> None:
        self.context = browser.new_context(viewport={"width": 1280, "height": 1000}, accept_downloads=True)
        self.page = self.context.new_page()
        self.hosts: set[str] = set()
        self.problems: list[str] = []
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        self.page.on("console", lambda message: message.type == "error" and self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.goto(served.address)
        self.canvas = self.page.locator("#canvas canvas")
        self.status = self.page.locator("#canvas .sam-status")
        playwright.expect(self.page.locator("#canvas [data-revision]")).to_have_attribute(
            "data-revision", re.compile(r"\d")
        )
        if image is not None:
            self.upload(served.folder / image)
            self.says(f"{image}: click on a thing")

    def says(self, text: str | re.Pattern[str]) -> None:
        """Wait until the page says so, and has drawn it."""
        playwright.expect(self.status).to_contain_text(text, timeout=30_000)
        self.page.wait_for_function(
            "() => { const it = document.querySelector('#canvas [data-revision]');"
            " return it && !it.querySelector('.sam-busy:not([hidden])'); }"
        )

    def upload(self, path: Path) -> None:
        self.page.locator("#canvas input[type=file]").set_input_files(path)

    def at(self, x: float, y: float, size: int = 384) -> dict[str, float]:
        """Where the middle of a pixel of the image is on the canvas."""
        box = self.canvas.bounding_box()
        return {"x": (x + 0.5) * box["width"] / size, "y": (y + 0.5) * box["height"] / size}

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Does something that the server answers, and waits for the answer."""
        revision = self.page.evaluate(REVISION)
        yield
        self.page.wait_for_function(f"since => ({REVISION})() > since", arg=revision)

    def click(self, x: float, y: float, **options: Any) -> None:
        with self.changing():
            self.canvas.click(position=self.at(x, y), **options)

    def drag(self, x1: float, y1: float, x2: float, y2: float) -> None:
        self.canvas.scroll_into_view_if_needed()
        frame, start, end = self.canvas.bounding_box(), self.at(x1, y1), self.at(x2, y2)
        with self.changing():
            self.page.mouse.move(frame["x"] + start["x"], frame["y"] + start["y"])
            self.page.mouse.down()
            self.page.mouse.move(frame["x"] + end["x"], frame["y"] + end["y"], steps=4)
            self.page.mouse.up()

    def press(self, key: str) -> None:
        with self.changing():
            self.canvas.press(key)

    def download(self, ending: str) -> Path:
        with self.page.expect_download() as waiting:
            self.page.locator(f'#downloads a[data-file="{ending}"]').click()
        return Path(waiting.value.path())

    def mask(self) -> np.ndarray:
        return pixels(self.download("mask.png"))

    def prompts(self) -> dict[str, Any]:
        (annotation,) = json.loads(self.download("coco.json").read_text("utf-8"))["annotations"]
        prompts: dict[str, Any] = annotation["prompts"]
        return prompts


@pytest.fixture
def user(browser: Any, served: Served) -> Iterator[User]:
    user = User(browser, served)
    yield user
    assert not user.problems, user.problems
    assert user.hosts == {urlsplit(served.address).netloc}
    user.context.close()


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture
def predicted(run_cli: Run, tmp_path: Path) -> Callable[..., np.ndarray]:
    """What the command line answers."""

    def predict(image: Path, *prompts: str) -> np.ndarray:
        out = tmp_path / "predicted"
        ran = run_cli("predict", image, *prompts, "--checkpoint", "nano", "--out", out, "--overwrite", "--no-overlay")
        assert ran.code == 0, ran.err
        return pixels(out / image.stem / "0.png")

    return predict


def test_prompts(user: User, served: Served, predicted: Predict) -> None:
    image = served.folder / "1.png"
    user.click(200, 190)
    user.says(MASK)
    assert np.array_equal(user.mask(), predicted(image, "--point", "200,190"))

    with user.changing():
        user.page.locator("#output label").filter(has_text="2 · ").click()
    user.says(MASK)
    user.click(60, 300, button="right")
    user.drag(100, 90, 300, 299)
    assert user.prompts() == {
        "points": [[200, 190], [60, 300]],
        "labels": [1, 0],
        "box": [100, 90, 301, 300],
        "mask": None,
    }
    given = ["--point", "200,190", "--negative", "60,300", "--box", "100,90,301,300"]
    assert np.array_equal(user.mask(), predicted(image, *given))
    assert pixels(user.download("overlay.png")).shape == (384, 384, 3)

    with user.changing():
        user.page.get_by_role("button", name="Undo").click()
    user.page.get_by_role("radio", name="Not on it").click()
    user.click(20, 20)
    assert user.prompts()["labels"] == [1, 0, 0] and user.prompts()["box"] is None
    user.page.get_by_role("button", name="Clear").click()
    user.says("click on a thing")
    assert user.page.locator("#downloads a").count() == 0


def test_the_keyboard(user: User) -> None:
    user.canvas.focus()
    for key in ("ArrowLeft", "ArrowUp", "Shift+ArrowRight"):
        user.canvas.press(key)
    user.press("Enter")
    user.says(MASK)
    user.canvas.press("ArrowDown")
    user.press("Shift+Enter")
    step = round(384 / 50)
    x, y = 192 - step + 1, 192 - step
    assert user.prompts()["points"] == [[x, y], [x, y + step]] and user.prompts()["labels"] == [1, 0]
    user.canvas.focus()
    user.canvas.press("b")
    for _ in range(5):
        user.canvas.press("ArrowRight")
        user.canvas.press("ArrowDown")
    user.press("b")
    assert user.prompts()["box"] == [x, y + step, x + 5 * step + 1, y + 6 * step + 1]
    user.canvas.focus()
    user.press("Control+z")
    assert user.prompts()["box"] is None
    user.canvas.focus()
    user.press("Escape")
    user.says("click on a thing")


def test_everything(user: User, served: Served, run_cli: Run, tmp_path: Path) -> None:
    user.page.get_by_label("number input for Points per side").fill("12")
    user.page.get_by_role("button", name="Find everything").click()
    user.says("masks found")
    document = json.loads(user.download("coco.json").read_text("utf-8"))
    settings = ["--points-per-side", "12", "--pred-iou-thresh", "0.7", "--stability-score-thresh", "0.8"]
    image = served.folder / "1.png"
    assert run_cli("amg", image, "--checkpoint", "nano", "--format", "coco", *settings, "--out", tmp_path).code == 0
    expected = json.loads((tmp_path / "annotations.json").read_text("utf-8"))
    assert document["annotations"] == expected["annotations"] and document["annotations"]
    assert user.mask().max() == len(document["annotations"])


def test_two_users_do_not_mix(user: User, browser: Any, served: Served, predicted: Predict) -> None:
    other = User(browser, served, "0.png")
    user.click(100, 120)
    other.click(250, 200)
    user.click(300, 300, button="right")
    expected = predicted(served.folder / "1.png", "--point", "100,120", "--negative", "300,300")
    assert np.array_equal(user.mask(), expected)
    expected = predicted(served.folder / "0.png", "--point", "250,200")
    assert np.array_equal(other.mask(), expected)
    other.context.close()


def test_before_an_image(browser: Any, served: Served) -> None:
    user = User(browser, served, image=None)
    user.canvas.click()
    user.says("There is no image yet")
    user.page.get_by_role("button", name="Find everything").click()
    user.says("There is no image yet")
    user.page.get_by_role("button", name="Sample: cells.png").click()
    user.says("cells.png: click on a thing")
    user.context.close()


def test_uploads_that_cannot_be(user: User, tmp_path: Path) -> None:
    (tmp_path / "drawing.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
    (tmp_path / "text.png").write_text("no image")
    Image.new("1", (20_000, 500)).save(tmp_path / "large.png")
    for name, message in (
        ("drawing.svg", "drawing.svg is not an image"),
        ("text.png", "text.png is not an image"),
        ("large.png", "20,000 x 500 pixels"),
    ):
        user.upload(tmp_path / name)
        user.says(message)
    (tmp_path / "fat.png").write_bytes(bytes(50 * 2**20))
    user.upload(tmp_path / "fat.png")
    user.says("fat.png has 50 MB")
    user.click(100, 120)
    user.says(MASK)


def test_a_checkpoint_that_is_deleted(user: User, served: Served) -> None:
    second = served.folder / "second.safetensors"
    second.unlink()

    def choose(name: str) -> None:
        user.page.locator("#model input").click()
        user.page.get_by_role("option", name=name).click()

    choose(str(second))
    user.says("second.safetensors")
    assert "sam-wrong" in user.status.get_attribute("class")
    shutil.copy(embedded_weights(), second)
    choose("nano")
    user.says("click on a thing")
    choose(str(second))
    user.says("click on a thing")
    user.click(100, 120)
    user.says(MASK)


def test_no_other_file_can_be_read_or_sent(user: User, served: Served) -> None:
    user.click(100, 120)
    token = user.page.locator("#downloads a").first.get_attribute("href").split("/")[1]
    here = Path(__file__).parent.parent.parent / "pyproject.toml"
    for path in ("/etc/passwd", here, "../../../etc/passwd"):
        for route in ("gradio_api/file=", "file=", "gradio_api/proxy=file://", "of/", f"of/{token}/"):
            with pytest.raises(urllib.error.HTTPError) as raised:
                urllib.request.urlopen(f"{served.address}/{route}{path}")
            raised.value.close()
            assert raised.value.code in (400, 403, 404, 405), (route, path)
    for route in ("gradio_api/upload", "of/nobody/image"):
        request = urllib.request.Request(f"{served.address}/{route}", data=bytes(100), method="POST")
        try:
            with urllib.request.urlopen(request) as reply:
                assert "no longer has" in json.load(reply)["problem"]
        except urllib.error.HTTPError as error:
            error.close()
            assert error.code == 404
    # More than the browser's own check would let through.
    headers = {"X-File-Name": "..%2F..%2Ffat.png"}
    request = urllib.request.Request(f"{served.address}/of/{token}/image", bytes(33 * 2**20), headers, method="POST")
    with urllib.request.urlopen(request) as reply:
        assert json.load(reply)["problem"].startswith("fat.png has 33 MB")
