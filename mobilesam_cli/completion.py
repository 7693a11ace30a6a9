"""Completion in the shell: of values, and whether it is installed."""

from __future__ import annotations

import os
from pathlib import Path

_SCRIPTS = {
    "bash": ".bash_completions/mobilesam.sh",
    "zsh": ".zfunc/_mobilesam",
    "fish": ".config/fish/completions/mobilesam.fish",
}
"""Where ``mobilesam --install-completion`` puts its script, below the home folder."""


def complete_config(incomplete: str) -> list[str]:
    """Packaged configs, YAML files and folders that begin like this."""
    from mobilesam_core.config.loading import packaged_configs

    return [*_that_begin(packaged_configs(), incomplete), *_files(incomplete, (".yaml", ".yml"))]


def complete_checkpoint(incomplete: str) -> list[str]:
    """Names of weights, files of weights and folders that begin like this."""
    return [*_that_begin(["official", "nano"], incomplete), *_files(incomplete, (".safetensors", ".pt", ".pth"))]


def _that_begin(names: list[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _files(incomplete: str, suffixes: tuple[str, ...]) -> list[str]:
    begin = incomplete.rpartition("/")[2]
    prefix = incomplete[: len(incomplete) - len(begin)]
    try:
        found = sorted(os.scandir(Path(prefix or ".").expanduser()), key=lambda each: each.name)
        return [
            f"{prefix}{each.name}{'/' if each.is_dir() else ''}"
            for each in found
            if each.name.startswith(begin)
            and (begin or not each.name.startswith("."))
            and (each.is_dir() or each.name.endswith(suffixes))
        ]
    except OSError:
        return []


def installed_for() -> tuple[str, bool | None]:
    """The user's shell, and whether its completion is installed; None where that cannot be told."""
    shell = Path(os.environ.get("SHELL", "")).name
    script = _SCRIPTS.get(shell)
    try:
        return shell or "unknown", None if script is None else (Path.home() / script).is_file()
    except (OSError, RuntimeError):  # no home folder
        return shell or "unknown", None
