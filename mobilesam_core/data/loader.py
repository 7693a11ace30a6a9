"""Batches of a training set, prepared by worker processes ahead of the step."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from mobilesam_core.data.batch import Batch
from mobilesam_core.data.training_set import ORDER_STREAM, FramedSample, TrainingSet, collate
from mobilesam_core.errors import DataError
from mobilesam_core.machine import available_cores


def default_workers() -> int:
    """One process on two cores, up to eight on more: the model needs cores too."""
    return max(1, min(8, available_cores() - 2))


class TrainingLoader:
    """One epoch of batches at a time, in an order that is a function of ``(seed, epoch)`` alone.

    Of each batch, one of ``count`` processes gets every ``count``-th image from its ``rank`` on. One that a last, small
    batch leaves without gets the first image all the same, marked as :attr:`~mobilesam_core.data.batch.Batch.spare`.

    Iterating yields the batches from ``start_batch`` to the end of the epoch. :meth:`set_epoch` moves on
    and keeps the worker processes.

    Raises:
        DataError: while iterating, when a file cannot be used, with the message it had in the worker.
    """

    def __init__(
        self,
        dataset: TrainingSet,
        batch_size: int,
        workers: int | None,
        seed: int,
        epoch: int,
        start_batch: int,
        pin_memory: bool,
        rank: int,
        count: int,
    ) -> None:
        self._dataset = dataset
        self._order = _EpochOrder(len(dataset), batch_size, seed, rank, count)
        self._workers = default_workers() if workers is None else workers
        self._pin_memory = pin_memory
        self._loader: DataLoader[Any] | None = None
        self.set_epoch(epoch, start_batch)

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """The next iteration begins at batch ``start_batch`` of ``epoch``."""
        self._order.epoch, self._order.start_batch = epoch, start_batch

    @property
    def batches_per_epoch(self) -> int:
        """Batches of a whole epoch; the last one may be smaller."""
        return self._order.batches_per_epoch

    def __len__(self) -> int:
        """Batches that the next iteration yields."""
        return len(self._order)

    def __iter__(self) -> Iterator[Batch]:
        if self._loader is None:
            self._loader = self._start()
        for number, batch in enumerate(self._loader, self._order.start_batch):
            if isinstance(batch, DataError):
                # The traceback keeps this loader alive until the garbage collector comes, and of workers that it
                # finds running torch waits five seconds for each.
                self.close()
                raise batch
            yield batch if self._order.has_share(number) else batch._replace(spare=True)

    def close(self) -> None:
        """Stop the worker processes; the next iteration starts new ones."""
        self._loader = None

    def _start(self) -> DataLoader[Any]:
        return DataLoader(
            _ReturnErrors(self._dataset),
            batch_sampler=self._order,
            num_workers=self._workers,
            collate_fn=_collate_or_error,
            pin_memory=self._pin_memory,
            worker_init_fn=_start_worker,
            persistent_workers=self._workers > 0,
            # Its own, so that making an iterator draws nothing from torch's global random state.
            generator=torch.Generator(),
        )


def build_loader(
    dataset: TrainingSet,
    batch_size: int,
    workers: int | None,
    seed: int,
    epoch: int = 0,
    start_batch: int = 0,
    pin_memory: bool = False,
    rank: int = 0,
    count: int = 1,
) -> TrainingLoader:
    """A loader that begins at batch ``start_batch`` of ``epoch``, where an interrupted run left off.

    Args:
        batch_size: of all processes together.
        workers: processes; 0 prepares batches in this one, None is :func:`default_workers`.
        rank, count: which of how many processes that share the batches.
    """
    return TrainingLoader(dataset, batch_size, workers, seed, epoch, start_batch, pin_memory, rank, count)


def epoch_order(length: int, seed: int, epoch: int) -> list[int]:
    """The order in which an epoch takes the ``length`` images of a set."""
    stream = np.random.SeedSequence(seed, spawn_key=(ORDER_STREAM, epoch))
    order: list[int] = np.random.default_rng(stream).permutation(length).tolist()
    return order


class _EpochOrder(Sampler[list[tuple[int, int]]]):
    """Batches of ``(epoch, index)``: the epoch travels along, so lasting workers need not be told."""

    def __init__(self, length: int, batch_size: int, seed: int, rank: int, count: int) -> None:
        self._length = length
        self._batch_size = batch_size
        self._seed = seed
        self._rank, self._count = rank, count
        self.epoch = 0
        self.start_batch = 0

    @property
    def batches_per_epoch(self) -> int:
        return -(-self._length // self._batch_size)

    def __len__(self) -> int:
        return max(0, self.batches_per_epoch - self.start_batch)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = epoch_order(self._length, self._seed, self.epoch)
        for start in range(self.start_batch * self._batch_size, self._length, self._batch_size):
            batch = order[start : start + self._batch_size]
            yield [(self.epoch, index) for index in batch[self._rank :: self._count] or batch[:1]]

    def has_share(self, batch: int) -> bool:
        """Whether ``batch`` of an epoch has an image for this process."""
        return batch * self._batch_size + self._rank < self._length


class _ReturnErrors(Dataset[FramedSample | DataError]):
    """Hands a DataError back as a value: raised in a worker it would arrive wrapped in a traceback."""

    def __init__(self, dataset: TrainingSet) -> None:
        self._dataset = dataset

    def __getitem__(self, index: tuple[int, int]) -> FramedSample | DataError:
        try:
            return self._dataset[index]
        except DataError as error:
            return error


def _collate_or_error(samples: Sequence[FramedSample | DataError]) -> Batch | DataError:
    framed: list[FramedSample] = []
    for sample in samples:
        if isinstance(sample, DataError):
            return sample
        framed.append(sample)
    return collate(framed)


def _start_worker(worker: int) -> None:
    # Workers share the cores with the model; more threads in each only get in the way.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    # Ctrl-C reaches every process of the terminal, and some batch systems send SIGTERM to all of a job; the
    # parent decides what that means. A second SIGTERM is the parent's own way to end a worker.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
