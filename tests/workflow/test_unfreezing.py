"""Parts that begin to learn later."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mobilesam_core.errors import ConfigError, Interrupted, UsageError
from mobilesam_core.training.workflow import train

from .conftest import MakeConfig
from .test_training import Listener, interrupt_after, lines

LATER = ("train.freeze.image_encoder=true", "train.unfreeze.image_encoder=2", "train.log_every=1")


def moved(before: Path, after: Path) -> set[str]:
    old, new = load_file(before), load_file(after)
    return {name for name in old if not torch.equal(old[name], new[name])}


def test_a_part_learns_from_its_epoch_on_batch_norm_included(make_config: MakeConfig, start_weights: Path) -> None:
    listener = Listener()
    result = train(
        make_config(f"model.checkpoint={start_weights}", *LATER, "train.batch_norm=train", "train.checkpoint_every=3"),
        reporter=listener,
    )
    first = result.folder / "step_000003.safetensors"  # the end of epoch 1
    assert {name.split(".")[0] for name in moved(start_weights, first)} == {"prompt_encoder", "mask_decoder"}
    changed = {name for name in moved(first, result.last) if name.startswith("image_encoder")}
    weights = {n for n in load_file(first) if n.startswith("image_encoder")}
    assert changed == weights, "all of its weights and statistics move"
    assert any("image encoder learns from epoch 2 on" in said for said in listener.said)


def test_the_schedule_and_the_first_epoch_are_those_of_a_frozen_run(make_config: MakeConfig) -> None:
    frozen = train(make_config(*LATER, "train.run=frozen", "train.unfreeze.image_encoder=null"))
    later = train(make_config(*LATER, "train.run=later"))
    records = [lines(result.folder / "metrics.jsonl", "train") for result in (frozen, later)]
    assert [r["lr"] for r in records[0]] == [r["lr"] for r in records[1]]
    losses = [[r["total"] for r in record] for record in records]
    assert losses[0][:3] == losses[1][:3] and losses[0][4] != losses[1][4]


@pytest.mark.parametrize("stop_at", [3, 4])
def test_a_run_interrupted_around_that_epoch_ends_like_an_uninterrupted_one(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    settings = (*LATER, "train.ema=0.9")
    whole = train(make_config("train.run=whole", *settings))
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match=f"step {stop_at}"):
        interrupt_after(patch, stop_at)
        train(make_config("train.run=parts", *settings))
    parts = train(make_config("train.run=parts", *settings), resume=True)
    assert not moved(whole.last, parts.last)
    assert parts.metrics == whole.metrics


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("train.unfreeze.mask_decoder=2", "freeze.mask_decoder is false: it learns from the start"),
        ("train.unfreeze.image_encoder=3", "is epoch 3, and the run ends with epoch 2"),
        ("train.unfreeze.image_encoder=1", "train.unfreeze.image_encoder: input should be greater than or equal to 2"),
    ],
)
def test_what_cannot_be_unfrozen_is_one_sentence(make_config: MakeConfig, override: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config("train.freeze.image_encoder=true", override)
    assert part in str(caught.value) and "one problem" in str(caught.value)


def test_a_run_that_ends_before_is_refused(make_config: MakeConfig) -> None:
    with pytest.raises(UsageError, match=r"is epoch 2, but train\.max_steps ends the run in epoch 1"):
        train(make_config(*LATER, "train.max_steps=3"))


def test_checkpointed_gradients_train_the_same_weights(make_config: MakeConfig) -> None:
    settings = ("train.batch_norm=train", "train.epochs=1")
    plain = train(make_config("train.run=plain", *settings))
    saving = train(make_config("train.run=saving", *settings, "train.gradient_checkpointing=true"))
    assert not moved(plain.last, saving.last)
