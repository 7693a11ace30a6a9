"""Official weights from a local server: whole, damaged, cut off, resumed."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mobilesam_core.checkpoints import loading
from mobilesam_core.checkpoints.download import WeightSpec, cache_folder, download_url, fetch_weights
from mobilesam_core.checkpoints.weights import save_weights
from mobilesam_core.errors import CheckpointError, OutputError
from mobilesam_core.models.sam import Sam
from mobilesam_core.progress import NullReporter

CONTENT = bytes(range(256)) * 4000


class Server(ThreadingHTTPServer):
    """Serves ``content`` at any path; may forget ranges, or hang up after ``cut`` bytes."""

    content = CONTENT
    ranges = True
    cut: int | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.requests.append((self.path, wanted))
        if self.path == "/absent":
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cut])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    monkeypatch.setenv("MOBILESAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MOBILESAM_WEIGHTS_URL", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def spec(server: Server) -> WeightSpec:
    return WeightSpec("w.pt", f"{server.url}/pinned/w.pt", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))


def part(spec: WeightSpec) -> Path:
    return cache_folder() / f"{spec.name}.part"


def test_downloads_once(server: Server, spec: WeightSpec) -> None:
    path = fetch_weights(spec, NullReporter())
    assert path == cache_folder() / "w.pt"
    assert path.read_bytes() == CONTENT
    assert fetch_weights(spec, NullReporter()) == path
    assert server.requests == [("/pinned/w.pt", None)]
    assert not part(spec).exists()


def test_wrong_hash_is_deleted(server: Server, spec: WeightSpec) -> None:
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(CheckpointError, match="sha256"):
        fetch_weights(spec, NullReporter())
    assert list(cache_folder().iterdir()) == []


def test_longer_file_is_refused(server: Server, spec: WeightSpec) -> None:
    server.content = CONTENT * 3
    with pytest.raises(CheckpointError, match="sha256"):
        fetch_weights(spec, NullReporter())
    assert list(cache_folder().iterdir()) == []


def test_cut_off_and_resumed(server: Server, spec: WeightSpec) -> None:
    server.cut = 400_000
    with pytest.raises(CheckpointError, match=r"cut off at 400000 of 1024000 bytes.*Run again to continue"):
        fetch_weights(spec, NullReporter())
    assert part(spec).read_bytes() == CONTENT[:400_000]
    server.cut = None
    assert fetch_weights(spec, NullReporter()).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, "bytes=400000-"]


def test_server_without_ranges_starts_over(server: Server, spec: WeightSpec) -> None:
    server.ranges = False
    cache_folder().mkdir()
    part(spec).write_bytes(CONTENT[:1000])
    assert fetch_weights(spec, NullReporter()).read_bytes() == CONTENT


def test_foreign_part_is_found_out(spec: WeightSpec) -> None:
    cache_folder().mkdir()
    part(spec).write_bytes(b"x" * 1000)
    with pytest.raises(CheckpointError, match="sha256"):
        fetch_weights(spec, NullReporter())
    assert fetch_weights(spec, NullReporter()).read_bytes() == CONTENT


def test_whole_part_needs_no_server(server: Server, spec: WeightSpec) -> None:
    cache_folder().mkdir()
    part(spec).write_bytes(CONTENT)
    assert fetch_weights(spec, NullReporter()).read_bytes() == CONTENT
    assert server.requests == []


def test_damaged_cache_is_replaced(spec: WeightSpec, reporter: Any) -> None:
    cache_folder().mkdir()
    (cache_folder() / spec.name).write_bytes(b"damaged")
    assert fetch_weights(spec, reporter).read_bytes() == CONTENT
    assert "damaged" in reporter.messages[0]


@pytest.mark.parametrize(("mirror", "path"), [("/mirror/", "/mirror/w.pt"), ("/other.bin", "/other.bin")])
def test_mirror(server: Server, spec: WeightSpec, monkeypatch: pytest.MonkeyPatch, mirror: str, path: str) -> None:
    monkeypatch.setenv("MOBILESAM_WEIGHTS_URL", server.url + mirror)
    assert fetch_weights(spec, NullReporter()).read_bytes() == CONTENT
    assert server.requests == [(path, None)]


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/w.pt", "/absent"])
def test_no_connection_says_what_to_do(
    server: Server, spec: WeightSpec, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("MOBILESAM_WEIGHTS_URL", url if url.startswith("http") else server.url + url)
    with pytest.raises(CheckpointError) as caught:
        fetch_weights(spec, NullReporter())
    assert download_url(spec) in caught.value.message
    for needed in (str(cache_folder() / "w.pt"), spec.sha256, "MOBILESAM_WEIGHTS_URL", "nano"):
        assert needed in caught.value.remedy


def test_without_a_name_official_is_used_and_offline_nano(
    server: Server, monkeypatch: pytest.MonkeyPatch, reporter: Any, spec: WeightSpec
) -> None:
    monkeypatch.setattr(loading, "OFFICIAL_WEIGHTS", {"vit_t": spec})
    assert loading.default_checkpoint(None, reporter) == "official" and not reporter.messages
    (cache_folder() / spec.name).unlink()
    monkeypatch.setenv("MOBILESAM_WEIGHTS_URL", "http://127.0.0.1:9/")
    assert loading.default_checkpoint(None, reporter) == "nano"
    assert "nano" in reporter.messages[0] and "127.0.0.1" in reporter.messages[0]
    # Of a model that was asked for, no other takes the place.
    assert loading.default_checkpoint("vit_t", reporter) == "official"
    assert loading.default_checkpoint("vit_nano", reporter) == "nano"
    monkeypatch.setenv("MOBILESAM_WEIGHTS_URL", server.url + "/absent")
    with pytest.raises(CheckpointError, match="Not Found"):
        loading.default_checkpoint(None, reporter)


def test_mirror_must_be_a_web_address(spec: WeightSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOBILESAM_WEIGHTS_URL", "file:///etc/passwd")
    with pytest.raises(CheckpointError, match="not a web address"):
        fetch_weights(spec, NullReporter())


def test_cache_that_cannot_be_written(spec: WeightSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MOBILESAM_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError):
        fetch_weights(spec, NullReporter())


def test_official_checkpoint(server: Server, monkeypatch: pytest.MonkeyPatch, nano: Sam, tmp_path: Path) -> None:
    save_weights(nano, tmp_path / "w.pt", {})
    server.content = (tmp_path / "w.pt").read_bytes()
    sha256 = hashlib.sha256(server.content).hexdigest()
    injected = {"vit_nano": WeightSpec("n.pt", f"{server.url}/n.pt", sha256, len(server.content))}
    monkeypatch.setattr(loading, "OFFICIAL_WEIGHTS", injected)
    model = loading.build_sam_vit_nano(checkpoint="official")
    assert all((value == nano.state_dict()[key]).all() for key, value in model.state_dict().items())
    assert loading.open_checkpoint("official", "vit_nano").sha256 == sha256
