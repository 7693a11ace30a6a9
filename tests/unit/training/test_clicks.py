from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from mobilesam_core.config.loss import LossConfig
from mobilesam_core.config.model import ModelConfig
from mobilesam_core.config.prompts import PromptConfig
from mobilesam_core.data.batch import Batch
from mobilesam_core.losses.total import SegLoss
from mobilesam_core.models.mask_decoder import DecoderOutput
from mobilesam_core.models.registry import build_sam
from mobilesam_core.models.shared_decoder import decode_shared
from mobilesam_core.prediction.answers import select_masks
from mobilesam_core.prompts.tensors import PromptTensors, prompt_tensors
from mobilesam_core.prompts.types import ABSENT, NEGATIVE, POSITIVE, Prompt
from mobilesam_core.training.clicks import answers, corrected, on_grid
from mobilesam_core.training.step import TrainingStep

PROMPTS = [
    Prompt.from_points([[20.0, 20.0]]),
    Prompt.from_points([[20.0, 20.0], [3.0, 4.0]], [1, 0]),
    Prompt.from_box([4.0, 4.0, 40.0, 40.0]),
]


def test_clicks_are_drawn_from_all_that_is_wrong_and_from_nothing_else() -> None:
    torch.manual_seed(0)
    masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    wanted = masks.clone()
    wanted[0, 1, 1:4] = True  # missing
    masks[0, 5, 2] = True  # too much
    masks[0, 7, 7] = True  # in the padding
    prompts = prompt_tensors(PROMPTS[:1])
    seen: dict[tuple[float, ...], int] = {}
    for _ in range(200):
        more = corrected(prompts, masks, wanted, torch.tensor([[56, 64]]), 64, "uniform")
        place = (*more.points[0, -1].tolist(), more.labels[0, -1].item())
        seen[place] = seen.get(place, 0) + 1
    at = [(8 * x + 3.5, 8 * y + 3.5, label) for x, y, label in ((1, 1, 1), (2, 1, 1), (3, 1, 1), (2, 5, 0))]
    assert sorted(seen) == sorted(at) and min(seen.values()) > 25
    assert corrected(prompts, wanted, wanted, torch.tensor([[64, 64]]), 64, "uniform").labels[0, -1] == ABSENT


def test_the_answer_is_the_one_a_user_gets() -> None:
    generator = torch.Generator().manual_seed(1)
    decoded = DecoderOutput(
        torch.rand(3, 4, 2, 2, generator=generator), torch.rand(3, 4, generator=generator), torch.zeros(3, 7, 1)
    )
    expected = select_masks(decoded.iou_predictions.numpy(), PROMPTS)
    found = answers(decoded, prompt_tensors(PROMPTS).labels)
    assert torch.equal(found, decoded.low_res_logits[torch.arange(3), torch.from_numpy(expected)])


def test_targets_come_to_other_grids() -> None:
    target = torch.zeros(1, 8, 8)
    target[0, :4, :4] = 1
    assert on_grid(target, 4).nonzero().tolist() == [[0, y, x] for y in (0, 1) for x in (0, 1)]
    assert on_grid(target, 16).sum() == 64


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(5)
    targets = torch.zeros(3, 16, 16)
    targets[:, 3:9, 4:10] = 1
    return Batch(
        images=torch.randint(0, 256, (2, 3, 64, 64), generator=generator, dtype=torch.uint8),
        sizes=torch.tensor([[64, 64], [48, 64]]),
        image_index=torch.tensor([0, 0, 1]),
        counts=[2, 1],
        prompts=prompt_tensors(PROMPTS),
        targets=targets,
        sources=["a", "b"],
    )


@pytest.mark.parametrize("mode", ["uniform", "center"])
def test_rounds_show_the_mask_so_far_and_correct_it(mode: str, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = build_sam(ModelConfig(name="vit_nano", checkpoint=None, image_size=64)).train()
    asked: list[tuple[PromptTensors, DecoderOutput]] = []
    decode = decode_shared

    def remember(*given: Any) -> DecoderOutput:
        asked.append((given[-1], decode(*given)))
        return asked[-1][1]

    monkeypatch.setattr("mobilesam_core.training.step.decode_shared", remember)
    config = PromptConfig(rounds=2, rounds_without_click=1, click_mode=mode)  # type: ignore[arg-type]
    losses = TrainingStep(model, SegLoss(LossConfig()), config)(batch)
    losses["total"].backward()
    assert model.image_encoder.neck[0].weight.grad.abs().sum() > 0  # type: ignore[union-attr]
    mask_branch = model.prompt_encoder.mask_downscaling[0].weight.grad
    assert mask_branch is not None and mask_branch.abs().sum() > 0
    assert [prompts.labels.shape[1] for prompts, _ in asked] == [3, 4, 5, 5]
    for (before, decoded), (now, _) in pairwise(asked[:3]):
        shown = answers(decoded, before.labels)
        assert now.masks is not None and torch.equal(now.masks[:, 0], shown) and not now.masks.requires_grad
        for i in range(3):
            if (label := now.labels[i, -1].item()) == ABSENT:
                continue
            x, y = ((now.points[i, -1] + 0.5) / 4 - 0.5).round().long().tolist()
            wanted = bool(batch.targets[i, y, x] >= 0.5)
            assert label == (POSITIVE if wanted else NEGATIVE) and bool(shown[i, y, x] > 0) != wanted
    assert {"iou", "iou_corrected"} <= losses.keys()


def test_without_rounds_nothing_changes(batch: Batch) -> None:
    torch.manual_seed(0)
    model = build_sam(ModelConfig(name="vit_nano", checkpoint=None, image_size=64)).eval()
    loss = SegLoss(LossConfig())
    plain = TrainingStep(model, loss, PromptConfig())(batch)
    with torch.no_grad():
        decoded = model.decode(
            model.encode(model.preprocess(batch.images, batch.sizes)), batch.image_index, batch.prompts
        )
    expected = loss(decoded.low_res_logits, decoded.iou_predictions, batch.targets)
    assert plain["total"].item() == pytest.approx(expected.total.item(), rel=1e-6) and "iou_corrected" not in plain
    rounds = TrainingStep(model, loss, PromptConfig(rounds=1, mask_prompt=0.0))(batch)
    assert np.isfinite(rounds["total"].item()) and rounds["iou"].item() == plain["iou"].item()
