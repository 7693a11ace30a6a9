"""Looking at an installation and a machine, and saying what is wrong."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from mobilesam_core import __version__
from mobilesam_core.checkpoints.download import OFFICIAL_WEIGHTS, cache_folder, cached_weights
from mobilesam_core.doctor.packages import EXTRAS, NEEDED, version_of
from mobilesam_core.machine import (
    available_cores,
    free_memory,
    has_fast_bfloat16,
    processor,
    processor_units,
    total_memory,
)

_GIB = 2**30
_PATIENCE_S = 300  # a cold disk, or a machine at work, may take long to give torch
State = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    state: ``problem`` keeps something essential from working; ``note`` is good to know. remedy: what to do about it.
    """

    name: str
    value: str
    state: State = "ok"
    remedy: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All that was looked at, by section."""

    sections: Mapping[str, tuple[Check, ...]]

    @property
    def problems(self) -> int:
        return sum(check.state == "problem" for checks in self.sections.values() for check in checks)

    def to_json(self) -> dict[str, Any]:
        """Plain types for JSON."""
        sections = {name: [asdict(check) for check in checks] for name, checks in self.sections.items()}
        return {"healthy": self.problems == 0, "problems": self.problems, "sections": sections}


@dataclass
class _Probe:
    """What the probing process said. problems: of modules and steps, by name; ended: why it ended early, or None."""

    problems: dict[str, str | None] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    ended: str | None = None


def diagnose(*more: Check) -> Diagnosis:
    """Look at everything; takes a few seconds, for torch is loaded in a process of its own. Never raises.

    more: what else was looked at, of the command line.
    """
    found = _probe()
    return Diagnosis(
        {
            "Versions": _versions(found),
            "Computing": _computing(found),
            "Weights": _weights(found),
            "Space": _space(),
            "Extras": (*_extras(), *more),
        }
    )


def _probe() -> _Probe:
    modules = [each.module for each in NEEDED if each.module and version_of(each.distribution)]
    command = [sys.executable, "-m", "mobilesam_core.doctor.probe", *modules]
    # Where this process found the package, that one finds it too; last, since other packages may lie beside it.
    paths = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH", ""), str(Path(__file__).parents[2])]))
    try:
        ended = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE_S,
            check=False,
            env=os.environ | {"PYTHONPATH": paths},
        )
        said, reason = ended.stdout, f"the process ended with code {ended.returncode}" if ended.returncode else None
    except subprocess.TimeoutExpired as error:
        said = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else error.stdout or ""
        reason = f"no answer in {_PATIENCE_S} seconds"
    except OSError as error:
        said, reason = "", f"Python cannot be started: {error}"
    return _read_probe(said, reason)


def _read_probe(said: str, reason: str | None) -> _Probe:
    """What the lines of the probing process say; ``reason`` is why it did not end well, if it did not."""
    probe, begun = _Probe(), "Python"
    for line in said.splitlines():
        try:
            found = json.loads(line)
        except json.JSONDecodeError:  # of a library that prints
            continue
        if not isinstance(found, dict):
            continue
        begun = found.get("begin", begun)
        if name := found.get("imported") or found.get("step"):
            probe.problems[name] = found.get("problem")
        elif "begin" not in found:
            probe.facts |= found
    if reason is not None:
        probe.ended = f"{begun}: {reason}"
        probe.problems.setdefault(begun, reason)
    return probe


def _versions(found: _Probe) -> tuple[Check, ...]:
    system = f"{platform.system()} {platform.release()}, {platform.machine()}"
    checks = [
        Check("mobilesam", __version__),
        Check("Python", f"{platform.python_version()} ({sys.executable})"),
        Check("system", system),
    ]
    for package in NEEDED:
        version = version_of(package.distribution)
        problem = found.problems.get(package.module or "")
        if version is None:
            checks.append(Check(package.distribution, "missing", "problem", f"pip install {package.distribution}"))
        elif problem is not None:
            remedy = f"pip install --force-reinstall {package.distribution}"
            if package.distribution in ("torch", "torchvision"):
                remedy = "Install builds of torch and torchvision that belong together."
            checks.append(Check(package.distribution, f"{version} cannot be loaded: {problem}", "problem", remedy))
        else:
            checks.append(Check(package.distribution, version))
    if found.ended and found.ended.partition(":")[0] == "Python":
        checks.append(Check("loading", found.ended, "problem", "Run the same Python by hand."))
    return tuple(checks)


def _computing(found: _Probe) -> tuple[Check, ...]:
    checks = [Check("processor", f"{processor()}, {available_cores()} of {os.cpu_count() or '?'} cores usable")]
    units = ", ".join(processor_units())
    if has_fast_bfloat16():
        hint = f"{units}: bfloat16 is fast here (--precision bf16, train.precision: bf16)"
        checks.append(Check("vector units", hint))
    elif units:
        checks.append(Check("vector units", units))
    if "devices" not in found.facts:
        checks.append(Check("devices", _why(found, "devices"), "problem", "See the packages above."))
        return tuple(checks)
    for index, device in enumerate(found.facts["devices"]):
        bf16 = ", bfloat16" if device["bf16"] else ""
        checks.append(Check(f"cuda:{index}", f"{device['name']}, {device['memory'] / _GIB:.0f} GiB{bf16}"))
    if not found.facts["devices"]:
        checks.append(_no_gpu(found.facts))
    checks.append(Check("threads of torch", str(found.facts["threads"])))
    if "providers" in found.facts:
        checks.append(Check("ONNX Runtime", ", ".join(found.facts["providers"])))
    elif problem := found.problems.get("providers"):
        checks.append(Check("ONNX Runtime", problem, "problem", "pip install --force-reinstall onnxruntime"))
    return tuple(checks)


def _no_gpu(facts: Mapping[str, Any]) -> Check:
    if facts["mps"]:
        return Check("GPU", "Apple's (train.device: mps, --device mps)")
    if shutil.which("nvidia-smi") is None:
        return Check("GPU", "none: everything runs on the CPU")
    built = f"torch is built for CUDA {facts['cuda']}" if facts["cuda"] else "torch is built without CUDA"
    remedy = "Install a build of torch for the driver's CUDA." if not facts["cuda"] else "Compare with nvidia-smi."
    return Check("GPU", f"there is a driver of NVIDIA, but torch sees no GPU; {built}", "note", remedy)


def _why(found: _Probe, step: str) -> str:
    return found.problems.get(step) or found.ended or "not looked at, since a package cannot be loaded"


def _weights(found: _Probe) -> tuple[Check, ...]:
    checks = []
    if "nano" in found.problems and found.problems["nano"] is None:
        checks.append(Check("nano", "part of the package, and runs"))
    else:
        checks.append(Check("nano", f"does not run: {_why(found, 'nano')}", "problem", "Install mobilesam again."))
    hint = "Set MOBILESAM_CACHE to a folder that may be written."
    try:
        folder = cache_folder()
    except RuntimeError as error:  # there is no home folder
        return (*checks, Check("cache", f"there is no place for it: {error}", "note", hint))
    for model, spec in OFFICIAL_WEIGHTS.items():
        path = cached_weights(spec)
        if path is not None:
            checks.append(Check(f"official, {model}", str(path)))
        elif model == "vit_t":
            size = f"{spec.size / 2**20:.0f} MiB"
            how = f"Downloaded ({size}) when first asked for; offline, put {spec.name} into {folder}."
            checks.append(Check(f"official, {model}", "not here yet", "note", how))
    if not _may_write(folder):
        checks.append(Check("cache", f"{folder} cannot be written", "note", hint))
    return tuple(checks)


def _may_write(folder: Path) -> bool:
    """Whether ``folder``, or what it would be made in, may be written."""
    try:
        there = next((each for each in (folder, *folder.parents) if each.exists()), None)
    except OSError:  # it lies in a folder that may not be entered
        return False
    return there is not None and there.is_dir() and os.access(there, os.W_OK)


def _space() -> tuple[Check, ...]:
    checks = []
    total, free = total_memory(), free_memory()
    if total is not None:
        text = f"{total / _GIB:.1f} GiB" + ("" if free is None else f", {min(free, total) / _GIB:.1f} free")
        little = min(total, free or total) < 3 * _GIB
        hint = "Training nano takes 3 GiB, vit_t 5: lower optim.batch_size." if little else ""
        checks.append(Check("memory", text, "note" if little else "ok", hint))
    try:
        here = Path.cwd()
        disk = shutil.disk_usage(here).free
    except OSError as error:
        checks.append(Check("disk", f"the working directory cannot be looked at: {error}", "note"))
        return tuple(checks)
    little = disk < 2 * _GIB
    hint = "A run of vit_t takes some 300 MiB, its embeddings 2 MiB an image." if little else ""
    checks.append(Check("disk", f"{disk / _GIB:.1f} GiB free in {here}", "note" if little else "ok", hint))
    if not os.access(here, os.W_OK):
        checks.append(Check("folder", f"{here} cannot be written", "note", "Results go there unless told otherwise."))
    return tuple(checks)


def _extras() -> tuple[Check, ...]:
    checks = []
    for extra in EXTRAS:
        versions = {name: version_of(name) for name in extra.packages}
        if all(versions.values()):
            checks.append(Check(extra.name, ", ".join(f"{name} {version}" for name, version in versions.items())))
        else:
            missing = ", ".join(name for name, version in versions.items() if version is None)
            remedy = f"For {extra.needed_by}: pip install 'mobilesam[{extra.name}]'"
            checks.append(Check(extra.name, f"{missing} missing", "note", remedy))
    return tuple(checks)
