"""One forward pass of training."""

from __future__ import annotations

from torch import Tensor, nn

from mobilesam_core.data.batch import Batch
from mobilesam_core.losses.total import LossValues, SegLoss
from mobilesam_core.models.sam import Sam


class TrainingStep(nn.Module):
    """Batch → losses by name, of which ``total`` has the gradient; as one module, so that wrappers (precision, several
    devices) see a single forward.

    Each image is encoded once; all objects of the batch are decoded together.
    """

    def __init__(self, model: Sam, loss: SegLoss) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def begin_epoch(self, epoch: int) -> None:
        """Every epoch is like the others."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        images = self.model.preprocess(batch.images, batch.sizes)
        embeddings = self.model.encode(images)
        decoded = self.model.decode(embeddings, batch.image_index, batch.prompts)
        losses: LossValues = self.loss(decoded.low_res_logits, decoded.iou_predictions, batch.targets)
        return losses._asdict()
