"""Weight files: written, read back, and refused."""

from __future__ import annotations

import errno
import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from mobilesam_core.checkpoints.keys import to_official
from mobilesam_core.checkpoints.loading import build_sam_vit_nano, load_model, open_checkpoint, sam_model_registry
from mobilesam_core.checkpoints.thresholds import suggest_thresholds, suggests_thresholds
from mobilesam_core.checkpoints.weights import read_weights, save_weights
from mobilesam_core.config.amg import AmgThresholds
from mobilesam_core.config.model import EncoderOverrides, ModelConfig
from mobilesam_core.errors import CheckpointError, OutputError
from mobilesam_core.models.registry import build_sam
from mobilesam_core.models.sam import Sam


def assert_same_weights(model: Sam, other: Sam) -> None:
    expected = other.state_dict()
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_round_trip(nano: Sam, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    save_weights(nano, path, {"note": "ün"})
    opened = open_checkpoint(str(path))
    assert_same_weights(opened.model, nano)
    assert not opened.model.training
    assert opened.model.image_size == 128
    assert opened.metadata["note"] == "ün"
    assert opened.metadata["image_size"] == "128"
    assert opened.path == path
    assert opened.sha256 == read_weights(path).sha256
    assert ModelConfig.model_validate_json(opened.metadata["model"]).checkpoint is None


def test_overridden_architecture_comes_back(tmp_path: Path) -> None:
    thin = EncoderOverrides(embed_dims=[16, 16, 32, 32], num_heads=[1, 1, 2, 2], input_channels=1)
    model = build_sam(ModelConfig(name="vit_nano", checkpoint=None, encoder=thin, iou_head_depth=2))
    save_weights(model, tmp_path / "w.safetensors", {})
    assert_same_weights(open_checkpoint(tmp_path / "w.safetensors").model, model)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s, "epoch": 3}, lambda s: {"state_dict": s}])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model."])
def test_other_peoples_files(nano: Sam, tmp_path: Path, wrap: Any, prefix: str) -> None:
    state = {prefix + key: value for key, value in to_official(nano.state_dict()).items()}
    torch.save(wrap(state), tmp_path / "w.pt")
    # No description beside it: recognised by its weights, at the size of the named model.
    opened = open_checkpoint(tmp_path / "w.pt")
    assert_same_weights(opened.model, nano)
    assert (opened.model.config.name, opened.model.image_size) == ("vit_nano", 512)
    assert_same_weights(build_sam_vit_nano(checkpoint=tmp_path / "w.pt"), nano)


def test_half_precision_file(nano: Sam, tmp_path: Path) -> None:
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in to_official(nano.state_dict()).items()},
               tmp_path / "w.pt")  # fmt: skip
    model = sam_model_registry["vit_nano"](checkpoint=tmp_path / "w.pt")
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_load_model_at_another_size_says_so(nano: Sam, tmp_path: Path, reporter: Any) -> None:
    save_weights(nano, tmp_path / "w.pt", {})
    model = load_model(ModelConfig(name="vit_nano", checkpoint=str(tmp_path / "w.pt")), reporter)
    assert_same_weights(model, nano)
    assert "128" in reporter.messages[0]
    assert "512" in reporter.messages[0]


def test_random_weights_are_announced(reporter: Any) -> None:
    assert not load_model(ModelConfig(name="vit_nano", checkpoint=None), reporter).training
    assert "random weights" in reporter.messages[0]


def test_mismatch_lists_keys_and_leaves_the_model(nano: Sam, tmp_path: Path) -> None:
    state = to_official(nano.state_dict())
    state["mask_decoder.iou_token.weight"] = torch.zeros(1, 7)
    del state["image_encoder.patch_embed.seq.0.c.weight"]
    state.update({f"extra.{i}": torch.zeros(1) for i in range(9)})
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(CheckpointError) as caught:
        sam_model_registry["vit_nano"](checkpoint=tmp_path / "w.pt")
    message = caught.value.message
    assert str(tmp_path / "w.pt") in message
    assert "1 missing: image_encoder.patch_embed.seq.0.c.weight" in message
    assert "9 unexpected: extra.0, extra.1, extra.2, extra.3, extra.4, … (4 more)" in message
    assert "mask_decoder.iou_token.weight (1, 7) instead of (1, 128)" in message


def test_another_architecture(nano: Sam, tmp_path: Path) -> None:
    save_weights(nano, tmp_path / "w.safetensors", {})
    with pytest.raises(CheckpointError, match="does not fit vit_t"):
        sam_model_registry["vit_t"](checkpoint=tmp_path / "w.safetensors")


def test_unknown_architecture(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="does not say which model"):
        open_checkpoint(tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="does not fit vit_nano"):
        open_checkpoint(tmp_path / "w.pt", "vit_nano")


def test_official_of_another_model() -> None:
    with pytest.raises(CheckpointError, match=r"vit_nano.*vit_nano file"):
        load_model(ModelConfig(name="vit_nano", checkpoint="official"))


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("zipped", [True, False])
def test_malicious_pickle_is_not_run(tmp_path: Path, zipped: bool) -> None:
    path, marker = tmp_path / "evil.pt", tmp_path / "was_run"
    content = {"a": torch.zeros(2), "b": Bomb(marker)}
    if zipped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises(CheckpointError, match=r"evil.pt holds Python objects") as caught:
        open_checkpoint(path)
    assert "safetensors" in caught.value.remedy
    assert not marker.exists()


def torch_file() -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(500)}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("w.pt", b"", "is empty"),
        ("w.safetensors", b"", "is empty"),
        ("w.pt", b"hello world\n" * 9, "not a PyTorch checkpoint"),
        ("w.pt", torch_file()[:-300], "cut short"),
        ("w.pt", torch_file()[:30], "cut short"),
        ("w.pt", b"\x89PNG\r\n\x1a\n" + bytes(99), "not a PyTorch checkpoint"),
        ("w.safetensors", torch_file(), "not a .safetensors file"),
        ("w.safetensors", b"\x08\0\0\0\0\0\0\0{}      tail", "not a .safetensors file"),
    ],
)
def test_unreadable(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=says) as caught:
        open_checkpoint(path, "vit_nano")
    assert str(path) in caught.value.message
    assert caught.value.remedy


def test_missing_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.pt", tmp_path):
        with pytest.raises(CheckpointError, match="There is no checkpoint"):
            open_checkpoint(path)


@pytest.mark.parametrize("content", [[1, 2], {}, {"a": 3}, {"model": "x"}])
def test_no_weights_inside(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="holds no weights"):
        open_checkpoint(tmp_path / "w.pt")


def test_broken_description(nano: Sam, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    save_weights(nano, path, {})
    (tmp_path / "w.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"w\.json"):
        open_checkpoint(path)
    (tmp_path / "w.json").write_text('{"model": "{\\"name\\": \\"vit_x\\"}"}')
    with pytest.raises(CheckpointError, match="this version does not know"):
        open_checkpoint(path)
    (tmp_path / "w.json").write_text('{"somebody": "else"}')
    assert open_checkpoint(path).metadata == {}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_full_disk_keeps_what_was_there(
    nano: Sam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = tmp_path / f"w{suffix}"
    save_weights(nano, path, {})
    before = path.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OutputError, match="disk is full"):
        save_weights(nano, path, {})
    assert path.read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_no_folder_to_write_to(nano: Sam, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="Cannot write"):
        save_weights(nano, tmp_path / "file" / "w.pt", {})


def test_thresholds_are_added_to_what_a_file_says(nano: Sam, tmp_path: Path) -> None:
    path, thresholds = tmp_path / "w.safetensors", AmgThresholds(pred_iou_thresh=0.5, stability_score_thresh=0.6)
    save_weights(nano, path, {"note": "ün"}, torch.float16)
    before = read_weights(path)
    assert open_checkpoint(path).amg_thresholds is None and not suggests_thresholds(path)
    suggest_thresholds(path, AmgThresholds())
    suggest_thresholds(path, thresholds)
    after = read_weights(path)
    assert suggests_thresholds(path) and open_checkpoint(path).amg_thresholds == thresholds
    assert before.metadata.items() <= after.metadata.items()
    assert all(value.dtype == after.state[key].dtype for key, value in before.state.items())
    assert all(torch.equal(value, after.state[key]) for key, value in before.state.items())


@pytest.mark.parametrize("text", ["0.5", "{", '{"pred_iou_thresh": 7}', '{"unknown": 1}'])
def test_thresholds_that_are_none_are_refused(nano: Sam, tmp_path: Path, text: str) -> None:
    save_weights(nano, tmp_path / "w.safetensors", {"amg_thresholds": text})
    with pytest.raises(CheckpointError, match="suggests thresholds for amg in a way this version does not know"):
        _ = open_checkpoint(tmp_path / "w.safetensors").amg_thresholds
