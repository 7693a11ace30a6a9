"""Running a model with torch, on its device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mobilesam_core.checkpoints.loading import open_checkpoint
from mobilesam_core.config.amg import AmgThresholds
from mobilesam_core.config.precision import Precision
from mobilesam_core.models.factored_decoder import FactoredAnswers, FactoredDecoder
from mobilesam_core.models.sam import Sam
from mobilesam_core.ops.frame import Frame, resize_image
from mobilesam_core.ops.resize import restore_masks, to_tensor
from mobilesam_core.ops.upscale import MaskUpscaler, Measured, interpolation
from mobilesam_core.progress import Reporter
from mobilesam_core.prompts.tensors import PromptTensors, prompt_tensors
from mobilesam_core.prompts.types import PAD, POSITIVE, Prompt
from mobilesam_core.runtime.protocol import Decoded, EncodedImage, points_at_once
from mobilesam_core.stores.producer import Producer

# Bytes that the objects decoded at one time may take, about.
_CPU_BUDGET, _ACCELERATOR_BUDGET = 2**29, 2**32
# Bytes of the image tokens of all points that are asked about together, and of an accelerator's full-resolution logits.
_CPU_CHUNK, _ACCELERATOR_CHUNK, _ACCELERATOR_LOGITS = 2**25, 2**28, 2**30


def open_torch(
    checkpoint: str | Path,
    device: torch.device,
    *,
    model_name: str | None = None,
    image_size: int | None = None,
    precision: Precision = "32",
    reporter: Reporter | None = None,
) -> TorchRuntime:
    """A checkpoint's model on ``device``; other arguments and errors are those of
    :func:`~mobilesam_core.checkpoints.loading.open_checkpoint`."""
    opened = open_checkpoint(checkpoint, model_name, reporter, image_size)
    opened.model.to(device).to(memory_format=torch.channels_last)
    return TorchRuntime(opened.model, opened.path, opened.sha256, precision, opened.amg_thresholds)


class TorchRuntime:
    """A :class:`~mobilesam_core.runtime.protocol.Runtime` of a torch model.

    Args:
        model: on the device to use. Outside :meth:`running` its modules keep the mode they are in.
        source, sha256: the file of its weights.
        precision: that its weights, float32 so far, are brought to.
        amg_thresholds: that the file suggests.
    """

    def __init__(
        self,
        model: Sam,
        source: Path = Path(),
        sha256: str = "",
        precision: Precision = "32",
        amg_thresholds: AmgThresholds | None = None,
    ) -> None:
        self.torch_model = model
        self.source, self.sha256, self.precision = source, sha256, precision
        self.amg_thresholds = amg_thresholds
        self._producer: Producer | None = None
        if precision != "32":
            self._producer = Producer.of(model, precision)  # by the weights in float32
            model.in_precision(torch.bfloat16)

    @property
    def model(self) -> str:
        return self.torch_model.config.name

    @property
    def image_size(self) -> int:
        return self.torch_model.image_size

    @property
    def channels(self) -> int:
        return len(self.torch_model.pixel_mean)

    @property
    def embed_dim(self) -> int:
        return self.torch_model.prompt_encoder.no_mask_embed.embedding_dim

    @property
    def mask_threshold(self) -> float:
        return self.torch_model.mask_threshold

    @property
    def memory(self) -> int:
        return _CPU_BUDGET if self._device.type == "cpu" else _ACCELERATOR_BUDGET

    @property
    def producer(self) -> Producer:
        if self._producer is None:
            self._producer = Producer.of(self.torch_model, self.precision)
        return self._producer

    @property
    def _device(self) -> torch.device:
        return self.torch_model.device

    @contextmanager
    def running(self) -> Iterator[None]:
        """Evaluation mode, without gradients; afterwards each module's own mode again, since frozen parts differ from
        the others."""
        modes = [(module, module.training) for module in self.torch_model.modules()]
        self.torch_model.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            # Parents come first, so that their children have the last word.
            for module, mode in modes:
                module.train(mode)

    def encode(self, image: np.ndarray) -> EncodedImage:
        frame = Frame.of(image.shape[0], image.shape[1], self.image_size)
        pixels = to_tensor(resize_image(image, frame)).to(self._device)
        return EncodedImage(self.torch_model.encode(self.torch_model.preprocess(pixels[None])), frame)

    def restore(self, embedding: np.ndarray) -> Tensor:
        weight = self.torch_model.prompt_encoder.no_mask_embed.weight
        return torch.from_numpy(embedding)[None].to(weight.device, weight.dtype)

    def store(self, embedding: Tensor) -> np.ndarray:
        return embedding[0].to("cpu", torch.float16).numpy()

    def decode(self, image: EncodedImage, prompts: Sequence[Prompt], previous: Tensor | None = None) -> Decoded:
        tensors = prompt_tensors([prompt.scaled(*image.frame.scale_xy) for prompt in prompts]).to(self._device)
        if previous is not None:
            has_mask = torch.ones(len(prompts), dtype=torch.bool, device=self._device)
            tensors = PromptTensors(tensors.points, tensors.labels, previous[:, None], has_mask)
        image_index = torch.zeros(len(prompts), dtype=torch.int64, device=self._device)
        decoded = self.torch_model.decode(image.embedding, image_index, tensors)
        # float32 even under autocast, so that answers of later clicks can be written into those of earlier ones.
        return Decoded(decoded.low_res_logits.float(), decoded.iou_predictions.float().cpu().numpy())

    def masks(self, logits: Tensor, frame: Frame, threshold: float) -> np.ndarray:
        # One of the K at a time, since the logits in between are many times as large as either end; in float32, since
        # lower precision would move edges.
        planes = [restore_masks(plane.float(), frame) > threshold for plane in logits.split(1, dim=1)]
        return torch.cat(planes, dim=1).cpu().numpy()

    def search(self, image: EncodedImage) -> TorchSearch:
        return TorchSearch(self.torch_model, image)


class TorchSearch:
    """A :class:`~mobilesam_core.runtime.protocol.PointSearch` that computes what an image's points share once."""

    def __init__(self, model: Sam, image: EncodedImage) -> None:
        self._decoder = FactoredDecoder(model, image.embedding)
        self._device, self._frame = image.embedding.device, image.frame
        self._grid = 4 * image.embedding.shape[-1]
        on_cpu = self._device.type == "cpu"
        self.points_at_once = points_at_once(image.embedding, _CPU_CHUNK if on_cpu else _ACCELERATOR_CHUNK)
        self._upscaler = _upscaler(image.frame, self._grid) if on_cpu else None

    def ask(self, points: np.ndarray) -> tuple[FactoredAnswers, np.ndarray]:
        placed = torch.zeros(len(points), 2, 2, device=self._device)
        placed[:, 0] = torch.from_numpy(points).to(self._device, torch.float32)
        labels = torch.tensor([POSITIVE, PAD], device=self._device).expand(len(points), 2)
        answers = self._decoder(PromptTensors(placed, labels))
        return answers, answers.iou_predictions[:, 1:].float().cpu().numpy()

    def draw(self, answers: FactoredAnswers, points: np.ndarray, outputs: np.ndarray) -> Tensor:
        rows, chosen = (torch.from_numpy(each).to(self._device) for each in (points, outputs + 1))
        return self._decoder.draw_masks(answers, rows, chosen).float()

    def measure(self, logits: Tensor, threshold: float, offset: float) -> Measured:
        if self._upscaler is not None:
            return self._upscaler.measure(logits, threshold, offset)
        rows, columns = self._maps
        size = max(1, _ACCELERATOR_LOGITS // (4 * len(rows) * len(columns)))
        counts = [count_all(rows @ part @ columns.mT, threshold, offset) for part in logits.split(size)]
        return Measured.of(torch.cat(counts).cpu().numpy())

    def mask(self, logits: Tensor, threshold: float) -> np.ndarray:
        if self._upscaler is not None:
            return self._upscaler.mask(logits, threshold)
        rows, columns = self._maps
        return (rows @ logits @ columns.mT > threshold).cpu().numpy()

    @cached_property
    def _maps(self) -> tuple[Tensor, Tensor]:
        rows, columns = (torch.from_numpy(each).to(self._device) for each in interpolation(self._frame, self._grid))
        return rows, columns


def count_all(logits: Tensor, threshold: float, offset: float) -> Tensor:
    """The ``(M, 7)`` int64 that :meth:`Measured.of` takes, of ``(M, H, W)`` full-resolution logits at once."""
    inner, outer = ((logits > level).sum(dim=(1, 2)) for level in (threshold + offset, threshold - offset))
    masks = logits > threshold
    (x1, x2), (y1, y2) = _extent(masks.any(dim=1)), _extent(masks.any(dim=2))
    return torch.stack([inner, masks.sum(dim=(1, 2)), outer, x1, y1, x2, y2], dim=1)


def _extent(marked: Tensor) -> tuple[Tensor, Tensor]:
    """First and last true of ``(M, L)`` bool; zeros where there is none."""
    numbers = marked.to(torch.uint8)
    first, from_end = numbers.argmax(dim=1), numbers.flip(1).argmax(dim=1)
    return first, (marked.shape[1] - 1 - from_end) * marked.any(dim=1)


@lru_cache(maxsize=4)
def _upscaler(frame: Frame, grid: int) -> MaskUpscaler:
    return MaskUpscaler(frame, grid, torch.from_numpy)
