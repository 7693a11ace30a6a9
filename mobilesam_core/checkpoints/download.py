"""Official weights: downloaded once, resumable, verified."""

from __future__ import annotations

import http.client
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mobilesam_core.errors import CheckpointError, UnreachableError
from mobilesam_core.files import file_sha256, make_folder, output_error
from mobilesam_core.progress import Reporter

_BLOCK = 1 << 18
_TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class WeightSpec:
    """A file to download: ``name`` in the cache, pinned ``url``, ``sha256`` (hex) and ``size`` in bytes."""

    name: str
    url: str
    sha256: str
    size: int


_SAM = "https://dl.fbaipublicfiles.com/segment_anything"

OFFICIAL_WEIGHTS: Mapping[str, WeightSpec] = {
    "vit_t": WeightSpec(
        name="mobile_sam.pt",
        url="https://raw.githubusercontent.com/ChaoningZhang/MobileSAM/"
        "f706ad9c4eb7f219c00d9050e46328518ffb65d2/weights/mobile_sam.pt",
        sha256="6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        size=40_728_226,
    ),
    "vit_b": WeightSpec(
        name="sam_vit_b_01ec64.pth",
        url=f"{_SAM}/sam_vit_b_01ec64.pth",
        sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        size=375_042_383,
    ),
    "vit_l": WeightSpec(
        name="sam_vit_l_0b3195.pth",
        url=f"{_SAM}/sam_vit_l_0b3195.pth",
        sha256="3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        size=1_249_524_607,
    ),
    "vit_h": WeightSpec(
        name="sam_vit_h_4b8939.pth",
        url=f"{_SAM}/sam_vit_h_4b8939.pth",
        sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        size=2_564_550_879,
    ),
}
"""By model; each hash and size as many public projects state them."""


def cache_folder() -> Path:
    """``MOBILESAM_CACHE``, else ``mobilesam`` in the user's cache folder of this platform."""
    if chosen := os.environ.get("MOBILESAM_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "mobilesam"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/mobilesam"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mobilesam"


def cached_weights(spec: WeightSpec) -> Path | None:
    """The file in the cache, if it is there and of the right size; its hash is checked when it is used."""
    try:
        path = cache_folder() / spec.name
        return path if path.stat().st_size == spec.size else None
    except (OSError, RuntimeError):  # also where there is no home folder
        return None


def download_url(spec: WeightSpec) -> str:
    """The pinned address, unless ``MOBILESAM_WEIGHTS_URL`` names a mirror.

    The variable holds the address of the file itself or, ending in ``/``, of a folder with a file of that
    name. A mirror is not trusted: what it sends must have the pinned hash.
    """
    mirror = os.environ.get("MOBILESAM_WEIGHTS_URL")
    if not mirror:
        return spec.url
    return mirror + spec.name if mirror.endswith("/") else mirror


def fetch_weights(spec: WeightSpec, reporter: Reporter) -> Path:
    """The verified file in the cache, downloaded if it is not there yet.

    A download that was cut off goes on where it stopped.

    Raises:
        UnreachableError: no connection.
        CheckpointError: a mirror without the file, a connection cut off, or a file with another hash.
        OutputError: the cache cannot be written.
    """
    target = cache_folder() / spec.name
    if target.is_file():
        if file_sha256(target) == spec.sha256:
            return target
        reporter.warning(f"{target} is damaged (its sha256 is wrong); it is downloaded again.")
    make_folder(target.parent)
    part = target.with_name(f"{spec.name}.part")
    try:
        _download(spec, part, reporter)
        found = file_sha256(part)
        if found != spec.sha256:
            part.unlink()
            raise CheckpointError(
                f"{download_url(spec)} sent a file with sha256 {found}, not {spec.sha256}; it was deleted.",
                "Run again, or set MOBILESAM_WEIGHTS_URL to a mirror that has the original.",
            )
        part.replace(target)
    except OSError as error:
        raise output_error(part, error) from error
    return target


def _download(spec: WeightSpec, part: Path, reporter: Reporter) -> None:
    """Fill ``part`` up to the size of ``spec``; an OSError that escapes is about ``part``."""
    done = part.stat().st_size if part.is_file() else 0
    if done == spec.size:
        return
    if done > spec.size:
        done = 0
    with closing(_connect(spec, part, done)) as response:
        # A server that knows no ranges answers 200 and starts over.
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        start = done if resumed else 0
        with (
            part.open("ab" if resumed else "wb") as file,
            reporter.task(f"Downloading {spec.name}", total=spec.size, unit="B", start=start) as task,
        ):
            position = start
            while position <= spec.size and (block := _read(response)):
                file.write(block)
                position += len(block)
                task.advance(len(block))
    if position < spec.size:
        raise CheckpointError(
            f"The download of {spec.name} was cut off at {position} of {spec.size} bytes.",
            "Run again to continue.",
        )


def _connect(spec: WeightSpec, part: Path, start: int) -> http.client.HTTPResponse:
    url = download_url(spec)
    if urlsplit(url).scheme not in ("http", "https"):
        raise CheckpointError(f"MOBILESAM_WEIGHTS_URL is not a web address: {url}.", "It begins with https://.")
    # Without the range, a server may compress or cache as it likes; with it, the answer must be those bytes.
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
        return response
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        reason = getattr(error, "reason", None) or error
        # A mirror that answers, but not with the file, is a mistake to repair; anything else may be a network that
        # leads nowhere, of which some answer in a server's place.
        answered = isinstance(error, urllib.error.HTTPError) and "MOBILESAM_WEIGHTS_URL" in os.environ
        raise (CheckpointError if answered else UnreachableError)(
            f"Cannot download {spec.name} from {url} ({reason}).",
            f"Get that file (sha256 {spec.sha256}) another way and save it as {part.with_name(spec.name)}; "
            "or set MOBILESAM_WEIGHTS_URL to a mirror; or name a checkpoint you have; "
            "or use the small weights that need no download: --checkpoint nano, or in a config model.name: vit_nano "
            "and model.checkpoint: nano.",
        ) from error


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(_BLOCK)
    except (OSError, http.client.HTTPException):
        # The same as an early end: what came is kept, and the caller sees that it is too short.
        return b""
