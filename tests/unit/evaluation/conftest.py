from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mobilesam_core.config.data import ShapesConfig
from mobilesam_core.config.model import ModelConfig
from mobilesam_core.data.build import build_source
from mobilesam_core.data.sample import Sample, SampleSource
from mobilesam_core.models.mask_decoder import DecoderOutput
from mobilesam_core.models.registry import build_sam
from mobilesam_core.models.sam import Sam
from mobilesam_core.ops.masks import mask_coverage
from mobilesam_core.ops.resize import pad_to_frame
from mobilesam_core.prompts.tensors import PromptTensors
from mobilesam_core.prompts.types import BOX_TOP_LEFT, POSITIVE

Change = Callable[[np.ndarray, int], np.ndarray]


class TruthfulModel(nn.Module):
    """Stands in for a model: it knows the objects of ``samples`` and answers with the one that is meant.

    The images must be as large as its frame. ``changes`` turn the true masks ``(n, H, W)``, given the number of
    tokens of the prompts, into those of each of the four outputs; ``scores`` are the outputs' predicted IoU.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        scores: Sequence[float] = (0.9, 0.5, 0.8, 0.6),
        changes: Sequence[Change] = (lambda mask, tokens: mask,) * 4,
    ) -> None:
        super().__init__()
        self.image_size = max(samples[0].image.shape[:2])
        self.device = torch.device("cpu")
        self.mask_threshold = 0.0
        self.batch_norm = nn.BatchNorm2d(3)
        self.frozen = nn.BatchNorm2d(3)
        self.encoded = 0
        self.decoded: list[int] = []
        self._masks = [sample.masks.dense(range(len(sample.masks))) for sample in samples]
        self._images = [self._mean(self.preprocess(torch.from_numpy(_chw(s.image))[None])) for s in samples]
        self._scores, self._changes = scores, changes

    @staticmethod
    def _mean(image: Tensor) -> float:
        return image.double().mean().item()

    def preprocess(self, images: Tensor, sizes: Tensor | None = None) -> Tensor:
        return pad_to_frame(images.float(), self.image_size)

    def encode(self, images: Tensor) -> Tensor:
        assert not any(module.training for module in self.modules())
        assert torch.is_inference_mode_enabled()
        self.encoded += 1
        return torch.tensor([[[[self._images.index(self._mean(images))]]]])

    def decode(self, image_embeddings: Tensor, image_index: Tensor, prompts: PromptTensors) -> DecoderOutput:
        masks = self._masks[int(image_embeddings.item())]
        self.decoded.append(len(prompts))
        meant = np.stack([masks[self._meant(masks, prompts, i)] for i in range(len(prompts))])
        tokens = prompts.labels.shape[1]
        outputs = [
            mask_coverage(change(meant, tokens), self.image_size, self.image_size // 4) * 20 - 10
            for change in self._changes
        ]
        logits = torch.from_numpy(np.stack(outputs, axis=1))
        return DecoderOutput(
            logits, torch.tensor(self._scores).repeat(len(prompts), 1), torch.zeros(len(prompts), 5, 1)
        )

    @staticmethod
    def _meant(masks: np.ndarray, prompts: PromptTensors, i: int) -> int:
        points, labels = prompts.points[i].numpy(), prompts.labels[i]
        boxed = (labels == BOX_TOP_LEFT).nonzero()
        if len(boxed):
            x1, y1, x2, y2 = points[int(boxed[0]) :][:2].ravel()
            frame = np.zeros(masks.shape[1:], bool)
            frame[round(y1) : round(y2), round(x1) : round(x2)] = True
            return int(((masks & frame).sum((1, 2)) / (masks | frame).sum((1, 2))).argmax())
        x, y = points[labels == POSITIVE][0].round().astype(int)
        return int(np.flatnonzero(masks[:, y, x])[0])


def _chw(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image.transpose(2, 0, 1))


@pytest.fixture(scope="session")
def shapes() -> SampleSource:
    return build_source(ShapesConfig(format="shapes", count=3, size=256, max_shapes=5, seed=1), Path())


@pytest.fixture
def nano() -> Sam:
    torch.manual_seed(0)
    return build_sam(ModelConfig(name="vit_nano", checkpoint=None, image_size=128))


@pytest.fixture
def truthful() -> type[TruthfulModel]:
    return TruthfulModel
