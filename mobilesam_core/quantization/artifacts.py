"""What quantising makes, before it has a name."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import onnx

from mobilesam_core.export.metadata import describe
from mobilesam_core.files import atomic_path
from mobilesam_core.runtime.exported import ExportedModel
from mobilesam_core.runtime.facts import ModelFacts
from mobilesam_core.runtime.onnx_session import OnnxModel


class Artifact(Protocol):
    """A model that can be measured, and written if it deserves it."""

    @property
    def bytes(self) -> int: ...

    def describe(self, facts: ModelFacts) -> None:
        """Say in it what it is."""

    def opened(self) -> AbstractContextManager[ExportedModel]:
        """Ready to run."""

    def save(self, path: Path) -> None:
        """Write it so that no reader sees half of it; an :class:`OutputError` says why it cannot be."""

    def remove(self, path: Path) -> None:
        """Remove what :meth:`save` writes, if it is there."""


@dataclass(frozen=True)
class OnnxArtifact:
    """An ONNX graph."""

    graph: onnx.ModelProto

    @property
    def bytes(self) -> int:
        return len(self.graph.SerializeToString())

    def describe(self, facts: ModelFacts) -> None:
        describe(self.graph, facts)

    @contextmanager
    def opened(self) -> Iterator[OnnxModel]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(self.graph, path)
            yield OnnxModel(path)

    def save(self, path: Path) -> None:
        with atomic_path(path) as temporary:
            onnx.save(self.graph, temporary)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
