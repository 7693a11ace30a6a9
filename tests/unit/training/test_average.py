from __future__ import annotations

import torch

from mobilesam_core.config.model import ModelConfig
from mobilesam_core.models.registry import build_sam
from mobilesam_core.training.average import build_average


def test_the_average_follows_its_definition_buffers_included() -> None:
    model = build_sam(ModelConfig(name="vit_nano", checkpoint=None, image_size=64))
    average = build_average(model, decay=0.3)
    watched = dict(model.state_dict())
    weight, statistics = "mask_decoder.iou_token.weight", "image_encoder.patch_embed.conv1.bn.running_mean"
    counter = "image_encoder.patch_embed.conv1.bn.num_batches_tracked"
    expected: dict[str, torch.Tensor] = {}
    for n in range(4):
        for name in (weight, statistics):
            watched[name].copy_(torch.randn_like(watched[name]))
            kept = min(0.3, (1 + n) / (10 + n)) if n else 0.0  # the first step is taken over whole
            expected[name] = kept * expected.get(name, 0) + (1 - kept) * watched[name]
        watched[counter].add_(5)
        average.update_parameters(model)

    averaged = average.module.state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(averaged[name], value)
    assert averaged[counter].item() == watched[counter].item()
    assert not any(p.requires_grad for p in average.parameters())
