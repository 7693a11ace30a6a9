from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilesam_core.app import uploads
from mobilesam_core.app.uploads import read_bounded, read_upload
from mobilesam_core.errors import DataError


def test_an_image_is_upright_rgb(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (40, 20), 7).save(tmp_path / "turned.jpg", exif=exif)
    image = read_upload("turned.jpg", (tmp_path / "turned.jpg").read_bytes())
    assert image.name == "turned.jpg" and image.pixels.shape == (40, 20, 3)


@pytest.mark.parametrize(
    "name, content",
    [
        ("text.png", b"no image at all"),
        ("empty.png", b""),
        ("drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'),
        ("program.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"),
    ],
)
def test_what_is_no_image(name: str, content: bytes) -> None:
    with pytest.raises(DataError, match=f"^{name} is not an image"):
        read_upload(name, content)


def test_a_file_cut_short(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)).save(tmp_path / "cut.png")
    with pytest.raises(DataError, match=r"^cut.png cannot be read: [^/]*$"):
        read_upload("cut.png", (tmp_path / "cut.png").read_bytes()[:5000])


@pytest.mark.parametrize("size", [(20_000, 10), (9_000, 9_000), (20_000, 20_000)])
def test_too_many_pixels(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("1", size).save(tmp_path / "large.png")
    with pytest.raises(DataError, match="pixels; images have at most"):
        read_bounded(tmp_path / "large.png", "large.png")


def test_too_many_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "fat.bmp")
    monkeypatch.setattr(uploads, "MAX_BYTES", 10_000)
    with pytest.raises(DataError, match="MB; images have at most"):
        read_bounded(tmp_path / "fat.bmp", "fat.bmp")
