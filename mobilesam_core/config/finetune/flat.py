"""The flat layout, of MobileSAM_Finetune's README."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from mobilesam_core.config.data import MaskMode
from mobilesam_core.config.finetune import values
from mobilesam_core.config.finetune.account import Keep, OldConfig
from mobilesam_core.errors import DataError

LookAtMasks = Callable[[Path, Path], MaskMode | None]
"""Given a folder of images and one of masks, how the masks are to be read; None where there are none.
Raises a DataError or an OSError where they cannot be told."""

_SHAPE = "the encoder's shape comes with model.name; model.encoder changes it"
_STORED = "features stored there do not say who made them; mobilesam distill extract stores them anew"
_RULES: Mapping[str, Keep | str] = {
    "model_type": Keep("model.name", values.model),
    "checkpoint": Keep("model.checkpoint", values.text),
    "img_size": Keep("model.image_size", values.image_size),
    "iou_head_depth": Keep("model.iou_head_depth", values.whole(2)),
    "iou_head_hidden_dim": Keep("model.iou_head_hidden_dim", values.whole(1)),
    "num_workers": Keep("data.workers", values.whole(0)),
    "learning_rate": Keep("optim.lr", values.positive),
    "weight_decay": Keep("optim.weight_decay", values.number),
    "batch_size": Keep("optim.batch_size", values.whole(1)),
    "project_name": Keep("train.project", values.name),
    "run_name": Keep("train.run", values.name),
    "output_dir": Keep("train.output_dir", values.text),
    "num_epochs": Keep("train.epochs", values.whole(1)),
    "freeze.image_encoder": Keep("train.freeze.image_encoder", values.flag),
    "freeze.prompt_encoder": Keep("train.freeze.prompt_encoder", values.flag),
    "freeze.mask_decoder": Keep("train.freeze.mask_decoder", values.flag),
    "mask_threshold": "a mask is where its logits are above 0, in training and after",
    **{f"vit_{key}": _SHAPE for key in ("dim", "depth", "mlp_dim", "num_heads", "patch_size")},
}
_DISTILLING = ("use_distill", "teacher_checkpoint", "distill_feature_level", "train_img_dir_teacher_features")


def read_flat(old: OldConfig, look: LookAtMasks) -> None:
    """Map what a flat config says."""
    for split in ("train", "val"):
        _read_set(old, split, look)
    old.follow(_RULES)
    if old.value("use_distill") is not True:
        why = "use_distill is not true"
    elif not isinstance(old.value("teacher_checkpoint"), str):
        why = "there is no teacher without teacher_checkpoint"
    elif old.new.get("train.freeze.image_encoder"):
        why = "the image encoder is frozen: features would teach it nothing"
    else:
        _read_teacher(old)
        why = _STORED
    for key in _DISTILLING:
        old.drop(key, why)


def _read_set(old: OldConfig, split: str, look: LookAtMasks) -> None:
    keys = f"{split}_img_dir", f"{split}_mask_dir"
    images, masks = map(old.value, keys)
    if not (isinstance(images, str) and isinstance(masks, str)):
        for key in keys:
            old.drop(key, f"{' and '.join(keys)} go together, and each names a folder")
        return
    try:
        mode = look(Path(images), Path(masks))
        why = "as the masks are"
    except (DataError, OSError) as error:
        reason = getattr(error, "message", str(error))
        mode, why = "instances", f"or binary, components, classes; it could not be told: {reason}"
    old.new.set(f"data.{split}.format", "folder")
    old.keep(keys[0], Keep(f"data.{split}.images", values.text))
    old.keep(keys[1], Keep(f"data.{split}.masks", values.text))
    unseen = "MASKS/<image's name>/*.png, as its code reads them; for files: binary, components, instances or classes"
    old.new.set(f"data.{split}.mask_mode", mode or "per_instance", why if mode else unseen)


def _read_teacher(old: OldConfig) -> None:
    levels = old.value("distill_feature_level")
    blocks = [each for each in (levels if isinstance(levels, list) else [levels]) if type(each) is int]
    pairs = [{"teacher": f"blocks.{block}", "student": "stages.3"} for block in blocks]
    teacher = {"checkpoint": old.value("teacher_checkpoint"), "model": "vit_h", "features": pairs or [{"loss": "mse"}]}
    compared = "of ViT-H the blocks named, with the student's last stage" if pairs else "the embeddings are compared"
    old.new.set("distill.teachers", [teacher], f"teacher_checkpoint, distill_feature_level; {compared}")
    old.claim("use_distill", "distill")
    old.claim("teacher_checkpoint", "distill.teachers")
    old.claim("distill_feature_level", "distill.teachers")
