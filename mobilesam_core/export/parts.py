"""The parts of a model as functions of arrays alone: what is exported, and what an export is compared with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mobilesam_core.models.sam import Sam
from mobilesam_core.prompts.tensors import PromptTensors

SINGLE_MASK_BONUS = 1000.0


class EncoderPart(nn.Module):
    """Normalised, padded images ``(B, C, S, S)`` float32 to embeddings ``(B, D, g, g)``."""

    def __init__(self, model: Sam) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_image: Tensor) -> Tensor:
        return self.model.encode(input_image)


class DecoderPart(nn.Module):
    """B prompts of one image to masks, with the inputs of SAM's own ONNX export.

    single_mask: answer with the mask that SAM's export selects: of a prompt of one point (and the padding point beside
    it) the best-scored of the outputs 1 to 3, of any other output 0.
    """

    def __init__(self, model: Sam, single_mask: bool) -> None:
        super().__init__()
        self.model = model
        self.single_mask = single_mask

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Low-resolution logits ``(B, K, 4g, 4g)`` and predicted IoUs ``(B, K)``; K is 1 with ``single_mask``, else 4.

        image_embeddings: ``(1, D, g, g)``. point_coords: ``(B, N, 2)`` float32 in pixels of the input frame.
        point_labels: ``(B, N)`` float32: 0 background, 1 foreground, 2 and 3 corners of a box, -1 padding.
        mask_input: ``(B, 1, 4g, 4g)`` float32 logits. has_mask_input: ``(B,)`` float32, 1 where they count, else 0.
        """
        prompts = PromptTensors(point_coords, point_labels.to(torch.int64), mask_input, has_mask_input > 0.5)
        tokens, dense = self.model.prompt_encoder(prompts)
        decoded = self.model.mask_decoder(image_embeddings + dense, self.model.prompt_encoder.get_dense_pe(), tokens)
        if not self.single_mask:
            return decoded.low_res_logits, decoded.iou_predictions
        # As SAM's export has it: a large bonus for output 0 that changes its sign between one and two points.
        bonus = (point_coords.shape[1] - 2.5) * SINGLE_MASK_BONUS
        iou = decoded.iou_predictions
        scores = torch.cat([iou[:, :1] + bonus, iou[:, 1:]], dim=1)
        best = scores.argmax(dim=1, keepdim=True)
        logits = decoded.low_res_logits
        return logits.gather(1, best[:, :, None, None].expand(-1, -1, *logits.shape[2:])), iou.gather(1, best)


class CombinedPart(nn.Module):
    """An image and prompts straight to masks: :class:`EncoderPart` and :class:`DecoderPart` in one."""

    def __init__(self, model: Sam, single_mask: bool) -> None:
        super().__init__()
        self.encoder = EncoderPart(model)
        self.decoder = DecoderPart(model, single_mask)

    def forward(
        self,
        input_image: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """As :meth:`DecoderPart.forward`, of ``(1, C, S, S)`` normalised, padded images."""
        masks, iou = self.decoder(self.encoder(input_image), point_coords, point_labels, mask_input, has_mask_input)
        return masks, iou
