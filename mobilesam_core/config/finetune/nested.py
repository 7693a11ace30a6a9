"""The nested layout, of the configs in MobileSAM_Finetune's repository."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from mobilesam_core.config.finetune import values
from mobilesam_core.config.finetune.account import Keep, OldConfig
from mobilesam_core.config.train import RunConfig

SECTIONS = ("dataset", "model", "train", "visual", "freeze", "distillation")

_PROMPTED = "every object of an image is asked for by a prompt of its own"
_STORED = "features stored there do not say who made them; mobilesam distill extract stores them anew"
_KEYS_OF_A_LOSS = (
    "enable",
    "w_l2",
    "w_cos",
    "w_mse",
    "w_kl",
    "w_focal",
    "lambda_mse",
    "weight",
    "temperature",
    "gamma",
)
_NO_SUCH_LOSS = "there is no such loss; distill.teachers[].features compares features of any level"
_RULES: Mapping[str, Keep | str] = {
    "dataset.num_workers": Keep("data.workers", values.whole(0)),
    "dataset.mode": _PROMPTED,
    "dataset.grid_points": _PROMPTED,
    "model.type": Keep("model.name", values.model),
    "model.checkpoint_path": Keep("model.checkpoint", values.text),
    "model.image_size": Keep("model.image_size", values.image_size),
    "model.multimask_output": Keep("loss.multimask", values.flag),
    "model.save_path": Keep("train.output_dir", values.text, "results go to output_dir/project/run/"),
    "train.epochs": Keep("train.epochs", values.whole(1)),
    "train.lr": Keep("optim.lr", values.positive),
    "train.batch_size": Keep("optim.batch_size", values.whole(1), "images, each with up to data.max_objects objects"),
    "train.gradient_accumulation": Keep("optim.accumulate", values.whole(1)),
    "train.warmup_step": Keep("optim.warmup_steps", values.whole(0), "optimizer steps"),
    "train.bf16": Keep("train.precision", lambda value: "bf16" if values.flag(value) else "32"),
    "train.val_freq": Keep("train.validation.every", values.whole(1)),
    "train.resume": "mobilesam train --resume goes on with a run",
    **{f"train.loss_weights.{name}": Keep(f"loss.{name}", values.number) for name in ("bce", "focal", "dice", "iou")},
    "train.loss_weights.cls": "there is no loss of classes",
    "visual.save_path": "pictures go to the run's folder",
    "visual.save_every_n_epochs": "pictures are drawn at every validation (train.validation.every)",
    "visual.IOU_threshold": "pictures show the validation's worst objects, whatever their IoU",
    "visual.status": Keep("train.validation.overlays", lambda value: 4 if values.flag(value) else 0),
    "freeze.freeze_image_encoder": Keep("train.freeze.image_encoder", values.flag),
    "freeze.freeze_prompt_encoder": Keep("train.freeze.prompt_encoder", values.flag),
    "freeze.freeze_mask_decoder": Keep("train.freeze.mask_decoder", values.flag),
    "distillation.use_precomputed_features": _STORED,
    "distillation.precomputed_root": _STORED,
    "distillation.decoder_matching": _NO_SUCH_LOSS,
    "distillation.attention_matching": _NO_SUCH_LOSS,
    "distillation.relational_KD": _NO_SUCH_LOSS,
    "distillation.dynamic_lambda": "weights do not change while training",
}


def read_nested(old: OldConfig) -> None:
    """Map what a nested config says."""
    for split in ("train", "val"):
        _read_set(old, split)
    _read_prompts(old)
    ratio = old.value("train.min_lr_ratio")
    old.follow(_RULES)
    lr = old.new.get("optim.lr")
    if lr is None:
        old.drop("train.min_lr_ratio", "it is a share of train.lr, which is not there")
    elif ratio is not None:
        old.keep(
            "train.min_lr_ratio",
            Keep("optim.end_lr", lambda share: float(f"{min(1.0, values.number(share)) * lr:.6g}")),
        )
    if lr is not None and not old.new.get("train.freeze.image_encoder"):
        old.new.set("optim.lr_factors.image_encoder", 0.1, "as MobileSAM_Finetune's trainer has it")
    _read_unfreezing(old)
    if old.new.get("data.val") is None:
        old.drop("train.early_stop_patience", "it needs a validation set")
    old.follow({"train.early_stop_patience": Keep("train.early_stop", values.whole(1), "validations, not epochs")})
    if old.value("distillation.enable") is True:
        _read_distillation(old)
    else:
        _drop_distillation(old, "distillation.enable is not true")


def _read_set(old: OldConfig, split: str) -> None:
    key = f"dataset.{split}_dataset"
    folder = old.value(key)
    if not isinstance(folder, str):
        old.drop(key, "it names no folder")
        return
    path = folder.rstrip("/")
    old.new.set(f"data.{split}.format", "folder")
    old.new.set(f"data.{split}.images", f"{path}/image", key)
    old.new.set(f"data.{split}.masks", f"{path}/mask", "mask/<image's name>/*.png, a file an object")
    old.new.set(f"data.{split}.mask_mode", "per_instance")
    old.claim(key, f"data.{split}")


def _read_prompts(old: OldConfig) -> None:
    mixes = {"box": (1.0, 0.0), "point": (0.0, 1.0), "mixed": (0.5, 0.5)}
    mode = old.value("dataset.prompt_mode")
    if isinstance(mode, str) and mode in mixes:
        old.new.set("prompts.box", mixes[mode][0], "dataset.prompt_mode")
        old.new.set("prompts.point", mixes[mode][1])
        old.claim("dataset.prompt_mode", "prompts.box")
    old.drop("dataset.prompt_mode", f"there is no {mode!r}; boxes and points are mixed evenly")
    least = old.keep("dataset.min_points", Keep("prompts.min_points", values.whole(1)))
    most = old.keep("dataset.max_points", Keep("prompts.max_points", values.whole(1)))
    if least and (most or 1) < least:
        old.new.set("prompts.max_points", least, "at least min_points")
    if old.value("dataset.max_bbox_shift") == 0:
        old.keep("dataset.max_bbox_shift", Keep("prompts.box_noise", values.number))
    comment = "pixels; an edge moves by a share of the box's side (prompts.box_noise), and by no more than this"
    old.follow({"dataset.max_bbox_shift": Keep("prompts.box_noise_max", values.number, comment)})


def _epochs(old: OldConfig) -> int:
    """Of the new config."""
    return int(old.new.get("train.epochs") or RunConfig.model_fields["epochs"].default)


def _read_unfreezing(old: OldConfig) -> None:
    key = "freeze.unfreeze_epoch"
    epoch, epochs = old.value(key), _epochs(old)
    if not old.new.get("train.freeze.image_encoder"):
        old.drop(key, "the image encoder learns from the start")
    elif type(epoch) is not int or not 1 <= epoch < epochs:
        old.drop(key, f"epoch {epoch} is none of those from 1 to {epochs - 1}: the image encoder stays frozen")
    else:
        comment = "counted from 1; there, the encoder did not learn after all"
        old.keep(key, Keep("train.unfreeze.image_encoder", lambda first: first + 1, comment))


def _read_distillation(old: OldConfig) -> None:
    features = _read_features(old)
    terms: dict[str, Any] = {}
    for term, read in (
        ("prompt_embeddings", _read_prompt_embeddings),
        ("tokens", _read_tokens),
        ("masks", _read_masks),
    ):
        if found := read(old):
            terms[term] = found
    teachers = _read_teachers(old, features)
    if not teachers or not (features or terms):
        why = "there is no teacher with a checkpoint" if not teachers else "none of its losses is one of distill's"
        _drop_distillation(old, why)
        for key in [key for key, new in old.mapped.items() if new.startswith("distill")]:
            old.dropped[key] = why
            del old.mapped[key]
        return
    old.claim("distillation.enable", "distill")
    old.new.set("distill.teachers", teachers, "teachers; weights are of MobileSAM_Finetune's losses, which differ")
    for term, found in terms.items():
        old.new.set(f"distill.{term}", found)
    _read_stages(old, [*(["features"] if features else []), *terms])


def _drop_distillation(old: OldConfig, why: str) -> None:
    for key in ("distillation", "teachers", "stage_schedule"):
        old.drop(key, why)


def _read_features(old: OldConfig) -> list[dict[str, Any]]:
    """The pairs of levels that every teacher gets."""
    pairs = []
    for section, keys in (
        ("encoder_patch", {"w_l2": "mse", "w_cos": "cosine"}),
        ("encoder_matching", {"lambda_mse": "mse"}),
    ):
        key = f"distillation.{section}"
        old.drop(f"{key}.lambda_kl", _NO_SUCH_LOSS)
        if old.value(f"{key}.enable") is True and old.new.get("train.freeze.image_encoder"):
            old.drop(key, "the image encoder is frozen: features would teach it nothing")
        for weight_key, loss in keys.items():
            weight = _weight(old, key, weight_key)
            if weight:
                pairs.append({"loss": loss, "weight": weight})
                old.claim(f"{key}.{weight_key}", "distill.teachers")
        _settle(old, key, "distill.teachers")
    return pairs


def _read_prompt_embeddings(old: OldConfig) -> dict[str, Any]:
    key, new = "distillation.prompt_embed", "distill.prompt_embeddings"
    if old.value(f"{key}.enable") is True and old.new.get("train.freeze.prompt_encoder"):
        old.drop(key, "the prompt encoder is frozen")
    found = {"mse": _weight(old, key, "w_mse"), "cosine": _weight(old, key, "w_cos")}
    for name in ("w_mse", "w_cos"):
        if any(found.values()):
            old.claim(f"{key}.{name}", new)
    _settle(old, key, new)
    return found if any(found.values()) else {}


def _read_tokens(old: OldConfig) -> dict[str, Any]:
    key, new = "distillation.decoder_mask_token", "distill.tokens"
    found = {"weight": _weight(old, key, "w_kl")}
    if not found["weight"]:
        _settle(old, key, new)
        return {}
    old.claim(f"{key}.w_kl", new)
    if temperature := _weight(old, key, "temperature"):
        found["temperature"] = temperature
        old.claim(f"{key}.temperature", new)
    _settle(old, key, new)
    return found


def _read_masks(old: OldConfig) -> dict[str, Any]:
    key, new = "distillation.dense_mask_logits", "distill.masks"
    divergence, focal = _weight(old, key, "w_kl"), _weight(old, key, "w_focal")
    found: dict[str, Any] = {}
    if divergence:
        found = {"loss": "kl", "weight": divergence}
        old.claim(f"{key}.w_kl", new)
        old.drop(f"{key}.w_focal", "masks are compared by one loss, here kl; focal_dice is the other")
    elif focal:
        found = {"loss": "focal_dice", "weight": focal}
        old.claim(f"{key}.w_focal", new)
    old.drop(f"{key}.gamma", "it is 2 in the focal loss to a teacher")
    _settle(old, key, new)
    return found


def _weight(old: OldConfig, section: str, key: str) -> float:
    """A number above 0 of a section that is switched on; else 0."""
    value = old.value(f"{section}.{key}")
    try:
        return values.positive(value) if old.value(f"{section}.enable") is True else 0.0
    except ValueError:
        return 0.0


def _settle(old: OldConfig, section: str, new: str) -> None:
    """Account for what is known of the rest of a section, of which some may have become part of ``new``."""
    on = old.value(f"{section}.enable") is True
    if any(key.startswith(f"{section}.") for key in old.mapped):
        old.claim(f"{section}.enable", new)
    for key in _KEYS_OF_A_LOSS:
        old.drop(f"{section}.{key}", "it is no weight above 0, or goes with none" if on else "its loss is not enabled")


def _read_teachers(old: OldConfig, features: list[dict[str, Any]]) -> list[dict[str, Any]]:
    share = old.value("distillation.lambda_coef")
    share = share if isinstance(share, int | float) and share > 0 else 1.0
    teachers: list[dict[str, Any]] = []
    count = old.count("teachers")
    for place in range(count):
        key = f"teachers[{place}]"
        old.drop(f"{key}.cfg", "weights say themselves which model they are of")
        if not isinstance(old.value(f"{key}.checkpoint"), str):
            old.drop(key, "it has no checkpoint")
            continue
        weight = old.value(f"{key}.weight")
        weight = weight if isinstance(weight, int | float) and weight > 0 else 1 / count
        name = old.value(f"{key}.name")
        name = values.name(name).replace(".", "-") if isinstance(name, str) and name.strip() else f"teacher-{place}"
        if any(name == each["name"] for each in teachers):
            name = f"{name}-{place}"
        teacher: dict[str, Any] = {"name": name, "checkpoint": old.value(f"{key}.checkpoint")}
        teacher["weight"] = round(weight * share, 6)
        if features:
            teacher["features"] = features
        teachers.append(teacher)
        for each in ("name", "checkpoint", "weight"):
            old.claim(f"{key}.{each}", "distill.teachers")
    if teachers:
        old.claim("distillation.lambda_coef", "distill.teachers")
    return teachers


def _read_stages(old: OldConfig, terms: list[str]) -> None:
    key = "stage_schedule"
    count = old.count(key)
    if not count:
        old.drop(key, "it is no list of stages")
        return
    spans = [(old.value(f"{key}[{i}].start_epoch"), old.value(f"{key}[{i}].end_epoch")) for i in range(count)]
    epochs = _epochs(old)
    ends = [0, *(end for _, end in spans)]
    whole = all(type(epoch) is int for span in spans for epoch in span)
    joined = whole and [start for start, _ in spans] == ends[:-1] and ends[-1] == epochs
    if not joined or any(a >= b for a, b in itertools.pairwise(ends)):
        old.drop(key, f"its stages do not follow one another from epoch 0 to {epochs}")
        return
    stages = []
    for place, (start, end) in enumerate(spans):
        stage = f"{key}[{place}]"
        weights = [old.value(each) for each in old.below(f"{stage}.loss_weights")]
        taught = old.value(f"{stage}.distillation") is True
        labelled = any(weights) or not weights or not taught
        stages.append(
            {"epochs": end - start, "terms": [*(["ground_truth"] if labelled else []), *(terms if taught else [])]}
        )
        for each in ("start_epoch", "end_epoch", "distillation"):
            old.claim(f"{stage}.{each}", "distill.stages")
        old.drop(f"{stage}.name", "stages have no names")
        old.drop(f"{stage}.lambda_coef", "weights are the same in all stages")
        old.drop(
            f"{stage}.loss_weights", "weights are the same in all stages; where all are 0, labels are not learnt from"
        )
    old.new.set("distill.stages", stages, key)
