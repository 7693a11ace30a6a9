from __future__ import annotations

import pytest
import torch

from mobilesam_core.checkpoints.loading import open_checkpoint
from mobilesam_core.export.blocks import DeployedBlock, deployed
from mobilesam_core.models.tiny_vit_blocks import TinyViTBlock


def _block(dim: int, heads: int, window: int) -> TinyViTBlock:
    torch.manual_seed(0)
    block = TinyViTBlock(dim, heads, window, mlp_ratio=4.0)
    for value in [*block.parameters(), block.local_conv.bn.running_mean]:
        torch.nn.init.normal_(value, std=0.2)
    return block.eval()


@pytest.mark.parametrize("size", [(7, 7), (14, 21), (8, 13)], ids=["one window", "whole windows", "padded"])
@pytest.mark.parametrize("batch", [1, 3])
@torch.no_grad()
def test_the_same_function(size: tuple[int, int], batch: int) -> None:
    block = _block(24, 3, 7)
    x = torch.randn(batch, *size, 24)
    expected = block(x)
    torch.testing.assert_close(DeployedBlock(block)(x), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_model_is_itself_again_afterwards() -> None:
    model = open_checkpoint("nano", image_size=128).model
    image = torch.randn(1, 3, 128, 128)
    names, expected = list(model.state_dict()), model.encode(image)
    kinds = [type(module) for module in model.modules()]
    with pytest.raises(RuntimeError, match="stop"), deployed(model):
        assert DeployedBlock in {type(module) for module in model.modules()}
        torch.testing.assert_close(model.encode(image), expected, atol=1e-5, rtol=1e-4)
        raise RuntimeError("stop")
    assert [type(module) for module in model.modules()] == kinds and list(model.state_dict()) == names
