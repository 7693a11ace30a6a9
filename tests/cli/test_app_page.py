"""``mobilesam app`` up to the page itself, which test_app_browser.py drives in a browser."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from mobilesam_core.app.server import build_routes, listen
from mobilesam_core.app.session import Session
from mobilesam_core.app.uploads import MAX_BYTES
from mobilesam_core.app.visitors import Visitors
from mobilesam_core.checkpoints.loading import open_checkpoint
from mobilesam_core.runtime.torch_runtime import TorchRuntime

Run = Callable[..., Any]


def test_a_port_that_is_taken(run_cli: Run, nano_checkpoint: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ran = run_cli("app", "--checkpoint", nano_checkpoint, "--port", port)
    assert ran.code == 2 and f"Port {port} is taken." in ran.err
    assert "is free: --port" in ran.err


def test_the_next_free_port() -> None:
    with listen("127.0.0.1", None) as first, listen("127.0.0.1", None) as second:
        assert second.getsockname()[1] > first.getsockname()[1] >= 7860
        assert first.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--host", "no.such.host.invalid"], "Cannot listen at no.such.host.invalid"),
        (["--image", "missing.png"], "missing.png does not exist"),
        (["--onnx-encoder", "a.onnx"], "--onnx-decoder is missing"),
        (["--providers", "CUDA"], "--providers goes only with"),
        (["--checkpoint", "missing.pt"], "missing.pt"),
        (["--checkpoint", "nano", "--force"], "--force goes only with"),
        (["--checkpoint", "nano", "--onnx-encoder", "a.onnx"], "--onnx-decoder is missing"),
    ],
)
def test_what_cannot_be_served(run_cli: Run, nano_checkpoint: Path, arguments: list[str], message: str) -> None:
    model = [] if "--checkpoint" in arguments or "--onnx-encoder" in arguments else ["--checkpoint", nano_checkpoint]
    if "--providers" in arguments:
        model = ["--model-type", "vit_nano"]
    ran = run_cli("app", *model, *arguments)
    assert ran.code in (1, 2) and message in ran.err and "Internal error" not in ran.err


def test_without_gradio(run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    ran = run_cli("app", "--checkpoint", "nano")
    assert ran.code == 2 and 'pip install "mobilesam[app]"' in ran.err


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(TorchRuntime(open_checkpoint("nano", image_size=64).model))


@pytest.fixture
def client(session: Session) -> TestClient:
    """The application without its page, and without a network, of which ``session`` is a visitor."""
    visitors = Visitors()
    visitors.add(session)
    return TestClient(build_routes(visitors))


def test_what_a_page_may_send_and_fetch(client: TestClient, session: Session, tmp_path: Path) -> None:
    ours = f"/of/{session.token}"
    assert client.get("/of/someone/photo").status_code == 404
    assert client.get(f"{ours}/passwd").text == "There is no passwd."
    too_much = client.post(f"{ours}/image", content=bytes(MAX_BYTES + 1), headers={"x-file-name": "a.png"})
    assert "a.png has 32 MB; images have at most" in too_much.json()["problem"]
    hostile = client.post(f"{ours}/image", content=b"<svg/>", headers={"x-file-name": "..%2F..%2Fetc%2Fpasswd"})
    assert hostile.json()["problem"].startswith("passwd is not an image")
    assert session.size_in_bytes == 0
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "b.png")
    sent = client.post(f"{ours}/image", content=(tmp_path / "b.png").read_bytes(), headers={"x-file-name": "b.png"})
    assert sent.json() == {} and "content-security-policy" in sent.headers
    assert session.size_in_bytes == 8 * 8 * 3, "what waits to be opened takes memory too"


@pytest.mark.parametrize(
    "route", ["gradio_api/upload", "gradio_api/process_recording", "upload", "gradio_api/file=/etc/passwd", "stream/a"]
)
def test_addresses_of_files_are_refused(client: TestClient, route: str) -> None:
    for answer in (client.post(f"/{route}"), client.get(f"/{route}")):
        assert (answer.status_code, answer.text) == (404, "There is no such page.")
