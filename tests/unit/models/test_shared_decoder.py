from __future__ import annotations

import pytest
import torch

from mobilesam_core.config.model import ModelConfig
from mobilesam_core.models.attention import attention_weights
from mobilesam_core.models.registry import build_sam
from mobilesam_core.models.shared_decoder import decode_shared
from mobilesam_core.prompts.tensors import PromptTensors
from mobilesam_core.prompts.types import ABSENT, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, PAD


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("with_masks", [False, True])
def test_gradients_are_those_of_plain_projections(
    training: bool, with_masks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short prompts, an image without any, and the way training goes, against the decoder in evaluation mode."""
    torch.manual_seed(0)
    model = build_sam(ModelConfig(name="vit_nano", image_size=64)).eval()
    for parameter in model.mask_decoder.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    points = torch.rand(4, 3, 2) * 64
    labels = torch.tensor([[1, 0, PAD], [1, PAD, ABSENT], [BOX_TOP_LEFT, BOX_BOTTOM_RIGHT, ABSENT], [1, 1, PAD]])
    masks = (torch.randn(4, 1, 16, 16), torch.tensor([True, False, True, True])) if with_masks else (None, None)
    prompts, index = PromptTensors(points, labels, *masks), torch.tensor([0, 0, 2, 2])
    start = torch.randn(3, 128, 4, 4)
    found = []
    for shared in (False, True):
        embeddings = start.clone().requires_grad_()
        model.zero_grad()
        model.mask_decoder.train(training and shared)
        if shared:
            output = decode_shared(model, embeddings, index, [2, 0, 2], prompts)
        else:
            output = model.decode(embeddings, index, prompts)
        (output.low_res_logits.sin().sum() + output.iou_predictions.sum() + output.tokens.cos().sum()).backward()
        assert embeddings.grad is not None
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        found.append((*output, embeddings.grad, gradients))
    for plain, shared in zip(found[0][:4], found[1][:4], strict=True):
        torch.testing.assert_close(shared, plain, atol=2e-5, rtol=1e-4)
    plain_gradients, gradients = found[0][4], found[1][4]
    unseen = {name for name in plain_gradients if name.endswith("k_proj.bias")}  # no softmax over places sees it
    assert plain_gradients.keys() - unseen <= gradients.keys() and len(gradients) > 60
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, plain_gradients[name], atol=2e-4, rtol=1e-3, msg=name)


def test_attention_has_no_weights_below_the_normal_range() -> None:
    with torch.no_grad():
        check_weights()
    check_weights()  # with gradients, not in place


def check_weights() -> None:
    scores = torch.tensor([[[0.0, -20.0, -60.0, -95.0]]])
    assert 0 < float(scores.softmax(dim=2)[..., -1]) < torch.finfo(torch.float32).tiny
    weights = attention_weights(scores.clone())
    assert weights[0, 0, 2:].tolist() == [0.0, 0.0]
    torch.testing.assert_close(weights, scores.softmax(dim=2), atol=1e-20, rtol=0)
