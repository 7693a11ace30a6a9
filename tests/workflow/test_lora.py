"""Training adapters: what learns, what is written, and that a run goes on as if never stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from mobilesam_core.checkpoints.loading import load_model, open_checkpoint
from mobilesam_core.config.lora import LoraConfig
from mobilesam_core.config.train import TrainConfig
from mobilesam_core.errors import CheckpointError, ConfigError, Interrupted
from mobilesam_core.training import loop
from mobilesam_core.training.run import Run
from mobilesam_core.training.workflow import train

from .conftest import MakeConfig
from .test_training import interrupt_after

Make = Callable[..., TrainConfig]


@pytest.fixture
def make_lora(make_config: MakeConfig, start_weights: Path) -> Make:
    """A run with adapters from weights; not measured before, to save time."""

    def make(*overrides: str) -> TrainConfig:
        return make_config(
            f"model.checkpoint={start_weights}", "lora.rank=4", "optim.lr=1e-2", "train.validation.before=false",
            *overrides,
        )  # fmt: skip

    return make


def test_only_adapted_layers_move_and_the_result_is_plain_weights(make_lora: Make, start_weights: Path) -> None:
    result = train(make_lora())
    before, after = load_file(start_weights), load_file(result.best)
    assert before.keys() == after.keys(), "any other command, or tool, can read it"
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all(name.endswith(".weight") for name in moved)
    words = ("qkv", ".proj", "_proj", ".mlp.")
    assert moved == {n for n in before if n.endswith(".weight") and before[n].ndim == 2 and any(w in n for w in words)}
    open_checkpoint(result.best)


def test_the_adapter_alone_gives_the_same_on_its_base_and_is_refused_on_another(
    make_lora: Make, start_weights: Path
) -> None:
    config = make_lora("lora.full=[mask_decoder]")
    result = train(config)
    adapter = result.folder / "last.lora.safetensors"
    assert (result.folder / "best.lora.safetensors").is_file()
    loaded = load_model(config.model.model_copy(update={"adapter": str(adapter)})).state_dict()
    merged = open_checkpoint(result.last).model.state_dict()
    assert all(torch.allclose(value, loaded[name], rtol=0, atol=1e-6) for name, value in merged.items())
    with safe_open(adapter, "pt") as file:
        metadata = file.metadata()
    assert LoraConfig.model_validate_json(metadata["lora"]).full == ["mask_decoder"] and metadata["step"] == "6"
    assert str(start_weights.parent) not in json.dumps(metadata), "folders of this machine travel with the adapter"
    with pytest.raises(CheckpointError, match="trained on other weights"):
        load_model(config.model.model_copy(update={"adapter": str(adapter), "checkpoint": str(result.last)}))


def test_a_run_can_start_from_an_adapter(make_lora: Make, make_config: MakeConfig, start_weights: Path) -> None:
    first = train(make_lora())
    start = (f"model.checkpoint={start_weights}", f"model.adapter={first.folder / 'last.lora.safetensors'}")
    second = train(make_config(*start, "train.run=second", "train.epochs=1"))
    assert second.before["loss"] == pytest.approx(first.metrics["loss"], rel=1e-4)
    with safe_open(second.last, "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["model"])["adapter"] is None and "lora.safetensors" not in json.dumps(metadata)


def test_an_interrupted_run_ends_like_an_uninterrupted_one(make_lora: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ("train.ema=0.9", "lora.full=[prompt_encoder]")
    whole = train(make_lora("train.run=whole", *settings))
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="step 2"):
        interrupt_after(patch, 2)
        train(make_lora("train.run=parts", *settings))
    parts = train(make_lora("train.run=parts", *settings), resume=True)
    for name in ("last.safetensors", "last.lora.safetensors", "best.safetensors"):
        expected, got = load_file(whole.folder / name), load_file(parts.folder / name)
        assert expected.keys() == got.keys()
        assert all(torch.equal(value, got[key]) for key, value in expected.items()), name
    assert parts.metrics == whole.metrics


def test_what_is_validated_is_what_is_saved(make_lora: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mixed precision and the average included: adapters are merged in float32, from the average of each matrix."""
    seen = []
    real = loop.validate

    def validate(run: Run, *rest: object) -> object:
        result = real(run, *rest)  # type: ignore[arg-type]
        seen.append({name: value.clone() for name, value in run.result.state_dict().items()})
        assert not any(name.endswith(("lora_a", "lora_b")) for name in seen[-1])
        return result

    monkeypatch.setattr(loop, "validate", validate)
    result = train(make_lora("train.ema=0.5", "train.precision=bf16", "train.epochs=1"))
    saved = open_checkpoint(result.last).model.state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in seen[-1].items())


def test_frozen_parts_get_no_adapters_until_they_begin_to_learn(make_lora: Make, start_weights: Path) -> None:
    freeze = ("train.freeze.image_encoder=true", "train.checkpoint_every=3")
    never = train(make_lora("train.run=never", *freeze))
    later = train(make_lora("train.run=later", *freeze, "train.unfreeze.image_encoder=2"))
    before = load_file(start_weights)
    key = "image_encoder.layers.1.blocks.0.attn.qkv.weight"
    assert torch.equal(load_file(never.last)[key], before[key])
    assert torch.equal(load_file(later.folder / "step_000003.safetensors")[key], before[key])
    assert not torch.equal(load_file(later.last)[key], before[key])
    assert "image_encoder" not in str(load_file(never.folder / "last.lora.safetensors").keys())


def test_a_student_can_learn_by_adapters(make_lora: Make, start_weights: Path) -> None:
    teacher = f"{{checkpoint: {start_weights}, features: [{{teacher: neck, student: neck, loss: mse}}]}}"
    result = train(make_lora(f"distill={{teachers: [{teacher}], ground_truth: 1.0}}", "train.epochs=1"))
    assert (result.folder / "last.lora.safetensors").is_file()


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["model.checkpoint=null"], "lora adapts weights that have learnt"),
        (["model.adapter=a.safetensors"], "lora cannot start from model.adapter"),
        (["model.adapter=a.safetensors", "model.checkpoint=null", "lora=null"], "adapter belongs to weights"),
        (["train.batch_norm=train"], "train.batch_norm cannot be 'train'"),
        (["lora.full=[mask_decoder]", "train.freeze.mask_decoder=true"], "lora.full and train.freeze both name"),
        (["lora.targets=[]"], "lora.targets: "),
    ],
)
def test_configs_that_contradict_themselves(make_lora: Make, overrides: list[str], part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_lora(*overrides)
    assert part in str(caught.value) and "one problem" in str(caught.value)


def test_a_target_that_names_nothing_stops_the_run_before_it_starts(make_lora: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="names no linear layer"):
        train(make_lora("lora.targets=['*.query']"))
    assert not list(tmp_path.rglob("state.pt"))
