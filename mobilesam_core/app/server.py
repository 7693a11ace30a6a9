"""``mobilesam app``: serves the page until it is stopped."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

from mobilesam_core.app.models import Models
from mobilesam_core.app.pictures import FILES, file_name, layer, photo
from mobilesam_core.app.session import Session
from mobilesam_core.app.uploads import MAX_BYTES, NamedImage, check_bytes, read_bounded, read_upload
from mobilesam_core.app.visitors import Visitors
from mobilesam_core.config.data import ShapesConfig, ShapesDomain
from mobilesam_core.data.shapes import ShapesSource
from mobilesam_core.errors import MobileSamError, UsageError
from mobilesam_core.progress import Reporter

_PORT, _PORTS = 7860, 100
_NAME_LENGTH = 200
_SAMPLES: dict[ShapesDomain, int] = {"cells": 1, "polygons": 5, "heap": 5}  # by seed
# Whatever the page is made of comes from here: nothing can be fetched from elsewhere, and nothing sent there.
_HEADERS = (
    (b"content-security-policy", b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; form-action 'self'"),
    (b"x-content-type-options", b"nosniff"),
)

# Images come and go by addresses of our own.
_REFUSED = (
    *("file", "upload", "proxy", "stream", "deep_link", "dev", "component_server", "custom_component"),
    *("process_recording", "vibe", "undo-vibe"),
)
_DECODED_AT_ONCE = 2  # uploads: a small file may be a large image

_Message = MutableMapping[str, Any]


def require_gradio() -> None:
    """Raises:
    UsageError: Gradio is not installed.
    """
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise UsageError("Gradio is not installed.", 'Install it: pip install "mobilesam[app]".') from error


def listen(host: str, port: int | None) -> socket.socket:
    """A socket that listens at ``port`` or, if that is None, at the first free one from 7860 on.

    Raises:
        UsageError: the port is taken (the message names one that is free), or cannot be used.
    """
    if port is not None:
        try:
            return _bind(host, port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                with _first_free(host, port + 1) as free:
                    other = free.getsockname()[1]
                raise UsageError(f"Port {port} is taken.", f"Port {other} is free: --port {other}.") from error
            raise _cannot_listen(host, port, error) from error
    return _first_free(host, _PORT)


def _first_free(host: str, first: int) -> socket.socket:
    for port in range(first, min(first + _PORTS, 2**16)):
        try:
            return _bind(host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise _cannot_listen(host, port, error) from error
    raise UsageError(f"No port from {first} on is free.", "Choose one with --port.")


def _bind(host: str, port: int) -> socket.socket:
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address[:2], family=family)


def _cannot_listen(host: str, port: int, error: OSError) -> UsageError:
    return UsageError(
        f"Cannot listen at {host}, port {port}: {error.strerror or error}.", "Choose another --host or --port."
    )


def sample_images(paths: Sequence[Path]) -> list[NamedImage]:
    """The images to choose from: those of the user, or some that are drawn.

    Raises:
        DataError: one cannot be read.
    """
    if paths:
        return [read_bounded(path, path.name) for path in paths]
    return [NamedImage(f"{domain}.png", _drawn(domain, seed)) for domain, seed in _SAMPLES.items()]


def _drawn(domain: ShapesDomain, seed: int) -> np.ndarray:
    config = ShapesConfig(format="shapes", domains=(domain,), count=1, size=384, seed=seed)
    return ShapesSource(config)[0].image


def serve(
    models: Models, samples: Sequence[NamedImage], open_first: bool, listening: socket.socket, reporter: Reporter
) -> None:
    """Serve the page at ``listening`` until Ctrl-C.

    open_first: whether the first sample is open from the start.
    """
    import uvicorn

    host, port = listening.getsockname()[:2]
    application = build_application(models, samples, open_first, port)

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            # Pages keep connections open, and each that is cut would be an error with a traceback.
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
            super().handle_exit(sig, frame)

    server = Server(uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=1))
    name = f"[{host}]" if ":" in host else host
    reporter.info(f"Open http://{name}:{port} in a browser. Ctrl-C ends it.")
    if host not in ("127.0.0.1", "::1"):
        reporter.warning(f"Whoever reaches this machine at port {port} can use the page: there is no password.")
    try:
        server.run(sockets=[listening])
    except KeyboardInterrupt:
        reporter.info("Stopped.")


def build_application(models: Models, samples: Sequence[NamedImage], open_first: bool, port: int) -> Any:
    """The web application: Gradio's page, and what its canvas sends and fetches."""
    import gradio as gr

    from mobilesam_core.app.page import Page, css, theme

    visitors = Visitors()
    blocks = Page(models, visitors, samples, open_first).build()
    return gr.mount_gradio_app(
        build_routes(visitors),
        blocks,
        path="/",
        server_port=port,
        footer_links=[],
        run_history=False,
        max_file_size=MAX_BYTES,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        theme=theme(),
        css=css(),
    )


def build_routes(visitors: Visitors) -> Any:
    """Without the page: what a canvas sends and fetches of a session of ``visitors``, by the session's secret token."""
    from fastapi import FastAPI
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route

    decoding = asyncio.Semaphore(_DECODED_AT_ONCE)

    def give(request: Request) -> Response:
        what = request.path_params["what"]
        if what not in ("photo", "layer", *FILES):
            return PlainTextResponse(f"There is no {what}.", 404)
        try:
            session = visitors.get(request.path_params["token"])
            with session.lock:
                content, headers, media = _content(session, what)
        except MobileSamError as error:
            return PlainTextResponse(str(error), 404)
        return Response(content, media_type=media, headers={"Cache-Control": "no-store", **headers})

    async def receive(request: Request) -> Response:
        """Takes the file that is the request's body; what is wrong with it is told in the reply."""
        name = _file_name(request.headers.get("x-file-name", ""))
        try:
            session = visitors.get(request.path_params["token"])
            content, size = bytearray(), 0
            async for chunk in request.stream():  # to its end, since browsers listen only then
                size += len(chunk)
                if size <= MAX_BYTES:
                    content += chunk
            check_bytes(name, size)
            async with decoding:
                session.received = await run_in_threadpool(read_upload, name, bytes(content))
            visitors.make_room()
        except MobileSamError as error:
            return JSONResponse({"problem": str(error)})
        return JSONResponse({})

    application = FastAPI(
        openapi_url=None,
        routes=[Route("/of/{token}/image", receive, methods=["POST"]), Route("/of/{token}/{what}", give)],
    )
    application.add_middleware(_StayHere)
    return application


class _StayHere:
    """Around an ASGI application: no address of Gradio's that has to do with files, and :data:`_HEADERS` with every
    response."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: _Message, receive: Any, send: Callable[[_Message], Awaitable[None]]) -> None:
        async def send_with_headers(message: _Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        if scope.get("path", "").lstrip("/").removeprefix("gradio_api/").startswith(_REFUSED):
            await send_with_headers({"type": "http.response.start", "status": 404})
            await send({"type": "http.response.body", "body": b"There is no such page."})
        else:
            await self._app(scope, receive, send_with_headers)


def _file_name(quoted: str) -> str:
    """What a browser calls a file, without folders and control characters."""
    name = "".join(character for character in unquote(quoted) if character.isprintable())
    return name.replace("\\", "/").rsplit("/", 1)[-1][-_NAME_LENGTH:] or "image"


def _content(session: Session, what: str) -> tuple[bytes, dict[str, str], str]:
    """What is fetched: bytes, headers and media type.

    Raises:
        UsageError: not yet.
    """
    if what in ("photo", "layer"):
        return (photo(session), {}, "image/jpeg") if what == "photo" else (layer(session), {}, "image/png")
    media, make = FILES[what]
    name = quote(file_name(session, what))
    return make(session), {"Content-Disposition": f"attachment; filename*=UTF-8''{name}"}, media
