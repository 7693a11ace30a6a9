"""MobileSAM_Finetune's configs in both layouts: every key is accounted for, and what comes out is a config."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from mobilesam_core.config.finetune.convert import FinetuneConversion, convert_finetune
from mobilesam_core.config.loading import load_train_config, parse_yaml, validate
from mobilesam_core.config.train import TrainConfig
from mobilesam_core.errors import ConfigError

FLAT: dict[str, Any] = {
    "model_type": "vit_t",
    "checkpoint": "weights/mobile_sam.pt",
    "project_name": "my cells",
    "run_name": "first",
    "train_img_dir": "d/train/images",
    "train_mask_dir": "d/train/masks",
    "val_img_dir": "d/val/images",
    "val_mask_dir": "d/val/masks",
    "output_dir": "out",
    "num_epochs": 50,
    "batch_size": 4,
    "num_workers": 3,
    "learning_rate": 2e-4,
    "weight_decay": 0.05,
    "img_size": 512,
    "mask_threshold": 0.0,
    "iou_head_depth": 3,
    "iou_head_hidden_dim": 256,
    "vit_dim": 768,
    "vit_depth": 12,
    "vit_mlp_dim": 3072,
    "vit_num_heads": 12,
    "vit_patch_size": 16,
    "freeze": {"image_encoder": False, "prompt_encoder": True, "mask_decoder": False},
    "use_distill": True,
    "teacher_checkpoint": "sam_vit_h.pth",
    "distill_feature_level": 8,
    "train_img_dir_teacher_features": "features",
}
NESTED: dict[str, Any] = {
    "dataset": {
        "train_dataset": "./d/train/",
        "val_dataset": "./d/val",
        "mode": "everything",
        "prompt_mode": "box",
        "min_points": 2,
        "max_points": 3,
        "max_bbox_shift": 15,
        "grid_points": 16,
        "num_workers": 4,
    },
    "model": {
        "type": "vit_t",
        "checkpoint_path": "weights/mobile_sam.pt",
        "image_size": 1024,
        "multimask_output": False,
        "save_path": "./logs",
    },
    "train": {
        "epochs": 30,
        "lr": 1e-5,
        "batch_size": 2,
        "val_freq": 5,
        "gradient_accumulation": 4,
        "bf16": True,
        "warmup_step": 250,
        "min_lr_ratio": 0.1,
        "resume": False,
        "early_stop_patience": 20,
        "loss_weights": {"bce": 1.0, "focal": 15, "dice": 1.0, "iou": 2.0, "cls": 1.0},
    },
    "visual": {"status": False, "save_path": "./images", "IOU_threshold": 0.5, "save_every_n_epochs": 1},
    "freeze": {
        "freeze_image_encoder": False,
        "freeze_prompt_encoder": False,
        "freeze_mask_decoder": False,
        "unfreeze_epoch": 10,
    },
    "distillation": {
        "enable": True,
        "use_precomputed_features": True,
        "precomputed_root": "precomputed",
        "lambda_coef": 0.5,
        "encoder_patch": {"enable": True, "w_l2": 1.0, "w_cos": 0.5},
        "prompt_embed": {"enable": True, "w_mse": 0.7, "w_cos": 0.3},
        "decoder_mask_token": {"enable": True, "w_kl": 1.0, "temperature": 0.5},
        "dense_mask_logits": {"enable": True, "w_kl": 0.6, "w_focal": 0.4, "gamma": 2.0},
    },
    "teachers": [
        {"name": "SAM-H", "cfg": "h.yaml", "checkpoint": "sam_vit_h.pth", "weight": 0.7},
        {"name": "MobileSAM orig", "cfg": "m.yaml", "checkpoint": "mobile_sam.pt", "weight": 0.3},
    ],
    "stage_schedule": [
        {
            "name": "distill_only",
            "start_epoch": 0,
            "end_epoch": 10,
            "distillation": True,
            "lambda_coef": 1.0,
            "loss_weights": {"bce": 0, "focal": 0, "dice": 0, "iou": 0, "cls": 0},
        },
        {"name": "finetune", "start_epoch": 10, "end_epoch": 30, "distillation": False, "lambda_coef": 0.0},
    ],
}


def convert(tree: Any, mode: Any = None) -> FinetuneConversion:
    return convert_finetune(json.dumps(tree), "old.json", lambda images, masks: mode)


def config_of(found: FinetuneConversion) -> TrainConfig:
    return validate(TrainConfig, parse_yaml(found.text, "new"), "new")


def leaves(tree: Any, prefix: str = "") -> set[str]:
    if isinstance(tree, dict):
        return {leaf for key, value in tree.items() for leaf in leaves(value, f"{prefix}.{key}" if prefix else key)}
    if isinstance(tree, list):
        return {leaf for place, value in enumerate(tree) for leaf in leaves(value, f"{prefix}[{place}]")}
    return {prefix}


def changed(tree: dict[str, Any], **values: Any) -> dict[str, Any]:
    """A copy with dotted keys, their dots written as two underscores, set."""
    result = copy.deepcopy(tree)
    for key, value in values.items():
        *sections, last = key.split("__")
        node = result
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = value
    return result


@pytest.mark.parametrize("tree", [FLAT, NESTED], ids=["flat", "nested"])
@pytest.mark.parametrize("distilling", [True, False])
def test_every_key_is_mapped_or_dropped_and_strange_ones_are_named(tree: dict[str, Any], distilling: bool) -> None:
    tree = changed(tree, wandb__entity="me", lr_drop=3)
    tree = (
        changed(tree, use_distill=distilling)
        if tree.get("num_epochs")
        else changed(tree, distillation__enable=distilling)
    )
    found = convert(tree)
    assert set(found.unknown) == {"wandb.entity", "lr_drop"}
    assert not found.mapped.keys() & found.dropped.keys()
    assert found.mapped.keys() | found.dropped.keys() == leaves(tree) - set(found.unknown)
    assert all(found.dropped.values())
    written = parse_yaml(found.text, "new")
    for new in found.mapped.values():
        node = written
        for part in new.split("."):
            node = node[part]
    assert ("distill" in written) == distilling


def test_a_flat_config_says_the_same(tmp_path: Path) -> None:
    found = convert(FLAT, mode="instances")
    (tmp_path / "new.yaml").write_text(found.text, encoding="utf-8")
    config = load_train_config(str(tmp_path / "new.yaml"))
    assert config.model_dump(mode="json")["data"]["train"] == {
        "format": "folder",
        "images": "d/train/images",
        "masks": "d/train/masks",
        "mask_mode": "instances",
        "ignore_index": None,
    }
    assert config.data.val is not None and config.data.workers == 3
    assert (config.model.checkpoint, config.model.image_size) == ("weights/mobile_sam.pt", 512)
    assert (config.optim.lr, config.optim.weight_decay, config.optim.batch_size) == (2e-4, 0.05, 4)
    assert (config.train.project, config.train.run, config.train.epochs) == ("my-cells", "first", 50)
    assert config.train.freeze.prompt_encoder and not config.train.freeze.image_encoder
    assert config.distill is not None
    teacher = config.distill.teachers[0]
    assert (teacher.checkpoint, teacher.model) == ("sam_vit_h.pth", "vit_h")
    assert [(pair.teacher, pair.student) for pair in teacher.features] == [("blocks.8", "stages.3")]
    assert "lr: 0.0002  # learning_rate" in found.text and "#   mask_threshold: " in found.text


def test_masks_that_cannot_be_seen_are_read_as_the_old_code_did() -> None:
    found = convert(FLAT)
    train = config_of(found).data.train
    assert train.format == "folder" and train.mask_mode == "per_instance"
    assert "for files: binary, components, instances or classes" in found.text


def test_a_nested_config_says_the_same() -> None:
    config = config_of(convert(NESTED))
    train = config.data.train
    assert train.format == "folder" and (str(train.images), str(train.masks)) == ("d/train/image", "d/train/mask")
    assert train.mask_mode == "per_instance"
    prompts = config.prompts
    assert (prompts.box, prompts.point, prompts.min_points, prompts.max_points) == (1.0, 0.0, 2, 3)
    assert prompts.box_noise_max == 15.0
    optim = config.optim
    assert (optim.lr, optim.end_lr, optim.accumulate, optim.warmup_steps) == (1e-5, 1e-6, 4, 250)
    assert optim.lr_factors.image_encoder == 0.1
    assert (config.loss.focal, config.loss.bce, config.loss.iou, config.loss.multimask) == (15.0, 1.0, 2.0, False)
    run = config.train
    assert (run.epochs, run.precision, run.early_stop, str(run.output_dir)) == (30, "bf16", 20, "logs")
    assert (run.validation.every, run.validation.overlays) == (5, 0)
    distill = config.distill
    assert distill is not None
    assert [(t.name, t.weight) for t in distill.teachers] == [("SAM-H", 0.35), ("MobileSAM-orig", 0.15)]
    assert [(pair.loss, pair.weight) for pair in distill.teachers[1].features] == [("mse", 1.0), ("cosine", 0.5)]
    assert distill.prompt_embeddings is not None and distill.prompt_embeddings.mse == 0.7
    assert distill.tokens is not None and distill.tokens.temperature == 0.5
    assert distill.masks is not None and (distill.masks.loss, distill.masks.weight) == ("kl", 0.6)
    assert [(stage.epochs, stage.terms) for stage in distill.stages] == [
        (10, ["features", "prompt_embeddings", "tokens", "masks"]),
        (20, ["ground_truth"]),
    ]


def test_strange_keys_are_named_wherever_they_are() -> None:
    tree = changed(NESTED, distillation__encoder_patch__colour=1, distillation__odd=[2], train__loss_weights__tversky=3)
    tree["teachers"][0]["size"] = tree["stage_schedule"][1]["lr"] = 4
    assert set(convert(tree).unknown) == {
        "distillation.encoder_patch.colour",
        "distillation.odd",
        "train.loss_weights.tversky",
        "teachers[0].size",
        "stage_schedule[1].lr",
    }


def test_losses_of_older_versions() -> None:
    tree = changed(NESTED, stage_schedule=[])
    old_losses = {"enable": True, "lambda_mse": 2.0, "lambda_kl": 1.0, "temperature": 2.0}
    tree["distillation"] = {"enable": True, "encoder_matching": old_losses, "attention_matching": {"enable": True}}
    found = convert(tree)
    distill = config_of(found).distill
    assert distill is not None and [pair.weight for pair in distill.teachers[0].features] == [2.0]
    assert "no such loss" in found.dropped["distillation.encoder_matching.lambda_kl"]
    assert "no such loss" in found.dropped["distillation.attention_matching.enable"] and not found.unknown


@pytest.mark.parametrize(
    ("tree", "dropped", "why"),
    [
        (changed(FLAT, img_size=1000), "img_size", "no multiple of 64"),
        (changed(FLAT, num_epochs=0), "num_epochs", "no whole number from 1"),
        (changed(FLAT, learning_rate="fast"), "learning_rate", "no number above 0"),
        (changed(FLAT, learning_rate=None), "learning_rate", "null"),
        (changed(FLAT, weight_decay=10**400), "weight_decay", "no number"),
        (changed(FLAT, freeze__image_encoder=True), "teacher_checkpoint", "the image encoder is frozen"),
        (changed(FLAT, val_mask_dir=None), "val_img_dir", "go together"),
        (changed(NESTED, freeze__freeze_image_encoder=True), "distillation.encoder_patch.w_l2", "is frozen"),
        (changed(NESTED, freeze__freeze_prompt_encoder=True), "distillation.prompt_embed.w_mse", "is frozen"),
        (changed(NESTED, train__epochs=31), "stage_schedule[0].end_epoch", "do not follow one another"),
        (
            changed(
                NESTED,
                stage_schedule=[{"start_epoch": 0, "end_epoch": None}, {"start_epoch": None, "end_epoch": 30}],
            ),
            "stage_schedule[1].end_epoch",
            "do not follow one another",
        ),
        (changed(NESTED, teachers=[]), "distillation.encoder_patch.w_l2", "no teacher"),
        (changed(NESTED, dataset__val_dataset=None), "train.early_stop_patience", "needs a validation set"),
        (changed(NESTED, dataset__prompt_mode="grid"), "dataset.prompt_mode", "there is no 'grid'"),
    ],
)
def test_what_cannot_be_is_dropped_with_its_reason(tree: dict[str, Any], dropped: str, why: str) -> None:
    found = convert(tree)
    assert why in found.dropped[dropped] and dropped not in found.mapped
    config_of(found)


def test_a_frozen_encoder_begins_to_learn_when_it_was_meant_to() -> None:
    frozen = changed(NESTED, freeze__freeze_image_encoder=True, distillation__enable=False)
    config = config_of(convert(frozen))
    assert config.train.freeze.image_encoder and config.train.unfreeze.image_encoder == 11
    never = convert(changed(frozen, freeze__unfreeze_epoch=0))
    assert config_of(never).train.unfreeze.image_encoder is None
    assert "stays frozen" in never.dropped["freeze.unfreeze_epoch"]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "is not JSON"),
        ("[1]", "holds no settings"),
        ("{}", "none of the keys"),
        ('{"learning": 1, "rate": {"x": 2}}', "none of the keys"),
        ('{"num_epochs": 3}', "names no training data"),
        ('{"train": {"epochs": 3}}', "Set dataset.train_dataset"),
        (json.dumps(changed(FLAT, freeze__image_encoder=True, freeze__mask_decoder=True)), "nothing would learn"),
    ],
)
def test_what_is_no_such_config_is_refused(text: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        convert_finetune(text, "old.json", lambda images, masks: None)
    assert part in str(caught.value)
