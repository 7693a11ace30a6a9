from __future__ import annotations

import pytest
import torch

from mobilesam_core.config.model import ModelConfig
from mobilesam_core.models.registry import build_sam
from mobilesam_core.models.sam import Sam
from mobilesam_core.progress import NullReporter


class RecordingReporter(NullReporter):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def info(self, message: str) -> None:
        self.messages.append(message)

    def warning(self, message: str) -> None:
        self.messages.append(message)


@pytest.fixture
def reporter() -> RecordingReporter:
    return RecordingReporter()


@pytest.fixture
def nano() -> Sam:
    torch.manual_seed(0)
    return build_sam(ModelConfig(name="vit_nano", checkpoint=None, image_size=128)).eval()
