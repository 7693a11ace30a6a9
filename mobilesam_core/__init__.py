"""Models, data, losses and workflows of the mobilesam toolkit.

The public names load on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mobilesam_core.amg.generator import SamAutomaticMaskGenerator
    from mobilesam_core.checkpoints.loading import build_sam_vit_t, sam_model_registry
    from mobilesam_core.data.training_set import TrainingSet as SAMDataset
    from mobilesam_core.losses.distillation import FeatureDistillationLoss
    from mobilesam_core.losses.total import SegLoss
    from mobilesam_core.models.features import FeatureHookManager
    from mobilesam_core.models.sam import Sam
    from mobilesam_core.prediction.predictor import SamPredictor
    from mobilesam_core.scheduler import PolynomialLR

# Public name → where it lives; a name after the colon is the one it has there.
_PUBLIC = {
    "FeatureDistillationLoss": "mobilesam_core.losses.distillation",
    "FeatureHookManager": "mobilesam_core.models.features",
    "PolynomialLR": "mobilesam_core.scheduler",
    "SAMDataset": "mobilesam_core.data.training_set:TrainingSet",
    "Sam": "mobilesam_core.models.sam",
    "SamAutomaticMaskGenerator": "mobilesam_core.amg.generator",
    "SamPredictor": "mobilesam_core.prediction.predictor",
    "SegLoss": "mobilesam_core.losses.total",
    "build_sam_vit_t": "mobilesam_core.checkpoints.loading",
    "sam_model_registry": "mobilesam_core.checkpoints.loading",
}

__all__ = [
    "FeatureDistillationLoss",
    "FeatureHookManager",
    "PolynomialLR",
    "SAMDataset",
    "Sam",
    "SamAutomaticMaskGenerator",
    "SamPredictor",
    "SegLoss",
    "__version__",
    "build_sam_vit_t",
    "sam_model_registry",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(importlib.import_module(module), attribute or name)
