from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from mobilesam_core.errors import DataError
from mobilesam_core.ops.drawing import write_png
from mobilesam_core.pages.markup import Markup, element
from mobilesam_core.pages.parts import page, picture, section, table


def test_a_page_lets_the_browser_run_its_own_script_and_no_other() -> None:
    code = "alert('<&>')"
    text = page("<title>", element("p", "x"), script=Markup(code))
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert f"<script>{code}</script>" in text and "<title>&lt;title&gt;</title>" in text
    (policy,) = re.findall(r'content="(default-src[^"]*)"', text)
    assert policy.endswith(f"; script-src &#x27;sha256-{digest}&#x27;")
    assert "script" not in page("title")


def test_a_picture_is_inside_and_no_wider_than_it_needs_be(tmp_path: Path) -> None:
    write_png(tmp_path / "wide.png", np.zeros((10, 3000, 3), np.uint8))
    assert re.fullmatch(
        r'<figure><img src="data:image/jpeg;base64,[^"]+" alt="&lt;"><figcaption>&lt;</figcaption></figure>',
        picture(tmp_path / "wide.png", "<"),
    )
    with pytest.raises(DataError):
        picture(tmp_path / "none.png", "")


def test_parts_without_content() -> None:
    assert section("title") == section("title", "") == "" and "<h2>title</h2>" in section("title", Markup("<p></p>"))
    assert 'class="facts"' in table([], [["a", "b"]]) and "<th>" not in table([], [["a", "b"]])
