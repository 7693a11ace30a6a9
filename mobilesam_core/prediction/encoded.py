"""One image, encoded once, and prompts in its own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mobilesam_core.models.sam import DecoderOutput, Sam
from mobilesam_core.ops.resize import Frame, resize_image, restore_masks, to_tensor
from mobilesam_core.prompts.types import Prompt, PromptTensors, prompt_tensors

# Bytes that the objects decoded at one time may take, about.
_CPU_BUDGET, _ACCELERATOR_BUDGET = 2**29, 2**32


@dataclass(frozen=True)
class EncodedImage:
    """embedding: ``(1, D, g, g)`` on the model's device. frame: how the image lies in the model's input."""

    embedding: Tensor
    frame: Frame


def encode_image(model: Sam, image: np.ndarray) -> EncodedImage:
    """Encode a ``(H, W, 3)`` RGB (``(H, W)`` for a model of one channel) uint8 image."""
    frame = Frame.of(image.shape[0], image.shape[1], model.image_size)
    pixels = to_tensor(resize_image(image, frame)).to(model.device)
    return EncodedImage(model.encode(model.preprocess(pixels[None])), frame)


def decode_prompts(
    model: Sam, image: EncodedImage, prompts: Sequence[Prompt], previous_logits: Tensor | None = None
) -> DecoderOutput:
    """Decode n prompts together; their points and boxes are in pixels of the image.

    previous_logits: ``(n, h, w)`` low-resolution logits that stand in for the prompts' own masks.
    """
    tensors = prompt_tensors([prompt.scaled(*image.frame.scale_xy) for prompt in prompts]).to(model.device)
    if previous_logits is not None:
        has_mask = torch.ones(len(prompts), dtype=torch.bool, device=model.device)
        tensors = PromptTensors(tensors.points, tensors.labels, previous_logits[:, None], has_mask)
    image_index = torch.zeros(len(prompts), dtype=torch.int64, device=model.device)
    return model.decode(image.embedding, image_index, tensors)


def is_ambiguous(prompt: Prompt) -> bool:
    """Whether a prompt is a single point, which may mean a whole, a part or a subpart."""
    return len(prompt.points) == 1 and prompt.box is None


def select_masks(output: DecoderOutput, prompts: Sequence[Prompt]) -> Tensor:
    """``(n,)`` int64: which of the four outputs answers each prompt, as SAM does it.

    An ambiguous prompt takes the best-scored of the multimask outputs 1..3, any other output 0.
    """
    ambiguous = torch.tensor([is_ambiguous(prompt) for prompt in prompts], device=output.iou_predictions.device)
    return torch.where(ambiguous, 1 + output.iou_predictions[:, 1:].argmax(dim=1), 0)


def native_masks(low_res_logits: Tensor, frame: Frame, threshold: float) -> Tensor:
    """``(n, K, h, w)`` low-resolution logits as ``(n, K, H, W)`` bool masks of the original image.

    One of the K at a time, since the logits in between are many times as large as either end; in float32,
    since lower precision would move edges.
    """
    planes = [restore_masks(plane.float(), frame) > threshold for plane in low_res_logits.split(1, dim=1)]
    return torch.cat(planes, dim=1)


def objects_at_once(image: EncodedImage) -> int:
    """How many objects to decode together, so that memory stays within bounds on any image."""
    height, width = image.frame.original
    # About 48 bytes of decoder activations a pixel of the frame, logits in the frame, and masks.
    each = 52 * image.frame.size**2 + 9 * height * width
    return max(1, (_CPU_BUDGET if image.embedding.device.type == "cpu" else _ACCELERATOR_BUDGET) // each)
