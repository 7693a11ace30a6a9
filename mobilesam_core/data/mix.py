"""Several sets as one, mixed by weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mobilesam_core.data.sample import Sample, SampleSource
from mobilesam_core.errors import ConfigError

_MOST = 10**8  # samples, whose index takes some gigabytes


class MixSource:
    """``count`` samples of several sources, of each a share in proportion to its weight.

    The k-th sample (from 0) of a source of weight w is due at ``(k + 0.5) / w``, and the mix is all of them in the
    order in which they are due. A source whose share is larger than itself begins again at its first sample; of
    one whose share is smaller, as many samples are taken, evenly spread. All this is a function of the weights,
    the lengths and ``count``.

    Args:
        count: None is the fewest with which each sample of each source occurs.

    Raises:
        ConfigError: that would be more samples than an index of them has room for.
    """

    def __init__(self, sources: Sequence[SampleSource], weights: Sequence[float], count: int | None = None) -> None:
        self._sources = list(sources)
        lengths = np.array([len(source) for source in sources])
        shares = np.array(weights, float)
        if count is not None and count > _MOST:
            raise ConfigError(f"`count` of the mix is more than {_MOST} images.", "Choose a smaller one.")
        with np.errstate(over="ignore", invalid="ignore"):  # of weights far apart
            if count is None:
                last = ((lengths - 0.5) / shares).max()  # when the last sample of the source that takes longest is due
                wanted = np.maximum(lengths, np.floor(last * shares + 0.5))
            else:
                wanted = np.ceil(count * shares / shares.sum()) + 1  # enough to cut from
        if not wanted.sum() <= _MOST + len(wanted):  # or no number
            raise ConfigError(
                f"With these values of `weight` an epoch of the mix would have more than {_MOST} images.",
                "Choose weights that are less far apart, or set `count`.",
            )
        taken = wanted.astype(int)
        due = np.concatenate([(np.arange(n) + 0.5) / w for n, w in zip(taken, shares, strict=True)])
        of = np.repeat(np.arange(len(taken)), taken)
        self._set = of[np.lexsort((of, due))][:count]
        self._place = np.empty(len(self._set), np.int64)
        for number, length in enumerate(lengths):
            mine = np.flatnonzero(self._set == number)
            turns = np.arange(len(mine))
            self._place[mine] = turns % length if len(mine) >= length else turns * length // len(mine)

    def __len__(self) -> int:
        return len(self._set)

    def describe(self, index: int) -> str:
        return self._sources[self._set[index]].describe(int(self._place[index]))

    def __getitem__(self, index: int) -> Sample:
        number = int(self._set[index])
        sample = self._sources[number][int(self._place[index])]
        return replace(sample, key=f"{number}/{sample.key}")

    def first_indices(self) -> np.ndarray:
        """``(len,)`` the index at which the sample of each index occurs for the first time."""
        _, first, which = np.unique(
            np.stack([self._set, self._place]), axis=1, return_index=True, return_inverse=True
        )  # fmt: skip
        return first[which.ravel()]
