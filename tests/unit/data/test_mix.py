from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilesam_core.config.data import DataConfig
from mobilesam_core.config.loading import load_train_config
from mobilesam_core.config.prompts import PromptConfig
from mobilesam_core.data.build import build_source
from mobilesam_core.data.mix import MixSource
from mobilesam_core.data.sample import Sample
from mobilesam_core.data.training_set import TrainingSet
from mobilesam_core.data.verify import find_bad_files
from mobilesam_core.errors import ConfigError, DataError
from mobilesam_core.ops.masks import DenseMasks
from mobilesam_core.progress import NullReporter


class Named:
    """``length`` samples whose source says which they are."""

    def __init__(self, name: str, length: int) -> None:
        self._names = [f"{name}{place}" for place in range(length)]

    def __len__(self) -> int:
        return len(self._names)

    def describe(self, index: int) -> str:
        return self._names[index]

    def __getitem__(self, index: int) -> Sample:
        pixels = np.zeros((4, 5, 3), np.uint8)
        return Sample("key", pixels, DenseMasks(np.ones((1, 4, 5), bool)), self._names[index])


def order(weights: list[float], lengths: list[int], count: int | None = None) -> list[str]:
    sources = [Named(name, length) for name, length in zip("abc", lengths, strict=False)]
    mix = MixSource(sources, weights, count)
    assert [mix[i].source for i in range(len(mix))] == [mix.describe(i) for i in range(len(mix))]
    return [mix.describe(i) for i in range(len(mix))]


def test_sets_take_turns_by_weight_and_begin_again() -> None:
    assert order([2, 1], [4, 2]) == ["a0", "b0", "a1", "a2", "b1", "a3"]
    assert order([1, 1], [4, 1]) == ["a0", "b0", "a1", "b0", "a2", "b0", "a3", "b0"]


def test_without_a_count_every_sample_occurs_and_none_too_many() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        lengths = rng.integers(1, 60, 3).tolist()
        weights = rng.uniform(0.1, 5, 3).tolist()
        found = order(weights, lengths)
        assert set(found) == {f"{name}{place}" for name, n in zip("abc", lengths, strict=True) for place in range(n)}
        assert set(found[:-1]) != set(found)


@pytest.mark.parametrize("weights", [[1, 1e-12], [1, 1e-320], [1, float("inf")]])
def test_an_epoch_beyond_bounds_is_refused(weights: list[float]) -> None:
    with pytest.raises(ConfigError, match="`weight`"):
        order(weights, [4, 2])
    with pytest.raises(ConfigError, match="`count`"):
        order([1, 1], [4, 2], 10**400)


def test_shares_hold_from_the_beginning_on() -> None:
    weights = np.array([5, 2, 1])
    letters = np.array([name[0] for name in order(weights.tolist(), [7, 100, 3], 400)])
    assert len(letters) == 400
    for until in range(1, 401):
        counts = [(letters[:until] == name).sum() for name in "abc"]
        assert np.abs(counts - until * weights / 8).max() < 2


def test_with_fewer_than_a_set_has_they_are_spread_over_it() -> None:
    assert order([1, 1], [100, 2], 8) == ["a0", "b0", "a25", "b1", "a50", "b0", "a75", "b1"]


def test_keys_tell_sets_apart() -> None:
    mix = MixSource([Named("a", 1), Named("b", 1)], [1, 1])
    assert [mix[0].key, mix[1].key] == ["0/key", "1/key"]


def test_each_file_is_verified_once_and_its_repetitions_are_bad_too(memory_source) -> None:
    read = []

    class Counting(Named):
        def __getitem__(self, index: int) -> Sample:
            read.append(self.describe(index))
            return super().__getitem__(index)

    mix = MixSource([Counting("a", 4), memory_source([DataError("broken")])], [1, 1])
    bad = find_bad_files(mix, NullReporter(), "")
    assert sorted(read) == ["a0", "a1", "a2", "a3"]
    assert [each.index for each in bad] == [1, 3, 5, 7] and {each.problem for each in bad} == {"broken"}


def test_from_a_config_to_training(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    mask = np.zeros((64, 64), np.uint8)
    mask[10:40, 20:50] = 1
    for folder in ("images", "masks"):
        Image.fromarray(mask).save(tmp_path / folder / "a.png")
    drawn = {"format": "shapes", "count": 3, "size": 64}
    files = {"format": "folder", "images": "images", "masks": "masks", "mask_mode": "instances"}
    config = {"format": "mix", "sets": [{"weight": 3, "set": drawn}, {"set": files}]}
    data = DataConfig.model_validate({"train": config})
    source = build_source(data.train, tmp_path)
    assert [source.describe(i).startswith("shapes") for i in range(len(source))] == [True, True, False, True]
    items = TrainingSet(source, data, PromptConfig(), 64, 16, seed=0)
    assert items[0, 2].source.endswith("a.png") and items[1, 0].targets.shape[1:] == (16, 16)


def test_sets_that_cannot_be_used_are_all_named_or_left_out(tmp_path: Path) -> None:
    missing = [{"set": {"format": "sa1b", "images": name}} for name in ("here", "there")]
    drawn = {"set": {"format": "shapes", "count": 3, "size": 64}}
    config = DataConfig.model_validate({"train": {"format": "mix", "sets": [*missing, drawn]}}).train
    with pytest.raises(DataError, match=r"2 faults:\n.*here does not exist\.\n.*there does not"):
        build_source(config, tmp_path)
    faults: list[DataError] = []
    assert len(build_source(config, tmp_path, on_fault=faults.append)) == 3 and len(faults) == 2
    config = DataConfig.model_validate({"train": {"format": "mix", "sets": missing}}).train
    with pytest.raises(DataError, match="2 faults"):
        build_source(config, tmp_path, on_fault=faults.append)
    assert len(faults) == 2


@pytest.mark.parametrize(
    ("sets", "problem"),
    [
        (
            "[{weight: 0, set: {format: shapes}}]",
            r"data\.train\.sets\.0\.weight: input should be greater than 0, not 0",
        ),
        ("[]", r"data\.train\.sets: .*at least 1 item"),
        ("[{set: {format: shapes, cuont: 1}}]", r"data\.train\.sets\.0\.set\.cuont: unknown key; did you mean 'count'"),
        ("[{set: {format: shapes}}, {wieght: 1}]", r"sets\.1\.set: required[\s\S]*sets\.1\.wieght: .*'weight'"),
        ("[{set: {format: images, images: a}}]", r"data\.train\.sets\.0\.set: .*'folder'"),
    ],
)
def test_bad_configs(tmp_path: Path, sets: str, problem: str) -> None:
    (tmp_path / "c.yaml").write_text(f"data: {{train: {{format: mix, sets: {sets}}}}}\n")
    with pytest.raises(ConfigError, match=problem):
        load_train_config(str(tmp_path / "c.yaml"))
