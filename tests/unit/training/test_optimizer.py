from __future__ import annotations

import pytest
from torch import nn

from mobilesam_core.config.model import ModelConfig, ModelName
from mobilesam_core.config.optim import LrFactors, OptimConfig
from mobilesam_core.models.registry import build_sam
from mobilesam_core.models.sam import Sam
from mobilesam_core.training.optimizer import freeze_parts, parameter_groups, set_train_mode


def model(name: ModelName = "vit_nano") -> Sam:
    return build_sam(ModelConfig(name=name, checkpoint=None, image_size=64))


def settings(sam: Sam, config: OptimConfig) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of each parameter by name."""
    names = {id(parameter): name for name, parameter in sam.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in parameter_groups(sam, config)
        for parameter in group["params"]
    }


def test_only_matrices_and_kernels_decay() -> None:
    sam = model()
    found = settings(sam, OptimConfig(weight_decay=0.1))
    assert found.keys() == {name for name, p in sam.named_parameters() if p.requires_grad}
    decayed = {name for name, (_, decay) in found.items() if decay == 0.1}
    norms = {
        f"{prefix}.{name}"
        for prefix, module in sam.named_modules()
        if isinstance(module, nn.LayerNorm | nn.BatchNorm2d)
        for name, _ in module.named_parameters()
    }
    assert not decayed & norms
    tables = {"attention_biases", "point_embeddings", "not_a_point_embed", "no_mask_embed", "iou_token", "mask_tokens"}
    assert not [name for name in decayed if tables & set(name.split(".")) or name.endswith("bias")]
    matrices = {name for name, p in sam.named_parameters() if p.ndim > 1 and name.endswith(".weight")}
    named_so = {name for name in matrices if tables & set(name.split("."))}
    assert matrices - named_so == decayed  # cross_attn_token_to_image and patch_embed too, whatever they are called
    assert any("qkv.weight" in name for name in decayed) and any("conv" in name for name in decayed)


def test_layer_decay_slows_the_encoder_down_towards_the_image() -> None:
    sam = model()
    rates = {name: lr for name, (lr, _) in settings(sam, OptimConfig(lr=1.0, layer_decay=0.5)).items()}
    layers = sam.image_encoder.num_layers
    for name, rate in rates.items():
        part, _, inner = name.partition(".")
        steps = layers - sam.image_encoder.layer_index(inner) if part == "image_encoder" else 0
        assert rate == pytest.approx(0.5**steps), name
    assert min(rates.values()) == 0.5**layers and rates["image_encoder.neck.0.weight"] == 0.5


def test_parts_learn_at_rates_of_their_own() -> None:
    factors = LrFactors(image_encoder=0.5, mask_decoder=2.0)
    rates = {
        name: lr
        for name, (lr, _) in settings(model(), OptimConfig(lr=1.0, lr_factors=factors, layer_decay=0.5)).items()
    }
    assert rates["image_encoder.neck.0.weight"] == 0.25  # both factors count
    assert {lr for name, lr in rates.items() if name.startswith("prompt_encoder")} == {1.0}
    assert {lr for name, lr in rates.items() if name.startswith("mask_decoder")} == {2.0}


def test_what_is_frozen_has_no_group_and_stays_in_evaluation_mode() -> None:
    sam, frozen = model(), {"image_encoder"}
    freeze_parts(sam, frozen)
    assert not [name for name in settings(sam, OptimConfig()) if name.startswith("image_encoder")]
    set_train_mode(sam, frozen, batch_norm_frozen=False)
    assert not any(module.training for module in sam.image_encoder.modules())
    assert all(module.training for module in sam.mask_decoder.modules())


def test_frozen_batch_norm_stays_in_evaluation_mode_while_the_rest_trains() -> None:
    sam = model()
    set_train_mode(sam, set(), batch_norm_frozen=True)
    for module in sam.modules():
        assert module.training != isinstance(module, nn.BatchNorm2d)


def test_the_unused_classifier_of_vit_t_never_trains() -> None:
    names = settings(model("vit_t"), OptimConfig())
    assert not [name for name in names if ".head." in name or ".norm_head." in name]
