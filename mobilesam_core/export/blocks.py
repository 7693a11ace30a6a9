"""TinyViT's blocks, laid out for runtimes: the same function, of operators that runtimes compute faster.

torch attends to strided views and need not copy them; a graph's operators copy whatever they transpose, cut or split.
So queries, keys and values are products of their own, windows and heads are cut out in one transposition each way,
padding is dropped before the projection, and the two layers between norm and sum are convolutions of 1 x 1, which ONNX
Runtime computes faster than products in float32, and much faster in int8.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mobilesam_core.models.tiny_vit_blocks import TinyViTBlock, WindowAttention


class DeployedBlock(nn.Module):
    """A block of TinyViT, in evaluation: ``(B, H, W, C)`` to the same shape.

    Shares the weights of ``block``, but for those of its queries, keys and values, which are copied.
    """

    def __init__(self, block: TinyViTBlock) -> None:
        super().__init__()
        self.attention = block.attn
        self.local_conv: nn.Module = block.local_conv
        self.norm: nn.Module = block.mlp.norm
        self.activation: nn.Module = block.mlp.act
        self.window = block.window
        self.query, self.key, self.value = _queries_keys_values(self.attention)
        self.widen, self.narrow = _as_convolution(block.mlp.fc1), _as_convolution(block.mlp.fc2)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._attend(x)
        x = self.local_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        hidden = self.activation(self.widen(self.norm(x).permute(0, 3, 1, 2)))
        summed: Tensor = x + self.narrow(hidden).permute(0, 2, 3, 1)
        return summed

    def _attend(self, x: Tensor) -> Tensor:
        attention, side = self.attention, self.window
        (batch, height, width, channels), heads = x.shape, attention.num_heads
        below, right = -height % side, -width % side
        rows, columns = (height + below) // side, (width + right) // side
        if below or right:
            x = F.pad(x, (0, 0, 0, right, 0, below))  # before the norm: others attend to what it makes of zeros
        x = attention.norm(x)

        def windows(linear: nn.Linear) -> Tensor:
            cut = linear(x).view(batch * rows, side, columns, side, heads, -1).permute(0, 2, 4, 1, 3, 5)
            return cut.reshape(batch * rows * columns, heads, side * side, -1)

        scores = windows(self.query) @ windows(self.key).transpose(-2, -1)
        scores = scores + attention.biases()
        attended = scores.softmax(dim=-1) @ windows(self.value)
        attended = attended.view(batch * rows, columns, heads, side, side, -1).permute(0, 3, 1, 4, 2, 5)
        whole = attended.reshape(batch, rows * side, columns * side, channels)
        projected: Tensor = attention.proj(whole[:, :height, :width])
        return projected


@contextmanager
def deployed(part: nn.Module) -> Iterator[None]:
    """Within it, every block of TinyViT in ``part`` is a :class:`DeployedBlock`."""
    places: list[tuple[Any, str, TinyViTBlock]] = [
        (parent, name, child)
        for parent in part.modules()
        for name, child in parent.named_children()
        if isinstance(child, TinyViTBlock)
    ]
    for parent, name, block in places:
        parent._modules[name] = DeployedBlock(block)
    try:
        yield
    finally:
        for parent, name, block in places:
            parent._modules[name] = block


def _queries_keys_values(attention: WindowAttention) -> list[nn.Linear]:
    """The three layers that one holds, whose rows are ordered by head; the first with the scale of the scores."""
    heads, channels = attention.num_heads, attention.qkv.in_features
    weight = attention.qkv.weight.detach().view(heads, 3, -1, channels)
    bias = attention.qkv.bias.detach().view(heads, 3, -1)
    layers = []
    for place, scale in enumerate((attention.scale, 1.0, 1.0)):
        layer = nn.Linear(channels, channels, device="meta")
        layer.weight = nn.Parameter(scale * weight[:, place].reshape(-1, channels), requires_grad=False)
        layer.bias = nn.Parameter(scale * bias[:, place].reshape(-1), requires_grad=False)
        layers.append(layer)
    return layers


def _as_convolution(linear: nn.Linear) -> nn.Conv2d:
    convolution = nn.Conv2d(linear.in_features, linear.out_features, 1, device="meta")
    convolution.weight = nn.Parameter(linear.weight.detach()[:, :, None, None], requires_grad=False)
    convolution.bias = nn.Parameter(linear.bias.detach(), requires_grad=False)
    return convolution
