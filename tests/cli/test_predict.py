from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import safetensors
from PIL import Image

from mobilesam_core.ops.rle import decode_rle

Run = Callable[..., Any]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    image = np.random.default_rng(0).integers(0, 255, (48, 80, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def options(nano_checkpoint: Path, tmp_path: Path) -> tuple[object, ...]:
    return "--checkpoint", nano_checkpoint, "--out", tmp_path / "out", "--device", "cpu"


def test_progress_is_plain_where_colours_are_forced(
    run_process: Run, photo: Path, nano_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in notebooks and CI."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    ran = run_process("predict", photo, "--point", "40,20", "--checkpoint", nano_checkpoint, "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert "1/1" in ran.err and "\x1b[2K" not in ran.err


def test_points_and_a_box_make_one_object(run_process: Run, photo: Path, options: tuple, tmp_path: Path) -> None:
    prompts = ("--point", "40,20", "--negative", "5,5", "--box", "10,8,70,40")
    ran = run_process("predict", photo, *prompts, *options)
    assert ran.code == 0, ran.err
    assert "photo.png" in ran.out and "predicted IoU" in ran.out
    (record,) = json.loads((tmp_path / "out" / "photo.json").read_text("utf-8"))
    assert record["prompts"] == {
        "points": [[40, 20], [5, 5]],
        "labels": [1, 0],
        "box": [10, 8, 70, 40],
        "mask": None,
    }
    with Image.open(tmp_path / "out" / "photo" / "0.png") as mask:
        pixels = np.asarray(mask)
    assert pixels.shape == (48, 80) and set(np.unique(pixels)) <= {0, 255}
    assert np.array_equal(pixels == 255, decode_rle(record["segmentation"]))
    with Image.open(tmp_path / "out" / "photo_overlay.png") as overlay:
        assert overlay.size == (80, 48)


def test_json_is_one_document_on_stdout(run_cli: Run, photo: Path, options: tuple) -> None:
    ran = run_cli("predict", photo, "--box", "1,1,20,20", "--box", "30,10,60,40", *options, "--no-overlay", "--json")
    assert ran.code == 0, ran.err
    (image,) = ran.json["images"]
    assert [mask["object"] for mask in image["masks"]] == [0, 1]
    assert image["overlay"] is None
    assert ran.json["model"] == "vit_nano"
    assert ran.json["checkpoint_sha256"] == image["masks"][0]["checkpoint_sha256"]


def test_a_prompt_file_and_a_folder_of_images(run_cli: Run, photo: Path, options: tuple, tmp_path: Path) -> None:
    document = {"images": [{"image": "photo.png", "objects": [{"points": [[3, 4]]}, {"box": [0, 0, 80, 48]}]}]}
    (tmp_path / "prompts.json").write_text(json.dumps(document))
    ran = run_cli("predict", "--prompts", tmp_path / "prompts.json", *options, "--multimask", "--json")
    assert ran.code == 0, ran.err
    files = [mask["file"] for mask in ran.json["images"][0]["masks"]]
    assert files == [f"photo/{i}_{k}.png" for i in (0, 1) for k in (0, 1, 2)]
    folder = run_cli("predict", tmp_path, "--point", "1,1", *options, "--overwrite", "--json")
    assert [Path(image["image"]).name for image in folder.json["images"]] == ["photo.png"]
    assert sorted(path.name for path in (tmp_path / "out" / "photo").iterdir()) == ["0.png"]


def test_a_bad_image_among_good_ones(run_process: Run, photo: Path, options: tuple, tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.png").write_text("no image")
    Image.new("RGB", (20, 20)).save(tmp_path / "small.png")
    names = [tmp_path / name for name in ("empty.jpg", "text.png", "small.png")]
    ran = run_process("predict", *names, photo, "--point", "40,30", *options, "--json")
    assert ran.code == 1
    assert [Path(image["image"]).name for image in ran.json["images"]] == ["photo.png"]
    failures = json.loads((tmp_path / "out" / "failures.json").read_text("utf-8"))
    assert failures == ran.json["failures"]
    assert [Path(failure["source"]).name for failure in failures] == ["empty.jpg", "text.png", "small.png"]
    assert "3 of 4 images" in ran.err and "failures.json" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ((), "Nothing says what to segment"),
        (("--point", "40"), "'--point 40' is not 2 numbers"),
        (("--point", "a,b"), "'--point a,b'"),
        (("--box", "1,2,3"), "'--box 1,2,3' is not 4 numbers"),
        (("--point", "nan,3"), "nan,3 is not finite"),
        (("--box", "30,2,10,20"), "30,2,10,20 must have x1 < x2"),
        (("--point", "81,3"), "81,3 is outside the image (x from 0 to 80, y from 0 to 48)"),
        (("--negative", "3,-1"), "3,-1 is outside"),
        (("--box", "10,10,90,40"), "10,10,90,40 is outside"),
        (("--point", "1,1", "--box", "0,0,5,5", "--box", "5,5,9,9"), "--prompts"),
        (("--point", "1,1", "--mask", "nowhere.png"), "nowhere.png"),
        (("--prompts", "nowhere.json"), "itself"),
    ],
)
def test_prompts_that_cannot_be_used(
    run_cli: Run, photo: Path, options: tuple, prompts: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    ran = run_cli("predict", photo, *prompts, *options)
    assert ran.code == 2
    assert said in ran.err and "Traceback" not in ran.err
    assert ran.out == "" and not (tmp_path / "out").exists()


def test_points_on_the_very_edge_are_inside(run_cli: Run, photo: Path, options: tuple) -> None:
    assert run_cli("predict", photo, "--point", "0,0", "--point", "80,48", "--box", "0,0,80,48", *options).code == 0


def test_results_are_not_overwritten_unasked(run_cli: Run, photo: Path, options: tuple) -> None:
    assert run_cli("predict", photo, "--point", "4,4", *options).code == 0
    refused = run_cli("predict", photo, "--point", "4,4", *options)
    assert refused.code == 2 and "already holds results of photo" in refused.err
    assert run_cli("predict", photo, "--point", "4,4", *options, "--overwrite").code == 0


def test_a_single_bad_image_and_no_image_at_all(run_cli: Run, options: tuple, tmp_path: Path) -> None:
    missing = run_cli("predict", tmp_path / "no.jpg", "--point", "1,1", *options)
    assert missing.code == 1 and "no.jpg does not exist" in missing.err
    assert run_cli("predict", "--point", "1,1", *options).code == 2
    (tmp_path / "none").mkdir()
    empty = run_cli("predict", tmp_path / "none", "--point", "1,1", *options)
    assert empty.code == 2 and "holds no image" in empty.err


@pytest.mark.parametrize("error", [ValueError("no shape"), safetensors.SafetensorError("cut short")])
def test_ctrl_c_while_weights_are_read_is_no_fault_of_theirs(
    run_cli: Run,
    photo: Path,
    options: tuple,
    interrupted_as: Callable[[Exception], NoReturn],
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """torch puts an error of its own in the place of about every second interrupt."""
    monkeypatch.setattr(safetensors, "safe_open", lambda *_, **__: interrupted_as(error))
    ran = run_cli("predict", photo, "--point", "20,30", *options)
    assert (ran.code, ran.out, ran.err) == (130, "", "")
