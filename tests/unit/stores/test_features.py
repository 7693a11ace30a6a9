from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mobilesam_core.errors import DataError, OutputError, UsageError
from mobilesam_core.ops.layout import NECK
from mobilesam_core.stores.features import FeatureStore, FeatureWriter, require_space
from mobilesam_core.stores.producer import Producer

PRODUCER = Producer("vit_nano", "a" * 64, "b" * 64, 256, "32")


def _add(writer: FeatureWriter, number: int) -> np.ndarray:
    values = np.full((4, 3, 3), float(number))
    writer.add(f"image{number}", f"{number:064d}", (30, 20 + number), {NECK: (values, "CHW")})
    return values


def test_round_trip_of_several_levels_and_layouts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    neck, block = rng.normal(size=(4, 3, 2)), rng.normal(size=(3, 2, 8))
    with FeatureWriter(tmp_path, PRODUCER) as writer:
        writer.add("sub/one", "1" * 64, (48, 32), {NECK: (neck, "CHW"), "blocks.8": (block, "HWC")})
    store = FeatureStore(tmp_path)
    assert store.producer == PRODUCER and len(store) == 1 and "1" * 64 in store
    entry = store.entries["1" * 64]
    assert (entry.key, entry.original_size) == ("sub/one", (48, 32))
    assert entry.levels["blocks.8"].layout == "HWC" and entry.levels["blocks.8"].shape == (3, 2, 8)
    assert np.array_equal(store.read("1" * 64), neck.astype(np.float16))
    assert np.array_equal(store.read("1" * 64, "blocks.8"), block.astype(np.float16))
    with pytest.raises(KeyError):
        store.read("1" * 64, "blocks.9")


def test_files_stay_small_and_are_added_to(tmp_path: Path) -> None:
    with FeatureWriter(tmp_path, PRODUCER, file_bytes=2 * 72) as writer:
        for number in range(5):
            _add(writer, number)
        assert len(list(tmp_path.glob("*.safetensors"))) == 2  # the fifth is still in memory
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    with FeatureWriter(tmp_path, PRODUCER) as writer:
        assert not writer.missing(f"{4:064d}", [NECK]) and writer.missing(f"{5:064d}", [NECK]) == [NECK]
        expected = _add(writer, 5)
    store = FeatureStore(tmp_path)
    assert len(store) == 6 and np.array_equal(store.read(f"{5:064d}"), expected.astype(np.float16))
    assert store.entries[f"{3:064d}"].original_size == (30, 23)


def test_shares_write_beside_each_other(tmp_path: Path) -> None:
    with FeatureWriter(tmp_path, PRODUCER, "_1-of-2") as first, FeatureWriter(tmp_path, PRODUCER, "_2-of-2") as second:
        _add(first, 0)
        _add(second, 1)
    assert FeatureStore(tmp_path).entries.keys() == {f"{0:064d}", f"{1:064d}"}


def test_an_error_keeps_what_was_added_before(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), FeatureWriter(tmp_path, PRODUCER) as writer:
        _add(writer, 0)
        raise RuntimeError
    assert len(FeatureStore(tmp_path)) == 1


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    half = tmp_path / ".features-00000.abcd1234.part.safetensors"
    half.touch()
    with FeatureWriter(tmp_path, PRODUCER) as writer:
        _add(writer, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["features-00000.safetensors"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"encoder_sha256": "c" * 64}, "other weights"),
        ({"model": "vit_t"}, "vit_nano"),
        ({"image_size": 512}, "image_size 256"),
        ({"preprocessing_sha256": "c" * 64}, "preprocessing"),
        ({"precision": "bf16"}, "precision 32"),
    ],
)
def test_features_of_another_producer_are_not_mixed_in(tmp_path: Path, change: dict, said: str) -> None:
    with FeatureWriter(tmp_path, PRODUCER) as writer:
        _add(writer, 0)
    with pytest.raises(UsageError, match=said):
        FeatureWriter(tmp_path, replace(PRODUCER, **change))
    (tmp_path / "features-00000.safetensors").rename(tmp_path / "features-00007.safetensors")


def test_files_of_two_producers_are_refused(tmp_path: Path) -> None:
    for number, producer in enumerate((PRODUCER, replace(PRODUCER, encoder_sha256="c" * 64))):
        with FeatureWriter(tmp_path / str(number), producer, f"_{number}") as writer:
            _add(writer, number)
    (tmp_path / "1/features_1-00000.safetensors").rename(tmp_path / "0/features_1-00000.safetensors")
    with pytest.raises(DataError, match="different encoders"):
        FeatureStore(tmp_path / "0")


def test_levels_may_come_one_after_another(tmp_path: Path) -> None:
    neck, block, other = np.ones((4, 2, 2)), np.full((2, 2, 8), 2.0), np.zeros((4, 2, 2))
    with FeatureWriter(tmp_path, PRODUCER) as writer:
        writer.add("one", "1" * 64, (48, 32), {NECK: (neck, "CHW")})
    with FeatureWriter(tmp_path, PRODUCER) as writer:
        assert writer.missing("1" * 64, [NECK, "blocks.8"]) == ["blocks.8"]
        writer.add("one", "1" * 64, (48, 32), {NECK: (other, "CHW"), "blocks.8": (block, "HWC")})
    store = FeatureStore(tmp_path)
    assert len(store) == 1 and set(store.entries["1" * 64].levels) == {NECK, "blocks.8"}
    assert np.array_equal(store.read("1" * 64), neck) and np.array_equal(store.read("1" * 64, "blocks.8"), block)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    with FeatureWriter(tmp_path, PRODUCER) as writer:
        _add(writer, 3)
    file = tmp_path / "features-00000.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match=r"features-00000.*has changed"):
        FeatureStore(tmp_path).read(f"{3:064d}")


@pytest.mark.parametrize("damage", ["cut", "empty", "foreign"])
def test_a_broken_file_is_named(tmp_path: Path, damage: str) -> None:
    with FeatureWriter(tmp_path, PRODUCER) as writer:
        _add(writer, 0)
    file = tmp_path / "features-00000.safetensors"
    data = {"cut": file.read_bytes()[:-9], "empty": b"", "foreign": b"no tensors at all"}[damage]
    file.write_bytes(data)
    with pytest.raises(DataError, match="features-00000"):
        FeatureStore(tmp_path)


def test_a_folder_without_features_and_one_that_is_a_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no stored features"):
        FeatureStore(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file"):
        FeatureWriter(tmp_path / "file", PRODUCER)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_values_that_float16_cannot_hold_are_refused(tmp_path: Path, value: float) -> None:
    with FeatureWriter(tmp_path, PRODUCER) as writer:
        _add(writer, 0)
        with pytest.raises(DataError, match="image9"):
            writer.add("image9", "9" * 64, (1, 1), {NECK: (np.full((1, 1, 1), value), "CHW")})
        assert writer.missing("9" * 64, [NECK])
    assert len(FeatureStore(tmp_path)) == 1


def test_space_is_asked_for_before_it_is_needed(tmp_path: Path) -> None:
    require_space(tmp_path, 1)
    with pytest.raises(OutputError, match="GiB left"):
        require_space(tmp_path, 2**60)
