"""Running exported models, with ONNX Runtime or OpenVINO, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import numpy as np

from mobilesam_core.config.amg import AmgThresholds
from mobilesam_core.errors import UsageError
from mobilesam_core.ops.frame import Frame
from mobilesam_core.ops.upscale import MaskUpscaler, Measured
from mobilesam_core.prompts.types import ABSENT, PAD, POSITIVE, Prompt, PromptArrays, prompt_arrays
from mobilesam_core.runtime.exported import ExportedModel
from mobilesam_core.runtime.preprocess import encoder_input
from mobilesam_core.runtime.protocol import Decoded, EncodedImage, points_at_once
from mobilesam_core.stores.producer import Producer

_BUDGET = 2**29  # bytes that the objects decoded at one time may take, about
_NUM_MASKS = 4


class OnnxRuntime:
    """A :class:`~mobilesam_core.runtime.protocol.Runtime` of an exported encoder and decoder.

    A decoder of the style ``batched`` answers many prompts at a time, others one by one.

    Args:
        force: take an encoder and a decoder of different checkpoints.

    Raises:
        UsageError: they are not an encoder and a decoder, do not fit together, or the decoder answers with one mask.
    """

    def __init__(self, encoder: ExportedModel, decoder: ExportedModel, force: bool = False) -> None:
        self._encoder, self._decoder = encoder, decoder
        self.source = encoder.path
        self._facts = encoder.facts
        for wanted, given in (("encoder", encoder), ("decoder", decoder)):
            if given.facts.part != wanted:
                raise UsageError(f"{given.path} is the {given.facts.part} of a model, not its {wanted}.")
        if decoder.facts.single_mask:
            raise UsageError(
                f"{decoder.path} answers with one mask; all four are needed here.", "Export it without --single-mask."
            )
        if decoder.size_of("point_coords", 1) is not None:
            raise UsageError(
                f"{decoder.path} takes {decoder.size_of('point_coords', 1)} points and no other number.",
                "Export it without --num-points.",
            )
        ours, theirs = encoder.facts, decoder.facts
        if (ours.model, ours.image_size) != (theirs.model, theirs.image_size):
            raise UsageError(
                f"{encoder.path} is {ours.model} at image_size {ours.image_size}, {decoder.path} is {theirs.model} at "
                f"{theirs.image_size}.",
                "Export both from one checkpoint.",
            )
        if ours.checkpoint_sha256 != theirs.checkpoint_sha256 and not force:
            raise UsageError(
                f"{encoder.path} and {decoder.path} were exported from different checkpoints.",
                "Export both from one, or take them all the same with --force.",
            )

    @property
    def sha256(self) -> str:
        ours, theirs = self._facts.checkpoint_sha256, self._decoder.facts.checkpoint_sha256
        return ours if ours == theirs else f"{ours}+{theirs}"

    @property
    def model(self) -> str:
        return self._facts.model

    @property
    def image_size(self) -> int:
        return self._facts.image_size

    @property
    def channels(self) -> int:
        return len(self._facts.pixel_mean)

    @property
    def embed_dim(self) -> int:
        return self._facts.embed_dim

    @property
    def mask_threshold(self) -> float:
        return self._facts.mask_threshold

    @property
    def memory(self) -> int:
        return _BUDGET

    @property
    def producer(self) -> Producer:
        return Producer(
            model=self.model,
            encoder_sha256=self._facts.encoder_sha256,
            preprocessing_sha256=self._facts.preprocessing_sha256,
            image_size=self.image_size,
            precision={"fp32": "32"}.get(self._facts.precision, self._facts.precision),
        )

    @property
    def amg_thresholds(self) -> AmgThresholds | None:
        return self._decoder.facts.amg_thresholds  # it is the decoder that scores masks

    @property
    def precision(self) -> str:
        return f"{self._facts.precision}, {self._decoder.facts.precision}"

    def running(self) -> AbstractContextManager[None]:
        return nullcontext()

    def encode(self, image: np.ndarray) -> EncodedImage:
        frame = Frame.of(image.shape[0], image.shape[1], self.image_size)
        pixels = encoder_input(self._facts, image)
        return EncodedImage(self._encoder.run({"input_image": pixels})["image_embeddings"], frame)

    def restore(self, embedding: np.ndarray) -> np.ndarray:
        return embedding[None].astype(np.float32)

    def store(self, embedding: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):  # whoever stores it looks for values that are not finite
            return embedding[0].astype(np.float16)

    def decode(self, image: EncodedImage, prompts: Sequence[Prompt], previous: np.ndarray | None = None) -> Decoded:
        given = prompt_arrays([prompt.scaled(*image.frame.scale_xy) for prompt in prompts])
        if previous is not None:
            given = given._replace(masks=previous[:, None], has_mask=np.ones(len(prompts), bool))
        return self.decode_in_frame(image, given)

    def decode_in_frame(self, image: EncodedImage, given: PromptArrays) -> Decoded:
        """Decode n prompts in pixels of the input frame."""
        side = self.image_size // 4
        logits = np.empty((len(given.labels), _NUM_MASKS, side, side), np.float32)
        iou = np.empty((len(given.labels), _NUM_MASKS), np.float32)
        for rows, tokens in self._turns(given):
            logits[rows], iou[rows] = self._ask(image, given, rows, tokens)
        return Decoded(logits, iou)

    def masks(self, logits: np.ndarray, frame: Frame, threshold: float) -> np.ndarray:
        upscaler = _upscaler(frame, logits.shape[-1])
        found = np.empty((*logits.shape[:2], *frame.original), bool)
        for at in np.ndindex(*logits.shape[:2]):
            found[at] = upscaler.mask(logits[at], threshold)
        return found

    def search(self, image: EncodedImage) -> OnnxSearch:
        return OnnxSearch(self, image)

    def _turns(self, given: PromptArrays) -> Iterator[tuple[np.ndarray, int]]:
        """Prompts that are asked together, and how many tokens each has: exported decoders know no filled-up ones."""
        tokens = (given.labels != ABSENT).sum(axis=1)
        for count in np.unique(tokens):
            rows = np.flatnonzero(tokens == count)
            for part in [rows] if self._decoder.facts.style == "batched" else rows[:, None]:
                yield part, int(count)

    def _ask(
        self, image: EncodedImage, given: PromptArrays, rows: np.ndarray, tokens: int
    ) -> tuple[np.ndarray, np.ndarray]:
        side = self.image_size // 4
        mask_input, has_mask = np.zeros((len(rows), 1, side, side), np.float32), np.zeros(len(rows), np.float32)
        if given.masks is not None and given.has_mask is not None:
            mask_input, has_mask = given.masks[rows], given.has_mask[rows].astype(np.float32)
        inputs = {
            "image_embeddings": image.embedding,
            "point_coords": given.points[rows, :tokens],
            "point_labels": given.labels[rows, :tokens].astype(np.float32),
            "mask_input": mask_input,
            "has_mask_input": has_mask,
        }
        if self._decoder.facts.style == "official":
            inputs["orig_im_size"] = np.array(image.frame.original, np.float32)
        found = self._decoder.run(inputs)
        return found["low_res_masks"], found["iou_predictions"]


def answers_any_prompt(decoder: ExportedModel) -> bool:
    """Whether a decoder takes any number of points, and answers with all of its masks."""
    return not decoder.facts.single_mask and decoder.size_of("point_coords", 1) is None


class OnnxSearch:
    """A :class:`~mobilesam_core.runtime.protocol.PointSearch` that draws every mask there is."""

    def __init__(self, runtime: OnnxRuntime, image: EncodedImage) -> None:
        self._runtime, self._image = runtime, image
        self._upscaler = _upscaler(image.frame, 4 * image.embedding.shape[-1])
        self.points_at_once = points_at_once(image.embedding)

    def ask(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        placed = np.zeros((len(points), 2, 2), np.float32)
        placed[:, 0] = points
        labels = np.tile(np.array([POSITIVE, PAD], np.int64), (len(points), 1))
        decoded = self._runtime.decode_in_frame(self._image, PromptArrays(placed, labels, None, None))
        return decoded.low_res_logits, decoded.iou_predictions[:, 1:]

    def draw(self, answers: np.ndarray, points: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        return answers[points, outputs + 1]

    def measure(self, logits: np.ndarray, threshold: float, offset: float) -> Measured:
        return self._upscaler.measure(logits, threshold, offset)

    def mask(self, logits: np.ndarray, threshold: float) -> np.ndarray:
        return self._upscaler.mask(logits, threshold)


@lru_cache(maxsize=4)
def _upscaler(frame: Frame, grid: int) -> MaskUpscaler:
    return MaskUpscaler(frame, grid)
