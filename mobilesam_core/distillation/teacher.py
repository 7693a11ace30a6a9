"""The model that others learn from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mobilesam_core.checkpoints.loading import resolve_checkpoint
from mobilesam_core.config.distill import TeacherConfig
from mobilesam_core.config.precision import Precision
from mobilesam_core.data.batch import Batch
from mobilesam_core.embedding.workflow import Features
from mobilesam_core.errors import UsageError
from mobilesam_core.models.features import FeatureHookManager, level_shapes
from mobilesam_core.models.mask_decoder import DecoderOutput
from mobilesam_core.models.sam import Sam
from mobilesam_core.ops.layout import channels_first
from mobilesam_core.progress import Reporter
from mobilesam_core.prompts.tensors import PromptTensors
from mobilesam_core.runtime.torch_runtime import TorchRuntime, open_torch


def open_teacher(
    checkpoint: str,
    reporter: Reporter,
    *,
    model_name: str | None = None,
    image_size: int | None = None,
    device: torch.device,
    precision: Precision = "32",
) -> TorchRuntime:
    """Load a teacher, strictly, onto its device.

    Raises:
        CheckpointError: the weights cannot be read, or fit no model.
        UsageError: they are larger than the memory that is free.
    """
    path = resolve_checkpoint(checkpoint, model_name or "vit_t", reporter)
    _require_memory(path)
    return open_torch(
        path, device, model_name=model_name, image_size=image_size, precision=precision, reporter=reporter
    )


class Teacher:
    """A teacher at work beside its student: what it makes of a batch, never with a gradient.

    It sees the batch as the student does, scaled to its own frame where that is another.

    Args:
        model: in evaluation mode, on the student's device.
        sha256: of the file of its weights.

    config: what it is to teach. With ``config.store`` features come with the batch, and the encoder does not run.
    """

    def __init__(self, config: TeacherConfig, model: Sam, sha256: str) -> None:
        self.config, self.model, self.sha256 = config, model, sha256
        self.name = config.name

    @torch.no_grad()
    def features(self, batch: Batch, levels: Sequence[str]) -> dict[str, Tensor]:
        """``(B, C, h, w)`` of each of the ``levels``."""
        if self.config.store is not None:
            return {level: batch.features[feature_name(self.name, level)] for level in levels}
        if not levels:
            return {}
        with FeatureHookManager(self.model.image_encoder, levels) as features:
            self.model.encode(self._frames(batch))
            return {level: channels_first(features[level], layout) for level, layout in features.layouts.items()}

    @torch.no_grad()
    def decode(self, embeddings: Tensor, batch: Batch, prompts: PromptTensors) -> DecoderOutput:
        """Its answers to N prompts in the student's frame, from the ``neck`` of :meth:`features`."""
        return self.model.decode(embeddings, batch.image_index, self._placed(prompts, batch))

    @torch.no_grad()
    def prompt_embeddings(self, batch: Batch) -> Tensor:
        """``(N, T, D)``."""
        placed = self._placed(batch.prompts, batch)
        return self.model.prompt_encoder.embed_tokens(placed.points, placed.labels)

    def _frames(self, batch: Batch) -> Tensor:
        size, own = batch.images.shape[-1], self.model.image_size
        if own == size:
            return self.model.preprocess(batch.images, batch.sizes)
        scaled = F.interpolate(batch.images.float(), (own, own), mode="bilinear", antialias=True, align_corners=False)
        return self.model.preprocess(scaled, (batch.sizes * own + size // 2) // size)

    def _placed(self, prompts: PromptTensors, batch: Batch) -> PromptTensors:
        ratio = self.model.image_size / batch.images.shape[-1]
        return prompts if ratio == 1 else prompts.scaled(ratio)


def copy_decoder(teacher: Teacher, student: Sam) -> None:
    """Give ``student`` the prompt encoder and mask decoder of ``teacher``.

    Raises:
        UsageError: they have other dimensions.
    """
    for part in ("prompt_encoder", "mask_decoder"):
        ours, theirs = getattr(student, part).state_dict(), getattr(teacher.model, part).state_dict()
        differ = [name for name in theirs if name not in ours or ours[name].shape != theirs[name].shape]
        if differ or len(ours) != len(theirs):
            what = ", ".join(differ[:3]) or "the teacher's has fewer layers"
            raise UsageError(
                f"The {part.replace('_', ' ')} of {teacher.name}, a {teacher.model.config.name}, does not fit the "
                f"student, a {student.config.name} ({what}).",
                "Set distill.copy_decoder to false and learn the decoder too (distill.masks), or make the student's "
                "model.iou_head_depth and model.iou_head_hidden_dim the teacher's.",
            )
        getattr(student, part).load_state_dict(theirs)


def feature_name(teacher: str, level: str) -> str:
    """What a batch calls a level of a teacher."""
    return f"{teacher}/{level}"


class LevelExtractor:
    """The :class:`~mobilesam_core.embedding.workflow.Extractor` of a torch model's levels, inner ones included.

    Raises:
        UsageError: the model has no such level.
    """

    def __init__(self, runtime: TorchRuntime, levels: Sequence[str]) -> None:
        self._runtime = runtime
        self.levels = tuple(levels)
        self.source, self.channels, self.producer = runtime.source, runtime.channels, runtime.producer
        shapes = level_shapes(runtime.torch_model.image_encoder, self.levels, runtime.image_size)
        self.image_bytes = sum(2 * math.prod(shape) for shape in shapes.values())

    def extract(self, image: np.ndarray) -> Features:
        encoder = self._runtime.torch_model.image_encoder
        with self._runtime.running(), FeatureHookManager(encoder, self.levels) as features:
            self._runtime.encode(image)
            return {
                level: (features[level][0].to("cpu", torch.float16).numpy(), layout)
                for level, layout in features.layouts.items()
            }


def _require_memory(path: Path) -> None:
    """Raise a UsageError if a model of the weights in ``path`` does not fit beside them."""
    free = _available_memory()
    if free is None or not path.is_file():
        return
    needed = 2 * path.stat().st_size
    if needed > free:
        raise UsageError(
            f"{path} needs {needed / 2**30:.1f} GiB to load; {free / 2**30:.1f} GiB of memory are free.",
            "Close other programs, use a smaller teacher or a larger machine.",
        )


def _available_memory() -> int | None:
    """Bytes that programs can still have; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)
