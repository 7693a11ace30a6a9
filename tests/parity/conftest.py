"""The oracles: reference implementations with random weights, and our models with the same ones."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from mobilesam_core.checkpoints.loading import sam_model_registry
from mobilesam_core.models.sam import Sam

with warnings.catch_warnings():
    # mobile_sam takes over timm's names of its models, and warns of it.
    warnings.simplefilter("ignore")
    import mobile_sam
    import segment_anything

TOLERANCE = 1e-4


def _randomise(model: nn.Module, seed: int) -> None:
    """Fill every parameter and statistic with values that show an error: no zeros, no ones."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        table = any(word in name for word in ("attention_biases", "rel_pos", "pos_embed", "iou_token", "mask_tokens"))
        if parameter.ndim > 1 and not table:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5, generator=generator)
        else:
            # Norms are weights of one dimension; all else of one dimension, and tables, are offsets.
            mean = float(parameter.ndim == 1 and name.endswith("weight"))
            nn.init.normal_(parameter, mean=mean, std=0.3, generator=generator)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.3, generator=generator)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith("gaussian_matrix"):
            # Drawn by the constructor already, but from the global generator: another model in every process.
            buffer.normal_(generator=generator)


@pytest.fixture(scope="session")
def randomise() -> Callable[[nn.Module, int], None]:
    return _randomise


def build_pair(package: ModuleType, name: str, folder: Path) -> tuple[Any, Sam]:
    """A reference model, and ours with its weights, by way of a file as the authors write it."""
    oracle = package.sam_model_registry[name]()
    _randomise(oracle, seed=7)
    path = folder / f"{name}.pt"
    torch.save(oracle.state_dict(), path)
    # The oracle keeps a bias table from before the change unless it leaves evaluation mode once.
    return oracle.train().eval(), sam_model_registry[name](checkpoint=path)


@pytest.fixture(scope="session")
def vit_t(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Sam]:
    return build_pair(mobile_sam, "vit_t", tmp_path_factory.mktemp("oracle"))


@pytest.fixture
def vit_b(tmp_path: Path) -> tuple[Any, Sam]:
    return build_pair(segment_anything, "vit_b", tmp_path)


@pytest.fixture(scope="session")
def photo(data_root: Path) -> np.ndarray:
    return np.asarray(Image.open(data_root / "photos/mobilesam_picture2.jpg").convert("RGB"))


@pytest.fixture(scope="session")
def assert_same() -> Callable[[Tensor, Tensor], None]:
    """Two results agree to a ten-thousandth of the expected one's scale."""

    def check(ours: Tensor, expected: Tensor) -> None:
        assert ours.shape == expected.shape
        error = (ours - expected).abs().max().item()
        scale = expected.abs().max().item()
        assert error <= TOLERANCE * scale, f"off by {error:.2e} on a scale of {scale:.2e}"

    return check
