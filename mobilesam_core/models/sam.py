"""The whole model: image and prompts to masks (Kirillov et al., "Segment Anything", 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobilesam_core.config.model import ModelConfig
from mobilesam_core.errors import PromptError
from mobilesam_core.models.encoder import ImageEncoder
from mobilesam_core.models.mask_decoder import DecoderOutput, MaskDecoder
from mobilesam_core.models.prompt_encoder import PromptEncoder
from mobilesam_core.ops.frame import Frame
from mobilesam_core.ops.resize import pad_to_frame, restore_masks
from mobilesam_core.prompts.tensors import PromptTensors
from mobilesam_core.prompts.types import ABSENT, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, PAD

# Of ImageNet's RGB images, 0 to 255.
_RGB_MEAN, _RGB_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_LUMA = (0.299, 0.587, 0.114)


def pixel_statistics(channels: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each input channel.

    Three channels are taken for RGB. Any other number gets, for each channel, the luma-weighted mean
    (ITU-R BT.601) of the RGB values: right for grey, neutral where nothing is known of a channel.
    """
    if channels == 3:
        return list(_RGB_MEAN), list(_RGB_STD)
    grey = [sum(w * v for w, v in zip(_LUMA, values, strict=True)) for values in (_RGB_MEAN, _RGB_STD)]
    return [grey[0]] * channels, [grey[1]] * channels


class Sam(nn.Module):
    """Image encoder, prompt encoder and mask decoder.

    config: what the model is, every field filled in. mask_threshold: logits above it are mask.
    image_format: order of the input channels.
    """

    mask_threshold: float = 0.0
    image_format: str = "RGB"
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        config: ModelConfig,
        image_encoder: ImageEncoder,
        prompt_encoder: PromptEncoder,
        mask_decoder: MaskDecoder,
    ) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        mean, std = pixel_statistics(config.encoder.input_channels or 3)
        self.register_buffer("pixel_mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    @property
    def image_size(self) -> int:
        """Side of the square input frame in pixels."""
        return self.image_encoder.img_size

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def in_precision(self, dtype: torch.dtype) -> Sam:
        """This model with weights of ``dtype``; what places pixels and points stays in float32."""
        positions = self.prompt_encoder.pe_layer
        exact = self.pixel_mean.float(), self.pixel_std.float(), positions.positional_encoding_gaussian_matrix.float()
        self.to(dtype)
        self.pixel_mean, self.pixel_std, positions.positional_encoding_gaussian_matrix = exact
        return self

    def preprocess(self, images: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Normalise, then zero-pad to the frame (right and bottom): ``(..., C, S, S)`` float32.

        images: ``(..., C, h, w)`` uint8 or float, 0 to 255, longest side S.
        sizes: for images ``(B, C, S, S)`` that are padded already, ``(B, 2)`` int64, the ``(h, w)`` that is
        image; the rest becomes zero again.
        """
        x = (images.float() - self.pixel_mean.float()) / self.pixel_std.float()
        if sizes is not None:
            rows = torch.arange(x.shape[-2], device=x.device) < sizes[:, :1]
            columns = torch.arange(x.shape[-1], device=x.device) < sizes[:, 1:]
            # Filled, not multiplied: whatever lies in the padding, it becomes an exact zero.
            x = x.masked_fill(~(rows[:, None, :, None] & columns[:, None, None, :]), 0.0)
        return pad_to_frame(x, self.image_size)

    def encode(self, images: Tensor) -> Tensor:
        """Images of :meth:`preprocess`, ``(B, C, S, S)``, to embeddings ``(B, D, S/16, S/16)``."""
        embeddings: Tensor = self.image_encoder(images.to(self.prompt_encoder.no_mask_embed.weight.dtype))
        return embeddings

    def decode(self, image_embeddings: Tensor, image_index: Tensor, prompts: PromptTensors) -> DecoderOutput:
        """All four masks of N prompts at once, whichever image each belongs to.

        image_embeddings: ``(B, D, g, g)``. image_index: ``(N,)`` int64. prompts: N, in the input frame.
        A prompt's masks do not depend on what else is in the batch.
        """
        tokens, dense = self.prompt_encoder(prompts)
        output: DecoderOutput = self.mask_decoder(
            image_embeddings[image_index] + dense,
            self.prompt_encoder.get_dense_pe(),
            tokens,
            prompts.absent,
        )
        return output

    def postprocess_masks(self, masks: Tensor, input_size: tuple[int, int], original_size: tuple[int, int]) -> Tensor:
        """``(N, K, h, w)`` low-resolution logits to ``(N, K, H, W)`` logits of the original image.

        input_size: height and width of the image in the input frame; original_size: of the image itself.
        """
        return restore_masks(masks.float(), Frame(tuple(original_size), tuple(input_size), self.image_size))  # type: ignore[arg-type]

    @torch.no_grad()
    def forward(self, batched_input: Sequence[dict[str, Any]], multimask_output: bool) -> list[dict[str, Tensor]]:
        """Images and prompts to masks, as in segment_anything; all of them go through together.

        Each input: ``image`` ``(C, h, w)`` with its longest side scaled to the frame, ``original_size``
        ``(H, W)``, and any of ``point_coords`` ``(N, P, 2)`` with ``point_labels`` ``(N, P)``, ``boxes``
        ``(N, 4)`` and ``mask_inputs`` ``(N, 1, S/4, S/4)``, all in the input frame.

        Each output: ``masks`` ``(N, K, H, W)`` bool, ``iou_predictions`` ``(N, K)`` and ``low_res_logits``
        ``(N, K, S/4, S/4)``; K is 3 with ``multimask_output``, else 1.
        """
        embeddings = self.encode(torch.stack([self.preprocess(x["image"]) for x in batched_input]))
        prompts = [
            batch_prompts(
                x.get("point_coords"),
                x.get("point_labels"),
                x.get("boxes"),
                x.get("mask_inputs"),
                self.device,
            )
            for x in batched_input
        ]
        counts = torch.tensor([len(p) for p in prompts], device=self.device)
        image_index = torch.arange(len(prompts), device=self.device).repeat_interleave(counts)
        decoded = self.decode(embeddings, image_index, join_prompts(prompts))
        chosen = slice(1, None) if multimask_output else slice(0, 1)
        outputs = []
        sizes = [len(p) for p in prompts]
        for x, logits, iou in zip(
            batched_input,
            decoded.low_res_logits[:, chosen].split(sizes),
            decoded.iou_predictions[:, chosen].split(sizes),
            strict=True,
        ):
            masks = self.postprocess_masks(logits, x["image"].shape[-2:], x["original_size"])
            outputs.append({"masks": masks > self.mask_threshold, "iou_predictions": iou, "low_res_logits": logits})
        return outputs


def batch_prompts(
    points: Tensor | None,
    labels: Tensor | None,
    boxes: Tensor | None,
    masks: Tensor | None,
    device: torch.device,
) -> PromptTensors:
    """N prompts given the way segment_anything takes them; with nothing given, one empty prompt.

    points: ``(N, P, 2)`` with labels ``(N, P)``. boxes: ``(N, 4)`` or ``(N, 1, 4)``. masks: ``(N, 1, h, w)``.

    Raises:
        PromptError: points without labels, or counts that differ.
    """
    if (points is None) != (labels is None):
        raise PromptError("Points and their labels go together; one of them is missing.")
    counts = {len(given) for given in (points, labels, boxes, masks) if given is not None}
    if len(counts) > 1:
        raise PromptError(
            f"Points, labels, boxes and masks must be of the same number of prompts, not {sorted(counts)}."
        )
    count = counts.pop() if counts else 1
    xy = torch.zeros(count, 0, 2, device=device) if points is None else points.to(device, torch.float32)
    kinds = (
        torch.zeros(count, 0, dtype=torch.int64, device=device) if labels is None else labels.to(device, torch.int64)
    )
    if xy.shape[:2] != kinds.shape or xy.shape[2:] != (2,):
        raise PromptError(
            f"Points and labels must be of shapes (N, P, 2) and (N, P), not {tuple(xy.shape)} and {tuple(kinds.shape)}."
        )
    if boxes is not None:
        corners = torch.tensor([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT], device=device)
        xy = torch.cat([xy, boxes.to(device, torch.float32).reshape(count, 2, 2)], dim=1)
        kinds = torch.cat([kinds, corners.expand(count, 2)], dim=1)
    elif points is not None:
        xy, kinds = F.pad(xy, (0, 0, 0, 1)), F.pad(kinds, (0, 1), value=PAD)
    has_mask = None if masks is None else torch.ones(count, dtype=torch.bool, device=device)
    return PromptTensors(xy, kinds, None if masks is None else masks.to(device, torch.float32), has_mask)


def join_prompts(parts: Sequence[PromptTensors]) -> PromptTensors:
    """Several batches of prompts as one; the shorter ones are filled with :data:`ABSENT` tokens."""
    width = max(part.labels.shape[1] for part in parts)
    missing = [width - part.labels.shape[1] for part in parts]
    points = torch.cat([F.pad(part.points, (0, 0, 0, n)) for part, n in zip(parts, missing, strict=True)])
    labels = torch.cat([F.pad(part.labels, (0, n), value=ABSENT) for part, n in zip(parts, missing, strict=True)])
    shape = next((part.masks.shape[1:] for part in parts if part.masks is not None), None)
    if shape is None:
        return PromptTensors(points, labels)
    masks = [points.new_zeros(len(part), *shape) if part.masks is None else part.masks for part in parts]
    given = [
        torch.zeros(len(p), dtype=torch.bool, device=points.device) if p.has_mask is None else p.has_mask for p in parts
    ]
    return PromptTensors(points, labels, torch.cat(masks), torch.cat(given))
