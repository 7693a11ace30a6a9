"""MobileSAM's image encoder: TinyViT with a stride of 16.

Wu et al., "TinyViT", 2022 (arXiv 2207.10666); Zhang et al., "Faster Segment Anything", 2023
(arXiv 2306.14289, github.com/ChaoningZhang/MobileSAM). The blocks are timm's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.models.tiny_vit import Attention, TinyVit
from torch import Tensor, nn

from mobilesam_core.models.encoder import EncoderSpec, ImageEncoder, build_neck
from mobilesam_core.models.recompute import RecomputedBlocks


class WindowAttention(Attention):
    """timm's attention without its cache of the bias table.

    The cache is filled in evaluation mode and survives a change of the parameter (loading weights, an
    optimizer step, an EMA copy); looking the table up is a thousandth of a forward pass.
    """

    def get_attention_biases(self, device: torch.device) -> Tensor:
        indices = self.get_buffer("attention_bias_idxs")
        table: Tensor = self.attention_biases
        if torch.is_autocast_enabled(device.type):
            # Else the sum with the scores, and all that follows, would be promoted to float32.
            table = table.to(torch.get_autocast_dtype(device.type))
        return table[:, indices]

    def forward(self, x: Tensor) -> Tensor:
        # A bias that learns keeps torch from its fused kernel on a CPU; what it takes instead needs, there and
        # back, 2.7 times as long as plain products and a softmax in bfloat16, and 1.2 times in float32.
        self.fused_attn = x.device.type != "cpu" or not torch.is_grad_enabled()  # type: ignore[misc]
        attended: Tensor = super().forward(x)
        return attended


class TinyViTEncoder(ImageEncoder):
    """Four stages, the first of convolutions, the others of windowed attention."""

    def __init__(self, spec: EncoderSpec, out_channels: int, img_size: int, out_indices: Sequence[int] = ()) -> None:
        super().__init__(img_size, out_indices, num_layers=sum(spec.depths) + 2)
        backbone = TinyVit(
            in_chans=spec.input_channels,
            num_classes=0,
            embed_dims=spec.embed_dims,
            depths=spec.depths,
            num_heads=spec.num_heads,
            window_sizes=spec.window_sizes,
            mlp_ratio=spec.mlp_ratio,
            drop_path_rate=0.0,
        )
        # MobileSAM keeps the last stage at stride 16.
        stages: Any = backbone.stages
        stages[3].downsample.conv2.conv.stride = (1, 1)
        for stage, heads, window in zip(stages[1:], spec.num_heads[1:], spec.window_sizes[1:], strict=True):
            for block in stage.blocks:
                block.attn = WindowAttention(
                    block.dim, block.dim // heads, heads, attn_ratio=1, resolution=(window, window)
                )
        self.patch_embed: nn.Module = backbone.patch_embed
        self.stages: nn.Sequential = backbone.stages
        self.neck = build_neck(spec.embed_dims[-1], out_channels)
        self._first_layer = [1 + sum(spec.depths[:stage]) for stage in range(len(spec.depths))]
        if spec.classes:
            # TinyViT's classifier, never run: kept so that our files hold every key other tools expect.
            self.norm_head = nn.LayerNorm(spec.embed_dims[-1]).requires_grad_(False)
            self.head = nn.Linear(spec.embed_dims[-1], spec.classes).requires_grad_(False)

    def forward_intermediates(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = self.patch_embed(x)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return self.neck(x), [features[i] for i in self.out_indices]

    def recompute_blocks(self) -> None:
        for stage in self.stages:
            stage.blocks = RecomputedBlocks(*stage.blocks)  # type: ignore[misc]

    def layer_index(self, parameter_name: str) -> int:
        part, *rest = parameter_name.split(".")
        if part == "patch_embed":
            return 0
        if part == "stages":
            # stages.<stage>.downsample learns with the first block of its stage, stages.<stage>.blocks.0.
            return self._first_layer[int(rest[0])] + (int(rest[2]) if rest[1] == "blocks" else 0)
        return self.num_layers - 1
