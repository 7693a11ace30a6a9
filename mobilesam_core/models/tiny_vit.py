"""MobileSAM's image encoder: TinyViT with a stride of 16.

Wu et al., "TinyViT", 2022 (arXiv 2207.10666); Zhang et al., "Faster Segment Anything", 2023
(arXiv 2306.14289, github.com/ChaoningZhang/MobileSAM).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mobilesam_core.models.encoder import EncoderSpec, ImageEncoder, build_neck
from mobilesam_core.models.recompute import RecomputedBlocks
from mobilesam_core.models.tiny_vit_blocks import ConvStage, PatchEmbed, WindowStage

_STRIDES = (2, 2, 1)
"""Of the stages after the first. TinyViT itself goes on to a stride of 32."""


class TinyViTEncoder(ImageEncoder):
    """Four stages, the first of convolutions, the others of windowed attention."""

    def __init__(self, spec: EncoderSpec, out_channels: int, img_size: int, out_indices: Sequence[int] = ()) -> None:
        super().__init__(img_size, out_indices, num_layers=sum(spec.depths) + 2)
        dims, depths = spec.embed_dims, spec.depths
        self.patch_embed: nn.Module = PatchEmbed(spec.input_channels, dims[0])
        self.stages = nn.Sequential(ConvStage(dims[0], depths[0]))
        for stage, stride in enumerate(_STRIDES, 1):
            heads, window = spec.num_heads[stage], spec.window_sizes[stage]
            self.stages.append(
                WindowStage(dims[stage - 1], dims[stage], depths[stage], heads, window, spec.mlp_ratio, stride)
            )
        self.neck = build_neck(dims[-1], out_channels)
        self._first_layer = [1 + sum(depths[:stage]) for stage in range(len(depths))]
        if spec.classes:
            # TinyViT's classifier, never run: kept so that our files hold every key other tools expect.
            self.norm_head = nn.LayerNorm(dims[-1]).requires_grad_(False)
            self.head = nn.Linear(dims[-1], spec.classes).requires_grad_(False)

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
