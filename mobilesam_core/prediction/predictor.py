"""Prompting one image again and again, with the interface of segment_anything's ``SamPredictor``."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mobilesam_core.errors import PromptError, UsageError
from mobilesam_core.models.sam import Sam, batch_prompts
from mobilesam_core.ops.frame import Frame, resize_image
from mobilesam_core.ops.resize import to_tensor


class ResizeLongestSide:
    """Brings images and coordinates into an input frame of side ``target_length``.

    ``original_size`` is ``(H, W)``; coordinates are ``(x, y)``, boxes XYXY, both in pixels.
    """

    def __init__(self, target_length: int) -> None:
        self.target_length = target_length

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        """``(H, W, C)`` uint8 to ``(h, w, C)`` uint8, as the model expects it."""
        return resize_image(image, Frame.of(image.shape[0], image.shape[1], self.target_length))

    def apply_coords(self, coords: np.ndarray, original_size: tuple[int, ...]) -> np.ndarray:
        """``(..., 2)`` to ``(..., 2)`` float64."""
        return np.asarray(coords, np.float64) * self._scale(original_size)

    def apply_boxes(self, boxes: np.ndarray, original_size: tuple[int, ...]) -> np.ndarray:
        """``(B, 4)`` to ``(B, 4)`` float64."""
        return self.apply_coords(np.reshape(boxes, (-1, 2, 2)), original_size).reshape(-1, 4)

    def apply_image_torch(self, image: Tensor) -> Tensor:
        """``(B, C, H, W)`` float to ``(B, C, h, w)``; close to :meth:`apply_image`, not equal."""
        frame = Frame.of(image.shape[-2], image.shape[-1], self.target_length)
        return F.interpolate(image, frame.scaled, mode="bilinear", align_corners=False, antialias=True)

    def apply_coords_torch(self, coords: Tensor, original_size: tuple[int, ...]) -> Tensor:
        """``(..., 2)`` to ``(..., 2)`` float32."""
        return coords.float() * torch.tensor(self._scale(original_size), dtype=torch.float32, device=coords.device)

    def apply_boxes_torch(self, boxes: Tensor, original_size: tuple[int, ...]) -> Tensor:
        """``(B, 4)`` to ``(B, 4)`` float32."""
        return self.apply_coords_torch(boxes.reshape(-1, 2, 2), original_size).reshape(-1, 4)

    def _scale(self, original_size: tuple[int, ...]) -> tuple[float, float]:
        height, width = original_size
        return Frame.of(height, width, self.target_length).scale_xy


class SamPredictor:
    """Encodes an image once, then predicts masks for any number of prompts.

    sam_model: a model in evaluation mode. features: the embedding ``(1, D, g, g)`` of the image that is set,
    or None. original_size: its ``(H, W)``. input_size: ``(h, w)`` of the image within the input frame.
    """

    original_size: tuple[int, int]
    input_size: tuple[int, int]

    def __init__(self, sam_model: Sam) -> None:
        self.model = sam_model
        self.transform = ResizeLongestSide(sam_model.image_size)
        self.reset_image()

    @property
    def device(self) -> torch.device:
        return self.model.device

    def reset_image(self) -> None:
        """Forget the image."""
        self.is_image_set = False
        self.features: Tensor | None = None

    def set_image(self, image: np.ndarray, image_format: str = "RGB") -> None:
        """Encode ``(H, W, C)`` uint8 (``(H, W)`` too, for a model of one channel), ``RGB`` or ``BGR``.

        Raises:
            UsageError: another type or number of channels.
        """
        if image_format not in ("RGB", "BGR"):
            raise UsageError(f"image_format is {image_format!r}.", "It is 'RGB' or 'BGR'.")
        planes = image[..., None] if image.ndim == 2 else image
        channels = len(self.model.pixel_mean)
        if planes.dtype != np.uint8 or planes.ndim != 3 or planes.shape[2] != channels or not planes.size:
            raise UsageError(
                f"The image is {image.dtype} {image.shape}; the model takes uint8 (H, W, {channels}).",
                "Convert it first.",
            )
        if image_format != self.model.image_format:
            planes = planes[..., ::-1]
        pixels = to_tensor(self.transform.apply_image(np.ascontiguousarray(planes)))
        self.set_torch_image(pixels[None].to(self.device), (image.shape[0], image.shape[1]))

    @torch.no_grad()
    def set_torch_image(self, transformed_image: Tensor, original_image_size: tuple[int, ...]) -> None:
        """Encode an image ``(1, C, h, w)``, 0 to 255, whose longest side is scaled to the frame already.

        original_image_size: ``(H, W)`` before that.

        Raises:
            UsageError: another shape.
        """
        size, channels = self.model.image_size, len(self.model.pixel_mean)
        shape = tuple(transformed_image.shape)
        if len(shape) != 4 or shape[:2] != (1, channels) or max(shape[2:]) != size:
            raise UsageError(
                f"The image has shape {shape}, not (1, {channels}, h, w) with a longest side of {size}.",
                "Use predictor.transform, or set_image.",
            )
        self.reset_image()
        height, width = original_image_size
        self.original_size, self.input_size = (int(height), int(width)), (shape[2], shape[3])
        self.features = self.model.encode(self.model.preprocess(transformed_image.to(self.device)))
        self.is_image_set = True

    def get_image_embedding(self) -> Tensor:
        """The embedding of the image that is set, ``(1, D, g, g)``.

        Raises:
            UsageError: no image is set.
        """
        if self.features is None:
            raise UsageError("No image is set.", "Call set_image first.")
        return self.features

    def predict(
        self,
        point_coords: np.ndarray | None = None,
        point_labels: np.ndarray | None = None,
        box: np.ndarray | None = None,
        mask_input: np.ndarray | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Masks of one prompt, in pixels of the original image.

        point_coords: ``(P, 2)``. point_labels: ``(P,)``, 1 foreground, 0 background. box: ``(4,)`` XYXY.
        mask_input: ``(1, S/4, S/4)`` logits of an earlier prediction.

        Returns masks ``(K, H, W)``, bool or with ``return_logits`` float32; predicted IoU ``(K,)``; and
        logits ``(K, S/4, S/4)`` for the next ``mask_input``. K is 3 with ``multimask_output``, else 1.

        Raises:
            UsageError: no image is set.
            PromptError: a prompt of the wrong shape, or not finite.
        """
        self.get_image_embedding()
        points = labels = boxes = masks = None
        if point_coords is not None:
            coords = self.transform.apply_coords(_finite(point_coords, "point_coords"), self.original_size)
            points = torch.as_tensor(coords, dtype=torch.float32)[None]
        if point_labels is not None:
            labels = torch.as_tensor(np.asarray(point_labels), dtype=torch.int64)[None]
        if box is not None:
            if np.size(box) != 4:
                raise PromptError(f"box has shape {np.shape(box)}; it needs four numbers.")
            boxes = torch.as_tensor(
                self.transform.apply_boxes(_finite(box, "box"), self.original_size), dtype=torch.float32
            )
        if mask_input is not None:
            masks = torch.as_tensor(_finite(mask_input, "mask_input"), dtype=torch.float32)[None]
        results = self.predict_torch(points, labels, boxes, masks, multimask_output, return_logits)
        mask, iou, low_res = (result[0].cpu().numpy() for result in results)
        return mask, iou, low_res

    @torch.no_grad()
    def predict_torch(
        self,
        point_coords: Tensor | None,
        point_labels: Tensor | None,
        boxes: Tensor | None = None,
        mask_input: Tensor | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Masks of B prompts, in pixels of the input frame (see ``transform``).

        point_coords: ``(B, P, 2)``. point_labels: ``(B, P)``. boxes: ``(B, 4)``, alone or with points.
        mask_input: ``(B, 1, S/4, S/4)``.

        Returns what :meth:`predict` does: ``(B, K, H, W)``, ``(B, K)`` and ``(B, K, S/4, S/4)``.

        Raises:
            UsageError: no image is set.
            PromptError: prompts of the wrong shapes, or different numbers of them.
        """
        features = self.get_image_embedding()
        side = self.model.prompt_encoder.mask_input_size
        if mask_input is not None and tuple(mask_input.shape[1:]) != (1, *side):
            raise PromptError(
                f"mask_input has shape {tuple(mask_input.shape)}, not (B, 1, {side[0]}, {side[1]}).",
                "Pass the low-resolution logits of an earlier prediction.",
            )
        prompts = batch_prompts(point_coords, point_labels, boxes, mask_input, self.device)
        image_index = torch.zeros(len(prompts), dtype=torch.int64, device=self.device)
        decoded = self.model.decode(features, image_index, prompts)
        chosen = slice(1, None) if multimask_output else slice(0, 1)
        low_res, iou = decoded.low_res_logits[:, chosen], decoded.iou_predictions[:, chosen]
        masks = self.model.postprocess_masks(low_res, self.input_size, self.original_size)
        return (masks if return_logits else masks > self.model.mask_threshold), iou, low_res


def _finite(values: np.ndarray, name: str) -> np.ndarray:
    array = np.asarray(values)
    if not np.isfinite(array).all():
        raise PromptError(f"{name} holds a value that is no finite number.")
    return array
