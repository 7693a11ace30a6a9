"""``mobilesam app`` up to the page itself, which test_app_browser.py drives in a browser."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobilesam_core.app.server import listen

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
