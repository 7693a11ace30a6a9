"""The whole of training on small drawn sets: what moves, what is kept, and that a run goes on as if never stopped."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from mobilesam_core.checkpoints.keys import to_official
from mobilesam_core.checkpoints.loading import open_checkpoint
from mobilesam_core.config.train import TrainConfig
from mobilesam_core.errors import CheckpointError, DataError, Interrupted, TrainingError, UsageError
from mobilesam_core.interrupt import StopRequest
from mobilesam_core.progress import NullReporter
from mobilesam_core.training import loop
from mobilesam_core.training.workflow import train

from .conftest import MakeConfig


class Listener(NullReporter):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def info(self, message: str) -> None:
        self.said.append(message)

    warning = info


def lines(path: Path, split: str) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [record for record in records if record["split"] == split]


def interrupt_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Request a stop, as Ctrl-C does, once so many optimizer steps are done."""
    real = loop.optimizer_step

    def step(run: Any, batches: Any) -> Any:
        result = real(run, batches)
        if run.position.step + 1 == steps:
            os.kill(os.getpid(), signal.SIGINT)
        return result

    monkeypatch.setattr(loop, "optimizer_step", step)


def test_a_run_leaves_weights_metrics_config_and_overlays(make_config: MakeConfig) -> None:
    listener = Listener()
    result = train(make_config("train.log_every=1", "train.checkpoint_every=4"), reporter=listener)
    assert result.steps == 6 and result.epochs == 2 and set(result.metrics) >= {"box_miou", "point_miou", "loss"}
    folder = result.folder
    for name in ("best.safetensors", "last.safetensors", "step_000004.safetensors", "config.yaml", "environment.json"):
        assert (folder / name).stat().st_size > 0, name
    assert any("random weights" in said for said in listener.said)
    steps = lines(folder / "metrics.jsonl", "train")
    assert [record["step"] for record in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[-1]["lr"] == pytest.approx(0.0, abs=1e-12)
    assert [record["epoch"] for record in lines(folder / "metrics.jsonl", "val")] == [1, 2]
    picture = np.asarray(Image.open(next((folder / "overlays" / "epoch_002").iterdir())))
    assert picture.shape == (64, 3 * 64 + 2 * 4, 3) and picture.std() > 1
    assert any((folder / "tensorboard").iterdir())
    assert not list(folder.glob(".*")), "temporary files were left"


def test_a_checkpoint_says_what_it_is(make_config: MakeConfig) -> None:
    result = train(make_config())
    with safe_open(result.best, "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["training_config"])["optim"]["lr"] == 1e-3
    assert str(result.best.parents[2]) not in json.dumps(metadata), "folders of this machine travel with the weights"
    assert float(metadata["val_box_miou"]) <= 1
    opened = open_checkpoint(str(result.best))
    assert opened.model.config.name == "vit_nano" and opened.model.image_size == 64


@pytest.mark.parametrize("stop_at", [2, 3, 4])
def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    settings = ("data.train.count=8", "optim.accumulate=2", "train.epochs=3", "train.log_every=1")
    whole = train(make_config("train.run=whole", *settings))
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match=f"step {stop_at}") as caught:
        interrupt_after(patch, stop_at)
        train(make_config("train.run=parts", *settings))
    assert caught.value.exit_code == 130
    parts = train(make_config("train.run=parts", *settings), resume=True)
    expected, got = load_file(whole.last), load_file(parts.last)
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    volatile = {"images_per_s", "objects_per_s", "memory_mb"}
    for split in ("train", "val"):
        first, second = (
            [
                {k: v for k, v in record.items() if k not in volatile}
                for record in lines(r.folder / "metrics.jsonl", split)
            ]
            for r in (whole, parts)
        )
        assert first == second


def test_resume_after_a_crash_drops_the_lines_that_were_never_saved(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config("train.log_every=1", "data.train.count=8", "train.checkpoint_every=3")
    real = loop.optimizer_step

    def crash(run: Any, batches: Any) -> Any:
        if run.position.step == 6:
            raise RuntimeError("power cut")
        return real(run, batches)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(loop, "optimizer_step", crash)
        train(config)
    result = train(config, resume=True)
    assert [record["step"] for record in lines(result.folder / "metrics.jsonl", "train")] == list(range(1, 9))


def test_half_a_line_in_the_log_does_not_hinder_resuming(make_config: MakeConfig) -> None:
    log = train(make_config()).folder / "metrics.jsonl"
    whole = log.read_text()
    log.write_text(whole + '{"split": "train", "st')
    train(make_config(), resume=True)
    assert log.read_text() == whole


def test_resume_refuses_another_number_of_images(make_config: MakeConfig, tmp_path: Path) -> None:
    overrides = [*bad_folder(tmp_path), "data.on_bad_file=skip"]
    train(make_config(*overrides))
    for kind in ("images", "masks"):
        (tmp_path / kind / "a.png").unlink()
    with pytest.raises(UsageError, match="had 2 training images, now there are 1"):
        train(make_config(*overrides), resume=True)


def test_every_epoch_is_logged_however_short(make_config: MakeConfig) -> None:
    result = train(make_config("train.log_every=2"))
    assert [record["step"] for record in lines(result.folder / "metrics.jsonl", "train")] == [2, 3, 5, 6]


def test_resuming_a_finished_run_changes_nothing(make_config: MakeConfig) -> None:
    first = train(make_config())
    before = first.last.read_bytes()
    again = train(make_config(), resume=True)
    assert (again.steps, again.metrics) == (first.steps, first.metrics)
    assert first.last.read_bytes() == before


def test_resume_refuses_another_config_but_not_another_pace(make_config: MakeConfig) -> None:
    train(make_config())
    with pytest.raises(UsageError, match=r"optim\.lr: 0\.001 → 0\.5"):
        train(make_config("optim.lr=0.5"), resume=True)
    train(make_config("data.workers=1", "train.log_every=2", "train.gradient_checkpointing=true"), resume=True)


def test_resume_without_a_run_and_from_a_foreign_file(make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing to resume"):
        train(make_config(), resume=True)
    folder = tmp_path / "mobilesam" / "run"
    (folder / "state.pt").write_bytes(b"not a state")
    with pytest.raises(CheckpointError, match="is not the state of a run"):
        train(make_config(), resume=True)


def test_a_taken_name_is_refused_or_numbered(make_config: MakeConfig) -> None:
    first = train(make_config("train.epochs=1"))
    with pytest.raises(UsageError, match="already holds a run"):
        train(make_config("train.epochs=1"))
    second = train(make_config("train.epochs=1", "train.on_taken=number"))
    third = train(make_config("train.epochs=1", "train.on_taken=number"))
    assert [r.folder.name for r in (first, second, third)] == ["run", "run-2", "run-3"]


def weights_before_and_after(config: TrainConfig) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    from mobilesam_core.training.setup import build_model, resolve

    before = {
        k: v.clone()
        for k, v in build_model(resolve(config), [], torch.device("cpu"), NullReporter()).state_dict().items()
    }
    result = train(config)
    return before, dict(open_checkpoint(str(result.last)).model.state_dict())


@pytest.mark.parametrize("part", ["image_encoder", "prompt_encoder", "mask_decoder"])
def test_a_frozen_part_does_not_move_not_even_its_batch_norm(make_config: MakeConfig, part: str) -> None:
    before, after = weights_before_and_after(make_config(f"train.freeze.{part}=true", "train.epochs=1"))
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"image_encoder", "prompt_encoder", "mask_decoder"} - {part}


@pytest.mark.parametrize(("mode", "moves"), [("frozen", False), ("train", True)])
def test_batch_norm_statistics_move_only_when_asked(make_config: MakeConfig, mode: str, moves: bool) -> None:
    before, after = weights_before_and_after(make_config(f"train.batch_norm={mode}", "train.epochs=1"))
    statistics = [name for name in before if name.endswith("running_mean")]
    assert statistics and all(torch.equal(before[n], after[n]) != moves for n in statistics)


def test_batch_norm_is_frozen_by_default_when_starting_from_weights(make_config: MakeConfig) -> None:
    first = train(make_config("train.epochs=1"))
    config = make_config("train.epochs=1", "train.run=next", f"model.checkpoint={first.last}")
    before, after = weights_before_and_after(config)
    statistics = [name for name in before if name.endswith("running_mean")]
    assert all(torch.equal(before[n], after[n]) for n in statistics)
    weights = [name for name in before if name.startswith("image_encoder") and name.endswith("weight")]
    assert any(not torch.equal(before[n], after[n]) for n in weights)


def test_accumulated_batches_equal_one_larger_batch(make_config: MakeConfig) -> None:
    """With as many objects in each image, no BatchNorm in the way, and plain sums."""
    settings = (
        "data.max_objects=1", "data.train.count=4", "train.epochs=1", "train.batch_norm=frozen", "optim.warmup_steps=0",
    )  # fmt: skip
    _, one = weights_before_and_after(make_config(*settings, "optim.batch_size=4", "train.run=one"))
    _, two = weights_before_and_after(
        make_config(*settings, "optim.batch_size=2", "optim.accumulate=2", "train.run=two")
    )
    # AdamW's first step has the size of the learning rate, whatever the gradient: compare signs by the distance.
    moved = [(one[name] - two[name]).abs().mean().item() for name in one if one[name].is_floating_point()]
    assert max(moved) < 1e-4


def test_a_loss_that_is_not_finite_stops_and_names_its_images(make_config: MakeConfig) -> None:
    config = make_config("optim.lr=1e30", "optim.warmup_steps=0", "optim.clip_norm=null", "train.epochs=3")
    with pytest.raises(TrainingError, match=r"not finite at step \d+ .*images were: .*\d"):
        train(config)


def test_without_a_validation_set_best_is_the_last(make_config: MakeConfig) -> None:
    listener = Listener()
    result = train(make_config("data.val=null"), reporter=listener)
    best, last = load_file(result.best), load_file(result.last)
    assert all(torch.equal(best[name], last[name]) for name in last)
    assert any("No validation set" in said for said in listener.said)


def test_early_stop_counts_validations_without_improvement(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mobilesam_core.training.validation import Validation

    scores = iter([0.5, 0.4, 0.6, 0.1, 0.2, 0.9])
    values = dict.fromkeys(("loss", "box_miou", "point_miou", "box_dice", "point_dice", "fill_box_miou"), 0.0)
    monkeypatch.setattr(loop, "validate", lambda *_: Validation(values, next(scores)))
    config = make_config("train.epochs=6", "train.early_stop=2", "train.max_steps=null")
    result = train(config)
    assert (result.epochs, result.best_epoch) == (5, 3)
    assert train(config, resume=True).epochs == 5, "a stopped run must stay stopped"


def test_max_steps_ends_inside_an_epoch_with_the_end_rate(make_config: MakeConfig) -> None:
    config = make_config("train.max_steps=4", "train.epochs=10", "train.log_every=1", "optim.end_lr=1e-5")
    result = train(config)
    assert (result.steps, result.epochs) == (4, 2)
    assert lines(result.folder / "metrics.jsonl", "train")[-1]["lr"] == pytest.approx(1e-5)


def bad_folder(tmp_path: Path) -> list[str]:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c", "d"):
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(tmp_path / "images" / f"{name}.png")
        mask = np.zeros((40, 40), np.uint8)
        mask[5:25, 5:25] = 255
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(tmp_path / "masks" / "b.png")
    whole = (tmp_path / "images" / "c.png").read_bytes()
    (tmp_path / "images" / "c.png").write_bytes(whole[: len(whole) // 2])
    return [
        f"data.root={tmp_path}",
        "data.train={format: folder, images: images, masks: masks, mask_mode: binary}",
        "data.val=null",
        "train.epochs=1",
    ]


def test_every_bad_file_is_listed_and_stops_the_run(make_config: MakeConfig, tmp_path: Path) -> None:
    overrides = bad_folder(tmp_path)
    with pytest.raises(DataError, match="2 file"):
        train(make_config(*overrides))
    listed = [json.loads(line) for line in (tmp_path / "mobilesam/run/failures.jsonl").read_text().splitlines()]
    assert [Path(record["source"]).name for record in listed] == ["b.png", "c.png"]
    assert all(record["problem"] and record["set"] == "train" for record in listed)


def test_bad_files_are_skipped_when_asked(make_config: MakeConfig, tmp_path: Path) -> None:
    listener = Listener()
    result = train(make_config(*bad_folder(tmp_path), "data.on_bad_file=skip"), reporter=listener)
    assert result.steps == 1, "two images are left, one batch"
    assert any("2 file(s) cannot be used" in said for said in listener.said)
    assert (result.folder / "failures.jsonl").exists()


def test_what_the_device_cannot_do_is_said(make_config: MakeConfig) -> None:
    with pytest.raises(UsageError, match="fp16 needs a CUDA device"):
        train(make_config("train.device=cpu", "train.precision=fp16"))
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="sees no cuda device"):
            train(make_config("train.device=cuda"))


def test_bf16_trains(make_config: MakeConfig) -> None:
    result = train(make_config("train.precision=bf16", "train.log_every=1"))
    losses = [record["total"] for record in lines(result.folder / "metrics.jsonl", "train")]
    assert all(np.isfinite(losses))
    assert all(t.dtype == torch.float32 for t in load_file(result.last).values() if t.is_floating_point())


def test_a_run_that_died_before_its_first_save_resumes_from_the_start(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(run: Any, batches: Any) -> Any:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(loop, "optimizer_step", die)
        train(make_config("train.run=parts"))
    parts, whole = train(make_config("train.run=parts"), resume=True), train(make_config("train.run=whole"))
    assert load_file(parts.last).keys() == load_file(whole.last).keys()
    assert all(torch.equal(tensor, load_file(whole.last)[name]) for name, tensor in load_file(parts.last).items())


def test_start_weights_are_measured_before_training(make_config: MakeConfig, start_weights: Path) -> None:
    from_weights = f"model.checkpoint={start_weights}"
    result = train(make_config(from_weights, "train.run=measured"))
    assert result.before.keys() == result.metrics.keys() and result.before != result.metrics
    logged = lines(result.folder / "metrics.jsonl", "val")
    assert [(line["step"], line["epoch"]) for line in logged] == [(0, 0), (3, 1), (6, 2)]
    assert logged[0]["loss"] == result.before["loss"]
    assert (result.folder / "overlays/epoch_000").is_dir()
    unmeasured = train(make_config(from_weights, "train.run=unmeasured", "train.validation.before=false"))
    assert unmeasured.before == {} == train(make_config("train.run=random")).before
    expected, got = load_file(unmeasured.last), load_file(result.last)
    assert all(torch.equal(expected[name], got[name]) for name in expected), "measuring must not change the training"


@pytest.mark.parametrize("stop_at", [0, 2])
def test_figures_of_the_start_weights_survive_an_interruption(
    make_config: MakeConfig, start_weights: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    from_weights = f"model.checkpoint={start_weights}"
    whole = train(make_config(from_weights, "train.run=whole"))
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match=f"step {stop_at}"):
        if stop_at:
            interrupt_after(patch, stop_at)
        else:
            real = loop.validate

            def stopped(run: Any, source: Any, epoch: int, stop: StopRequest) -> Any:
                os.kill(os.getpid(), signal.SIGINT)
                return real(run, source, epoch, stop)

            patch.setattr(loop, "validate", stopped)
        train(make_config(from_weights, "train.run=parts"))
    parts = train(make_config(from_weights, "train.run=parts"), resume=True)
    assert parts.before == whole.before
    assert [line["epoch"] for line in lines(parts.folder / "metrics.jsonl", "val")] == [0, 1, 2]
    assert all(torch.equal(value, load_file(whole.last)[name]) for name, value in load_file(parts.last).items())


def test_a_validation_that_was_logged_but_not_saved_is_logged_once(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loop.save_checkpoint

    def crash(run: Any, path: Path, metrics: Any = None) -> None:
        real(run, path, metrics)
        if run.position.epoch == 1:
            raise RuntimeError("power cut")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(loop, "save_checkpoint", crash)
        train(make_config())
    result = train(make_config(), resume=True)
    assert [line["epoch"] for line in lines(result.folder / "metrics.jsonl", "val")] == [1, 2]


@pytest.mark.parametrize(("scores", "warns"), [([0.5, 0.4, 0.5], True), ([0.5, 0.4, 0.6], False)])
def test_training_that_only_harms_says_so(
    make_config: MakeConfig, start_weights: Path, monkeypatch: pytest.MonkeyPatch, scores: list[float], warns: bool
) -> None:
    from mobilesam_core.training.validation import Validation

    coming = iter(scores)

    def scripted(*_: Any) -> Validation:
        value = next(coming)
        names = ("miou", "loss", "box_miou", "point_miou", "box_dice", "point_dice", "fill_box_miou")
        return Validation(dict.fromkeys(names, value), value)

    monkeypatch.setattr(loop, "validate", scripted)
    listener = Listener()
    train(make_config(f"model.checkpoint={start_weights}"), reporter=listener)
    said = [sentence for sentence in listener.said if "No epoch was better" in sentence]
    assert ["miou 0.500 at best, 0.500 before" in sentence for sentence in said] == [True] * warns


def test_a_run_of_an_older_version_can_be_resumed(make_config: MakeConfig) -> None:
    config = make_config("train.epochs=1")
    state_path = train(config).folder / "state.pt"
    state = torch.load(state_path, weights_only=True)
    saved = json.loads(state["config"])
    saved["train"]["validation"]["before"] = None  # the choice did not exist
    state["config"] = json.dumps(saved)
    del state["position"]["before"]
    torch.save(state, state_path)
    assert train(config, resume=True).epochs == 1


def test_checkpoints_can_be_stored_in_half_precision(make_config: MakeConfig) -> None:
    result = train(make_config("train.checkpoint_dtype=float16"))
    stored = load_file(result.last)
    exact = to_official(torch.load(result.folder / "state.pt", weights_only=True)["parts"]["model"])
    for name, value in exact.items():
        wanted = value.half() if value.is_floating_point() else value
        assert stored[name].dtype == wanted.dtype and torch.equal(stored[name], wanted), name
    assert all(p.dtype == torch.float32 for p in open_checkpoint(result.last).model.parameters())


def test_an_average_of_the_weights_is_what_is_validated_and_saved(make_config: MakeConfig) -> None:
    plain = train(make_config("train.run=plain"))
    averaged = train(make_config("train.run=averaged", "train.ema=0.5"))

    states = [torch.load(r.folder / "state.pt", weights_only=True)["parts"] for r in (plain, averaged)]
    # The weights that learn take the same path; the average is another point.
    for name, value in states[0]["model"].items():
        torch.testing.assert_close(states[1]["model"][name], value, rtol=0, atol=0)
    saved = load_file(averaged.last)
    moved = load_file(plain.last)
    key = "mask_decoder.transformer.norm_final_attn.weight"
    torch.testing.assert_close(saved[key], states[1]["average"][f"module.{key}"], rtol=0, atol=0)
    assert not torch.equal(saved[key], moved[key])
    assert averaged.metrics["loss"] != plain.metrics["loss"]


def test_an_interrupted_run_goes_on_with_its_average(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(make_config("train.run=whole", "train.ema=0.9"))
    with monkeypatch.context() as patched:
        interrupt_after(patched, 2)
        with pytest.raises(Interrupted):
            train(make_config("train.run=halted", "train.ema=0.9"))
    resumed = train(make_config("train.run=halted", "train.ema=0.9"), resume=True)

    expected = load_file(whole.last)
    for name, value in load_file(resumed.last).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)
