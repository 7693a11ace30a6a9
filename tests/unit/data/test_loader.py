from __future__ import annotations

import multiprocessing
import pickle
import signal

import numpy as np
import pytest
import torch

from mobilesam_core.config.data import AugmentConfig, DataConfig, ShapesConfig
from mobilesam_core.config.prompts import PromptConfig
from mobilesam_core.data.batch import Batch
from mobilesam_core.data.loader import build_loader, default_workers
from mobilesam_core.data.sample import Sample, SampleSource
from mobilesam_core.data.shapes import ShapesSource
from mobilesam_core.data.training_set import TrainingSet
from mobilesam_core.errors import DataError

SHAPES = ShapesConfig(format="shapes", count=11, size=48, max_shapes=4)


def training_set(source: SampleSource | None = None) -> TrainingSet:
    augment = AugmentConfig(horizontal_flip=0.5, brightness=0.3, scale=(0.8, 1.2))
    data = DataConfig(train=SHAPES, augment=augment)
    return TrainingSet(source or ShapesSource(SHAPES), data, PromptConfig(), 64, 16, seed=3)


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a.images, b.images)
        and torch.equal(a.targets, b.targets)
        and torch.equal(a.prompts.points, b.prompts.points)
        and list(a.sources) == list(b.sources)
        for a, b in zip(first, second, strict=True)
    )


def test_workers_change_nothing_and_epochs_differ() -> None:
    alone = build_loader(training_set(), batch_size=4, workers=0, seed=3)
    several = build_loader(training_set(), batch_size=4, workers=2, seed=3)
    epochs = []
    for epoch in range(2):
        alone.set_epoch(epoch)
        several.set_epoch(epoch)
        epochs.append(list(alone))
        assert same(epochs[-1], list(several))
    sources = [[name for batch in epoch for name in batch.sources] for epoch in epochs]
    assert sources[0] != sources[1] and set(sources[0]) == set(sources[1]) and len(set(sources[0])) == 11
    assert [len(batch.images) for batch in epochs[0]] == [4, 4, 3]  # the last one is not dropped


@pytest.mark.parametrize("workers", [0, 2])
def test_an_interrupted_epoch_goes_on_at_its_batch(workers: int) -> None:
    whole = list(build_loader(training_set(), 3, 0, seed=3, epoch=5))
    rest = build_loader(training_set(), 3, workers, seed=3, epoch=5, start_batch=2)
    assert len(rest) == 2 and rest.batches_per_epoch == 4
    assert same(list(rest), whole[2:])
    # Leaving an epoch in the middle must not leak its batches into the next.
    rest.set_epoch(5)
    for _ in rest:
        break
    rest.set_epoch(6, start_batch=1)
    assert same(list(rest), list(build_loader(training_set(), 3, 0, seed=3, epoch=6))[1:])
    rest.set_epoch(6, start_batch=4)
    assert list(rest) == []


def test_the_global_random_state_is_left_alone() -> None:
    state = torch.get_rng_state()
    for workers in (0, 1):
        list(build_loader(training_set(), 4, workers, seed=3))
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_error_arrives_as_it_was_raised_and_stops_the_workers(memory_source, workers: int) -> None:
    good = ShapesSource(SHAPES)
    source = memory_source([good[0], good[1], DataError("x.png is empty.", "Replace it."), good[3]])
    loader = build_loader(training_set(source), 2, workers, seed=0)
    others = multiprocessing.active_children()
    with pytest.raises(DataError) as caught:
        list(loader)
    assert set(multiprocessing.active_children()) <= set(others)
    assert caught.value.message == "x.png is empty." and caught.value.remedy == "Replace it."
    assert type(caught.value) is DataError


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(DataError("what", "remedy")))
    assert (error.message, error.remedy, str(error)) == ("what", "remedy", "what remedy")


class _TellSettings:
    """A source whose only news is how its process is set up."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        raise DataError(f"ignored={ignored} threads={torch.get_num_threads()}")

    def describe(self, index: int) -> str:
        return ""


@pytest.mark.usefixtures("foreground")
def test_workers_ignore_ctrl_c_and_use_one_thread() -> None:
    with pytest.raises(DataError, match="ignored=True threads=1"):
        list(build_loader(training_set(_TellSettings()), 1, 1, seed=0))
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 1), (4, 2), (8, 6), (64, 8)])
def test_default_workers(monkeypatch: pytest.MonkeyPatch, cores: int, workers: int) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert default_workers() == workers


def test_the_order_is_unrelated_to_the_items_randomness() -> None:
    # numpy pads short seeds with zeros, so seeds that share a prefix can be one and the same stream.
    source = [ShapesSource(SHAPES)[index] for index in range(11)]
    first = next(iter(build_loader(training_set(), 11, 0, seed=3)))
    assert sorted(first.sources) == sorted(sample.source for sample in source)
    states = {
        np.random.SeedSequence(3, spawn_key=key).generate_state(4).tobytes()
        for key in [(0, 0, 0), (1, 0), (0, 0, 1), (1, 1)]
    }
    assert len(states) == 4
