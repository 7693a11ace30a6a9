"""Which parameters learn, how fast, and with what decay."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import nn

from mobilesam_core.config.optim import OptimConfig
from mobilesam_core.models.sam import Sam

# Tables and tokens are looked up or added, not multiplied: shrinking them only blurs positions.
_UNDECAYED = {
    *("attention_biases", "pos_embed", "rel_pos_h", "rel_pos_w"),
    *("iou_token", "mask_tokens", "point_embeddings", "not_a_point_embed", "no_mask_embed"),
}


def freeze_parts(model: Sam, frozen: Collection[str]) -> None:
    """Stop the gradients of the parts ``frozen``, for good."""
    for name, part in model.named_children():
        if name in frozen:
            part.requires_grad_(False)


def let_learn(model: Sam, optimizer: torch.optim.Optimizer, frozen: Collection[str]) -> None:
    """Gradients for all that ``optimizer`` holds, but for the parts ``frozen`` now.

    It holds from the start what begins to learn later, so that its state is laid out alike all the time. AdamW passes
    over what has no gradient, and counts the steps of each parameter by itself.
    """
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        if id(parameter) in held:
            parameter.requires_grad_(name.split(".")[0] not in frozen)


def set_train_mode(model: Sam, frozen: Collection[str], batch_norm_frozen: bool) -> None:
    """Training mode for what learns; the parts ``frozen``, and BatchNorm if frozen, stay in evaluation mode.

    A frozen part in training mode would still move its BatchNorm statistics.
    """
    model.train()
    for name, part in model.named_children():
        if name in frozen:
            part.eval()
    if batch_norm_frozen:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def parameter_groups(model: Sam, config: OptimConfig) -> list[dict[str, Any]]:
    """AdamW groups: matrices with decay, all else without, each at the rate its part and layer learn at."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decayed = parameter.ndim > 1 and _UNDECAYED.isdisjoint(name.split("."))
            factor: float = getattr(config.lr_factors, name.split(".")[0])
            lr = config.lr * factor * _layer_scale(model, name, config.layer_decay)
            groups[lr, config.weight_decay if decayed else 0.0].append(parameter)
    return [{"params": group, "lr": lr, "weight_decay": decay} for (lr, decay), group in groups.items()]


def _layer_scale(model: Sam, name: str, layer_decay: float | None) -> float:
    """1 for the decoder; ``layer_decay`` to the number of layers between an encoder parameter and the decoder."""
    part, _, inner = name.partition(".")
    if layer_decay is None or part != "image_encoder":
        return 1.0
    encoder = model.image_encoder
    return layer_decay ** (encoder.num_layers - encoder.layer_index(inner))


def build_optimizer(
    model: Sam, config: OptimConfig, beside: Iterable[nn.Parameter] = (), *, fused: bool = False
) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) over :func:`parameter_groups`, and over what learns ``beside`` the model.

    fused: in one pass over each tensor; a loop of operations over all took a quarter of a step with one object.
    """
    groups = parameter_groups(model, config)
    if others := list(beside):
        groups.append({"params": others, "lr": config.lr, "weight_decay": 0.0})
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=fused)
