"""SAM's own image encoders, ViT-B, -L and -H.

Kirillov et al., "Segment Anything", 2023 (arXiv 2304.02643); Li et al., "Exploring Plain Vision Transformer
Backbones for Object Detection", 2022 (arXiv 2203.16527). The blocks are timm's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from timm.layers import resample_abs_pos_embed_nhwc
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn

from mobilesam_core.models.encoder import EncoderSpec, ImageEncoder, build_neck
from mobilesam_core.models.recompute import recomputed
from mobilesam_core.ops.frame import STRIDE

TABLE_SIZE = 1024
"""Position tables are stored for this frame, as in the official files, and interpolated for any other."""


class ViTEncoder(ImageEncoder):
    """A plain ViT of windowed attention; the last block of each quarter attends to the whole image."""

    def __init__(self, spec: EncoderSpec, out_channels: int, img_size: int, out_indices: Sequence[int] = ()) -> None:
        (width,), (depth,), (heads,), (window,) = (
            spec.embed_dims,
            spec.depths,
            spec.num_heads,
            spec.window_sizes,
        )
        super().__init__(img_size, out_indices, num_layers=depth + 2)
        backbone = VisionTransformerSAM(
            img_size=TABLE_SIZE,
            patch_size=STRIDE,
            in_chans=spec.input_channels,
            num_classes=0,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            mlp_ratio=spec.mlp_ratio,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),  # type: ignore[arg-type]
            use_rel_pos=True,
            window_size=window,
            global_attn_indexes=tuple(depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4)),
            neck_chans=0,
        )
        self.patch_embed: nn.Module = backbone.patch_embed
        self.pos_embed: nn.Parameter = backbone.pos_embed
        self.blocks: nn.Sequential = backbone.blocks
        self.neck = build_neck(width, out_channels)
        self._recompute = False

    def forward_intermediates(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = self.patch_embed(x)
        x = x + resample_abs_pos_embed_nhwc(self.pos_embed, list(x.shape[1:3]))
        features = {}
        for i, block in enumerate(self.blocks):
            x = recomputed(block, x) if self._recompute else block(x)
            if i in self.out_indices:
                features[i] = x.permute(0, 3, 1, 2)
        return self.neck(x.permute(0, 3, 1, 2)), [features[i] for i in self.out_indices]

    def recompute_blocks(self) -> None:
        self._recompute = True

    def layer_index(self, parameter_name: str) -> int:
        part, *rest = parameter_name.split(".")
        if part in ("patch_embed", "pos_embed"):
            return 0
        return 1 + int(rest[0]) if part == "blocks" else self.num_layers - 1
