"""What TinyViT is made of (Wu et al., "TinyViT", 2022, arXiv 2207.10666).

Its parts are named as timm names them. They are not taken from there since to import timm takes as long as to import
torch, and every command would wait for it.

Letters of shapes: B images, windows or both, C channels, T tokens of a window, h heads of width d.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvNorm(nn.Sequential):
    """A convolution without bias, and BatchNorm; by default it keeps height and width."""

    def __init__(self, in_dim: int, out_dim: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_dim, out_dim, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_dim)


class PatchEmbed(nn.Module):
    """Two convolutions: images ``(B, C, H, W)`` to features of a quarter of their sides."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_dim, out_dim // 2, 3, stride=2)
        self.act = nn.GELU()
        self.conv2 = ConvNorm(out_dim // 2, out_dim, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        embedded: Tensor = self.conv2(self.act(self.conv1(x)))
        return embedded


class MBConv(nn.Module):
    """Wider by a 1 x 1, each channel for itself by a 3 x 3, narrow again by a 1 x 1; a residual around them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = 4 * dim
        self.conv1 = ConvNorm(dim, hidden, 1)
        self.act1 = nn.GELU()
        self.conv2 = ConvNorm(hidden, hidden, 3, groups=hidden)
        self.act2 = nn.GELU()
        self.conv3 = ConvNorm(hidden, dim, 1)
        self.act3 = nn.GELU()
        # The block begins as its residual alone.
        nn.init.zeros_(self.conv3.bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        changed = self.conv3(self.act2(self.conv2(self.act1(self.conv1(x)))))
        merged: Tensor = self.act3(x + changed)
        return merged


class PatchMerging(nn.Module):
    """Between two stages: other channels, and height and width divided by ``stride``."""

    def __init__(self, in_dim: int, out_dim: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_dim, out_dim, 1)
        self.act1 = nn.GELU()
        self.conv2 = ConvNorm(out_dim, out_dim, 3, stride, groups=out_dim)
        self.act2 = nn.GELU()
        self.conv3 = ConvNorm(out_dim, out_dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        merged: Tensor = self.conv3(self.act2(self.conv2(self.act1(self.conv1(x)))))
        return merged


class WindowAttention(nn.Module):
    """Multi-head attention among the ``window²`` tokens of a window, which come row by row.

    A bias is learnt for each head and distance, ``(|dy|, |dx|)``.
    """

    attention_bias_idxs: Tensor

    def __init__(self, dim: int, num_heads: int, window: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = _linear(dim, 3 * dim)
        self.proj = _linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(num_heads, window * window))
        steps = torch.arange(window)
        apart = (steps[:, None] - steps).abs()
        rows, columns = apart[:, None, :, None], apart[None, :, None, :]
        indices = (window * rows + columns).reshape(window * window, window * window)
        self.register_buffer("attention_bias_idxs", indices, persistent=False)

    @property
    def scale(self) -> float:
        """What scores are multiplied with."""
        return float((self.qkv.in_features // self.num_heads) ** -0.5)

    def biases(self) -> Tensor:
        """What is added to scores, ``(h, T, T)``."""
        table: Tensor = self.attention_biases
        if torch.is_autocast_enabled(table.device.type):
            # Else the sum with the scores, and all that follows, would be promoted to float32.
            table = table.to(torch.get_autocast_dtype(table.device.type))
        return table[:, self.attention_bias_idxs]

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, C)`` to the same shape."""
        q, k, v = self.qkv(self.norm(x)).unflatten(2, (self.num_heads, 3, -1)).permute(3, 0, 2, 1, 4)
        if x.device.type == "cpu" and torch.is_grad_enabled():
            # A bias that learns keeps torch from its fused kernel on a CPU; what it takes instead needs, there and
            # back, 2.7 times as long as plain products and a softmax in bfloat16, and 1.2 times in float32.
            attended = (q * self.scale @ k.mT + self.biases()).softmax(dim=3) @ v
        else:
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=self.biases())
        projected: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return projected


class NormMlp(nn.Module):
    """LayerNorm and two layers with a GELU between, over the last dimension."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = _linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = _linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.act(self.fc1(self.norm(x))))
        return out


class TinyViTBlock(nn.Module):
    """Attention within windows, a convolution of each channel across them, and an MLP.

    A window at the lower or right edge that reaches beyond the image is filled up with zeros, which the others attend
    to.
    """

    def __init__(self, dim: int, num_heads: int, window: int, mlp_ratio: float) -> None:
        super().__init__()
        self.window = window
        self.attn = WindowAttention(dim, num_heads, window)
        self.local_conv = ConvNorm(dim, dim, 3, groups=dim)
        self.mlp = NormMlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, H, W, C)`` to the same shape."""
        x = x + self._attend(x)
        x = self.local_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        out: Tensor = x + self.mlp(x)
        return out

    def _attend(self, x: Tensor) -> Tensor:
        (height, width), side = x.shape[1:3], self.window
        if (height, width) == (side, side):
            whole: Tensor = self.attn(x.flatten(1, 2)).view_as(x)
            return whole
        below, right = -height % side, -width % side
        if below or right:
            x = F.pad(x, (0, 0, 0, right, 0, below))
        windows = x.unflatten(2, (-1, side)).unflatten(1, (-1, side)).transpose(2, 3)
        attended = self.attn(windows.flatten(0, 2).flatten(1, 2))
        back = attended.view(windows.shape).transpose(2, 3).reshape(x.shape)
        return back[:, :height, :width]


class ConvStage(nn.Module):
    """The first stage, of convolutions."""

    def __init__(self, dim: int, depth: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(MBConv(dim) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(x)
        return out


class WindowStage(nn.Module):
    """A later stage: ``(B, C, H, W)`` merged by ``stride``, then blocks that attend."""

    def __init__(
        self, in_dim: int, dim: int, depth: int, num_heads: int, window: int, mlp_ratio: float, stride: int
    ) -> None:
        super().__init__()
        self.downsample = PatchMerging(in_dim, dim, stride)
        self.blocks = nn.Sequential(*(TinyViTBlock(dim, num_heads, window, mlp_ratio) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(self.downsample(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out


def _linear(in_dim: int, out_dim: int) -> nn.Linear:
    linear = nn.Linear(in_dim, out_dim)
    nn.init.trunc_normal_(linear.weight, std=0.02)
    nn.init.zeros_(linear.bias)
    return linear
