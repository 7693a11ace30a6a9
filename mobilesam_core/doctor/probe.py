"""Imports and runs what may fail, in a process of its own: ``python -m mobilesam_core.doctor.probe MODULE...``.

A broken library may end the process that loads it. What was found until then stands on stdout, a JSON object a line.
"""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def say(**found: Any) -> None:
    """Tell the process that waits, at once."""
    print(json.dumps(found), flush=True)


def probe(modules: Sequence[str]) -> None:
    """Import ``modules``, look for devices, and run the embedded weights."""
    broken = False
    for module in modules:
        say(begin=module)
        problem = _problem(lambda module=module: importlib.import_module(module))  # type: ignore[misc]
        say(imported=module, problem=problem)
        broken |= problem is not None
    if broken:
        return
    for name, step in _STEPS.items():
        say(begin=name)
        problem = _problem(step)
        say(step=name, problem=problem)


def _problem(act: Callable[[], object]) -> str | None:
    try:
        act()
    except BaseException as error:
        text = " ".join(str(error).split())
        return f"{type(error).__name__}: {text}" if text else type(error).__name__
    return None


def _look_at_devices() -> None:
    import torch

    devices = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(index)
            devices.append({"name": facts.name, "memory": facts.total_memory, "bf16": torch.cuda.is_bf16_supported()})
    mps = bool(torch.backends.mps.is_available())
    say(cuda=torch.version.cuda, devices=devices, mps=mps, threads=torch.get_num_threads())


def _look_at_providers() -> None:
    import onnxruntime

    say(providers=onnxruntime.get_available_providers())


def _run_nano() -> None:
    import torch

    from mobilesam_core.checkpoints.loading import NANO, open_checkpoint

    model = open_checkpoint(NANO, image_size=64).model
    with torch.inference_mode():
        answer = model.image_encoder(torch.zeros(1, 3, 64, 64))
    if not bool(torch.isfinite(answer).all()):
        raise ArithmeticError("its answer is not finite")


_STEPS: Mapping[str, Callable[[], None]] = {
    "devices": _look_at_devices,
    "providers": _look_at_providers,
    "nano": _run_nano,
}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    probe(sys.argv[1:])
