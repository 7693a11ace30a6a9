"""One forward pass of training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mobilesam_core.config.prompts import PromptConfig
from mobilesam_core.data.batch import Batch
from mobilesam_core.losses.total import SegLoss
from mobilesam_core.models.mask_decoder import DecoderOutput
from mobilesam_core.models.sam import Sam
from mobilesam_core.models.shared_decoder import decode_shared
from mobilesam_core.prompts.tensors import PromptTensors
from mobilesam_core.training.clicks import answers, corrected, on_grid


class TrainingStep(nn.Module):
    """Batch → losses by name, of which ``total`` has the gradient; as one module, so that wrappers (precision, several
    devices) see a single forward.

    Each image is encoded once; all objects of the batch are decoded together, in every round of corrections that
    ``prompts`` asks for. Losses are means over the rounds, ``iou`` is that of the first answer, ``iou_corrected`` of
    the last.
    """

    def __init__(self, model: Sam, loss: SegLoss, prompts: PromptConfig) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self._config = prompts

    def begin_epoch(self, epoch: int) -> None:
        """Every epoch is like the others."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        if batch.embeddings is None:
            embeddings = self.model.encode(self.model.preprocess(batch.images, batch.sizes))
        else:
            embeddings = batch.embeddings.float()
        prompts = batch.prompts
        decoded = decode_shared(self.model, embeddings, batch.image_index, batch.counts, prompts)
        rounds = [self.loss(decoded.low_res_logits, decoded.iou_predictions, batch.targets)]
        for with_click in _plan(self._config):
            prompts = self._next(prompts, decoded, batch, with_click)
            decoded = decode_shared(self.model, embeddings, batch.image_index, batch.counts, prompts)
            rounds.append(self.loss(decoded.low_res_logits, decoded.iou_predictions, batch.targets))
        if len(rounds) == 1:
            return rounds[0]._asdict()
        means = {name: torch.stack([getattr(each, name) for each in rounds]).mean() for name in rounds[0]._fields}
        return means | {"iou": rounds[0].iou, "iou_corrected": rounds[-1].iou}

    @torch.no_grad()
    def _next(self, prompts: PromptTensors, decoded: DecoderOutput, batch: Batch, with_click: bool) -> PromptTensors:
        """What a user would ask next: one point more if ``with_click``, beside the mask so far."""
        logits = answers(decoded, prompts.labels)
        if with_click:
            wanted = on_grid(batch.targets, logits.shape[-1])
            sizes = batch.sizes[batch.image_index]
            mode, size = self._config.click_mode, self.model.image_size
            prompts = corrected(prompts, logits > self.model.mask_threshold, wanted, sizes, size, mode)
        if self._config.mask_prompt == 0:
            return prompts
        shown = torch.rand(len(logits), device=logits.device) < self._config.mask_prompt
        return PromptTensors(prompts.points, prompts.labels, logits[:, None].float(), shown)


def _plan(config: PromptConfig) -> list[bool]:
    """For each round after the first, whether it brings a click. Of those that do not, one is the last."""
    plan = [True] * config.rounds
    for _ in range(config.rounds_without_click - 1):
        plan.insert(int(torch.randint(len(plan) + 1, ())), False)
    return plan + [False] * min(1, config.rounds_without_click)
