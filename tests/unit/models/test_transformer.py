from __future__ import annotations

import pytest
import torch

from mobilesam_core.models.attention import Attention


@pytest.mark.parametrize("masked", [False, True])
def test_training_in_bfloat16_attends_as_float32_does(masked: bool) -> None:
    torch.manual_seed(0)
    attention = Attention(64, 8, downsample=2)
    q, k, v = torch.randn(3, 5, 64), torch.randn(3, 40, 64), torch.randn(3, 40, 64)
    mask = torch.rand(3, 1, 1, 40) > 0.3 if masked else None

    def run() -> tuple[torch.Tensor, ...]:
        attention.zero_grad()
        given = [x.clone().requires_grad_() for x in (q, k, v)]
        out = attention(*given, mask)
        out.float().square().sum().backward()
        assert attention.q_proj.weight.grad is not None
        gradients = [x.grad for x in given if x.grad is not None]
        return out.detach().float(), *gradients, attention.q_proj.weight.grad.clone()

    exact = run()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = run()
        with torch.no_grad():  # the fused kernel
            fused = attention(q, k, v, mask).float()
    for a, b in zip(exact, mixed, strict=True):
        assert (a - b).norm() < 0.02 * a.norm()
    assert (mixed[0] - fused).norm() < 0.02 * fused.norm()
