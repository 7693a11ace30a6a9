"""Config → the objects of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning_fabric import Fabric

from mobilesam_core.checkpoints.loading import load_model
from mobilesam_core.checkpoints.resume import Position, restore_state
from mobilesam_core.config.data import DataConfig
from mobilesam_core.config.train import RunConfig, TrainConfig
from mobilesam_core.data.build import build_source
from mobilesam_core.data.loader import build_loader, default_workers
from mobilesam_core.data.sample import BadFile, Sample, SampleSource
from mobilesam_core.data.training_set import TrainingSet
from mobilesam_core.data.verify import find_bad_files, find_tiles, without
from mobilesam_core.data.view import Tile, check_trainable
from mobilesam_core.distillation.stored import TeacherFeatures, TeacherStore
from mobilesam_core.distillation.teacher import Teacher, copy_decoder, open_teacher
from mobilesam_core.errors import DataError, UsageError
from mobilesam_core.losses.total import SegLoss
from mobilesam_core.models.lora import add_adapters
from mobilesam_core.models.sam import Sam
from mobilesam_core.progress import Reporter
from mobilesam_core.scheduler import PolynomialLR
from mobilesam_core.stores.features import FeatureStore
from mobilesam_core.training.average import build_average
from mobilesam_core.training.distilling import DistillingStep
from mobilesam_core.training.optimizer import build_optimizer, freeze_parts
from mobilesam_core.training.processes import Processes
from mobilesam_core.training.run import Run, Sets, Steps
from mobilesam_core.training.run_folder import MetricsLog, RunFolder
from mobilesam_core.training.step import TrainingStep
from mobilesam_core.training.trackers.tracker import open_trackers


def resolve(config: TrainConfig) -> TrainConfig:
    """Fill in the choices that depend on others, so that the saved config says what was done."""
    train, from_weights = config.train, config.model.checkpoint is not None
    before = train.validation.before
    if before is None:
        before = from_weights and config.data.val is not None
    filled = {
        "batch_norm": train.batch_norm or ("frozen" if from_weights else "train"),
        "validation": train.validation.model_copy(update={"before": before}),
    }
    return config.model_copy(update={"train": train.model_copy(update=filled)})


def build_model(config: TrainConfig, teachers: Sequence[Teacher], device: torch.device, reporter: Reporter) -> Sam:
    """The model on ``device`` with its start weights, what never learns frozen, and adapters if the config asks for
    them; new weights depend on ``train.seed`` alone.

    Raises:
        ConfigError: ``lora.targets`` names nothing that can be adapted.
        UsageError: the decoder of the first teacher is to be copied, and has other dimensions.
    """
    torch.manual_seed(config.train.seed)
    model = load_model(config.model, reporter)
    if config.distill is not None and config.distill.copy_decoder:
        copy_decoder(teachers[0], model)
    freeze_parts(model, config.train.frozen_in(config.train.epochs))
    if config.train.gradient_checkpointing:
        model.image_encoder.recompute_blocks()
    if config.lora is not None:
        add_adapters(model, config.lora)
    if device.type in ("cpu", "cuda"):
        # The layout that processors with matrix units compute convolutions in.
        model.to(memory_format=torch.channels_last)
    return model.to(device)


def build_teachers(config: TrainConfig, device: torch.device, reporter: Reporter) -> list[Teacher]:
    """The teachers of a run, on its device; none where it does not distil."""
    distill = config.distill
    if distill is None:
        return []
    teachers = []
    for each in distill.teachers:
        runtime = open_teacher(
            each.checkpoint, reporter, model_name=each.model, image_size=each.image_size, device=device
        )
        teachers.append(Teacher(each, runtime.torch_model, runtime.sha256))
    return teachers


def build_step(config: TrainConfig, model: Sam, teachers: Sequence[Teacher]) -> TrainingStep | DistillingStep:
    """What a step of ``model`` computes.

    Raises:
        UsageError: student and teachers do not fit.
    """
    if config.distill is None:
        return TrainingStep(model, SegLoss(config.loss), config.prompts)
    return DistillingStep(model, SegLoss(config.loss), config.distill, teachers)


def build_sets(
    config: TrainConfig,
    model: Sam,
    teachers: Sequence[Teacher],
    folder: RunFolder,
    processes: Processes,
    reporter: Reporter,
) -> Sets:
    """Training and validation data, every file checked once unless ``data.verify`` is off.

    Raises:
        DataError: a file is bad (all are listed in ``failures.jsonl``) and ``data.on_bad_file`` is ``stop``; or a
            teacher's store is broken, or lacks an image.
    """
    data, size = config.data, model.image_size
    channels = model.config.encoder.input_channels or 3
    configs = {"train": data.train, "val": data.val}
    sources = processes.together(
        lambda: {name: build_source(each, data.root, channels) for name, each in configs.items() if each is not None}
    )
    found: list[Tile] | None = None
    if data.verify:
        trainable: dict[str, Callable[[Sample], None]] = {"train": lambda each: check_trainable(each, data, size)}

        def find_and_tell() -> tuple[list[Tile] | None, dict[str, list[BadFile]]]:
            tiles: list[Tile] | None = None
            bad: dict[str, list[BadFile]] = {}
            for name, source in sources.items():
                what = f"Checking {name} files"
                if name == "train" and data.tile is not None:
                    tiles, bad[name] = find_tiles(source, data, size, reporter, what)
                else:
                    bad[name] = find_bad_files(source, reporter, what, trainable.get(name))
            _answer(bad, data, folder, reporter)
            return tiles, bad

        found, bad = processes.from_first(find_and_tell)
        sources = {name: without(source, bad[name]) for name, source in sources.items()}
    for name, source in sources.items():
        if len(source) == 0:
            problem = DataError(f"No usable image is left in data.{name}.", f"See {folder.failures}.")
            raise processes.told_by_first(problem)
    features = processes.together(lambda: _stored_features(config, teachers, sources["train"], reporter))
    if features is not None and data.verify:
        processes.from_first(lambda: features.verify(reporter))
    loss_size = config.loss.loss_size or size // 4
    training_set = TrainingSet(
        sources["train"], data, config.prompts, size, loss_size, config.train.seed, features, config.views, found
    )
    return Sets(training_set, sources.get("val"))


def _stored_features(
    config: TrainConfig, teachers: Sequence[Teacher], source: SampleSource, reporter: Reporter
) -> TeacherFeatures | None:
    """What the teachers that have a store made of the images of ``source``."""
    distill = config.distill
    if distill is None:
        return None
    stores = [
        TeacherStore(teacher, FeatureStore(each.store), distill.levels_of(each))
        for teacher, each in zip(teachers, distill.teachers, strict=True)
        if each.store is not None and distill.levels_of(each)
    ]
    if not stores:
        return None
    return TeacherFeatures(stores, [source.describe(i) for i in range(len(source))], reporter)


def _answer(bad: Mapping[str, Sequence[BadFile]], data: DataConfig, folder: RunFolder, reporter: Reporter) -> None:
    """List bad files; stop or warn, as the config says."""
    found = [file for files in bad.values() for file in files]
    if not found:
        return
    folder.write_failures(bad)
    first = "\n  ".join(f"{file.source}: {file.problem}" for file in found[:5])
    more = f"\n  … and {len(found) - 5} more" if len(found) > 5 else ""
    message = f"{len(found)} file(s) cannot be used (all are listed in {folder.failures}):\n  {first}{more}"
    if data.on_bad_file == "stop":
        raise DataError(message, "Repair or remove them, or train on the others with data.on_bad_file=skip.")
    reporter.warning(f"{message}\n  Training goes on without them.")


def _require_same_inputs(before: Position, now: Position, epochs: int) -> None:
    if before.images != now.images:
        raise UsageError(
            f"The run to resume had {before.images} training images, now there are {now.images}: it cannot go on as it "
            "began.",
            "Restore the data, or start a new run (train.run) from its last.safetensors.",
        )
    if before.teachers != now.teachers:
        raise UsageError(
            "A teacher's weights are not those that the run to resume began with.",
            "Restore them, or start a new run (train.run) from its last.safetensors.",
        )
    if before.cached != now.cached and before.epoch < epochs:
        raise UsageError(
            f"The run to resume read {'cached embeddings' if before.cached else 'images'}, "
            f"now it would read {'cached embeddings' if now.cached else 'images'}, which are not quite the same.",
            "Free disk space for the cache, or start a new run (train.run) from its last.safetensors."
            if before.cached
            else "Start a new run (train.run) from its last.safetensors.",
        )


def _require_time_to_unfreeze(run: RunConfig, steps: Steps) -> None:
    for part, epoch in run.unfreezing.items():
        if epoch > steps.epochs:
            raise UsageError(
                f"train.unfreeze.{part} is epoch {epoch}, but train.max_steps ends the run in epoch {steps.epochs}.",
                "Unfreeze it earlier, or train longer.",
            )


def build_run(
    config: TrainConfig,
    folder: RunFolder,
    fabric: Fabric,
    processes: Processes,
    step: TrainingStep | DistillingStep,
    sets: Sets,
    teachers: Sequence[Teacher],
    state: dict[str, Any] | None,
    reporter: Reporter,
) -> Run:
    """Put the parts together, at the start or where ``state`` stands."""
    steps = Steps.plan(len(sets.train), config)
    _require_time_to_unfreeze(config.train, steps)
    model, optim = step.model, config.optim
    parts: dict[str, Any] = {"model": model}
    beside: list[torch.nn.Parameter] = []
    if isinstance(step, DistillingStep):
        beside = list(step.feature_losses.parameters())
        parts["feature_losses"] = step.feature_losses
    # A fused optimizer would unscale the gradients of fp16 by itself, too late for them to be clipped.
    fused = fabric.device.type in ("cpu", "cuda") and config.train.precision != "fp16"
    plain_optimizer = build_optimizer(model, optim, beside, fused=fused)
    wrapped_step, optimizer = fabric.setup(step, plain_optimizer)
    scheduler = PolynomialLR(
        plain_optimizer, steps.total, optim.warmup_steps, optim.power, end_factor=optim.end_lr / optim.lr
    )
    parts |= {"optimizer": plain_optimizer, "scheduler": scheduler, "precision": fabric.strategy.precision}
    average = None if config.train.ema is None else build_average(model, config.train.ema)
    if average is not None:
        parts["average"] = average
    position = Position(
        images=len(sets.train), teachers=[teacher.sha256 for teacher in teachers], cached=sets.train.cached
    )
    if state is not None:
        restored = restore_state(state, parts)
        _require_same_inputs(restored, position, config.train.epochs)
        position = restored
    return Run(
        config=config,
        folder=folder,
        fabric=fabric,
        processes=processes,
        model=model,
        step=wrapped_step,
        optimizer=optimizer,
        scheduler=scheduler,
        sets=sets,
        steps=steps,
        position=position,
        loader=build_loader(
            sets.train,
            batch_size=optim.batch_size,
            workers=processes.part_of(default_workers()) if config.data.workers is None else config.data.workers,
            seed=config.train.seed,
            pin_memory=fabric.device.type == "cuda",
            rank=processes.rank,
            count=processes.count,
        ),
        log=MetricsLog(
            folder,
            position,
            open_trackers(config, folder.path, position.step, resumed=state is not None, reporter=reporter),
        )
        if processes.first
        else None,
        reporter=reporter,
        parts=parts,
        average=average,
        teachers=teachers,
    )
