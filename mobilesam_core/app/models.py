"""The models that a page offers; each is opened when it is first wanted, and then stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock

from mobilesam_core.amg.workflow import settle_thresholds
from mobilesam_core.config.amg import AmgConfig
from mobilesam_core.errors import UsageError
from mobilesam_core.progress import NullReporter
from mobilesam_core.runtime.protocol import Runtime


class Models:
    """Models by the names that a user chooses from, the first one being there from the start.

    Raises:
        MobileSamError: the first cannot be opened.
    """

    def __init__(self, openers: Mapping[str, Callable[[], Runtime]]) -> None:
        self._openers = dict(openers)
        self._opened: dict[str, Runtime] = {}
        self._lock = Lock()
        self.first = self.get(self.names[0])

    @property
    def names(self) -> list[str]:
        return list(self._openers)

    def get(self, name: str) -> Runtime:
        """The model of this name.

        Raises:
            UsageError: there is none.
            MobileSamError: it cannot be opened; a later call tries again.
        """
        if name not in self._openers:
            raise UsageError(f"There is no model {name!r} here.", f"Choose from {', '.join(self.names)}.")
        with self._lock:
            if name not in self._opened:
                self._opened[name] = self._openers[name]()
            return self._opened[name]

    def name_of(self, runtime: Runtime) -> str:
        """What the user knows a model by that :meth:`get` gave."""
        with self._lock:
            return next(name for name, opened in self._opened.items() if opened is runtime)


def everything_settings(runtime: Runtime) -> AmgConfig:
    """Where the settings of everything mode begin; for the small model, whose scores are lower, with lower thresholds
    than the default, where its weights suggest none."""
    settings = AmgConfig()
    if runtime.model == "vit_nano" and runtime.amg_thresholds is None:
        settings = AmgConfig(pred_iou_thresh=0.7, stability_score_thresh=0.8)
    return settle_thresholds(settings, runtime, NullReporter())
