"""Low-rank adapters of linear layers (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021).

``peft`` would do the same sums, but renames what it wraps (``base_layer``): official keys and strict state dicts would
have to undo it. Here a layer keeps its names and gains two, which takes less code than undoing would.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection
from fnmatch import fnmatchcase
from itertools import chain

from torch import Tensor, nn

from mobilesam_core.config.lora import LoraConfig
from mobilesam_core.errors import ConfigError
from mobilesam_core.models.lora_linear import LoraLinear
from mobilesam_core.models.sam import Sam

A, B = ".lora_a", ".lora_b"
"""How the names of an adapter's two matrices end."""


def add_adapters(model: Sam, config: LoraConfig) -> None:
    """Freeze all parts but those of ``config.full``, and give the layers that ``config.targets`` names adapters.

    What is frozen already, and the layers of full parts, get none.

    Raises:
        ConfigError: a target names no linear layer, or no layer is left to adapt; the model is unchanged.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    for target in config.targets:
        if not any(fnmatchcase(name, target) for name in layers):
            known = dict.fromkeys(re.sub(r"\.\d+(?=\.|$)", ".*", name) for name in layers)
            raise ConfigError(
                f"lora.targets: '{target}' names no linear layer of {model.config.name}.",
                f"It has {', '.join(known)}.",
            )
    chosen = [
        name
        for name, layer in layers.items()
        if layer.weight.requires_grad
        and name.split(".")[0] not in config.full
        and any(fnmatchcase(name, target) for target in config.targets)
    ]
    if not chosen:
        raise ConfigError(
            "No layer is left to adapt: all that lora.targets names is frozen or in lora.full.",
            "Name layers of other parts, or leave lora out.",
        )
    for name, part in model.named_children():
        if name not in config.full:
            part.requires_grad_(False)
    for name in chosen:
        _replace(model, name, LoraLinear(layers[name], config.rank, config.alpha))


def merged(model: Sam) -> Sam:
    """A model of plain layers that does the same as ``model``; what has no adapter is shared with it, not copied.

    A model without adapters is returned itself.
    """
    adapted = [name for name, module in model.named_modules() if isinstance(module, LoraLinear)]
    if not adapted:
        return model
    # To deepcopy, what the memo holds is copied already.
    plain = copy.deepcopy(model, {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())})
    for name in adapted:
        layer = plain.get_submodule(name)
        assert isinstance(layer, LoraLinear)
        _replace(plain, name, layer.merged())
    return plain


def split_state(model: Sam, full: Collection[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The state of a model with adapters as two: what stays as it came, and what learns (adapters, and the parts
    ``full``)."""
    base: dict[str, Tensor] = {}
    learnt: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        learns = name.endswith((A, B)) or name.split(".")[0] in full
        (learnt if learns else base)[name] = value
    return base, learnt


def _replace(model: Sam, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)
