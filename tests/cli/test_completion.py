"""Completion in the shell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mobilesam_cli.completion import complete_checkpoint, complete_config, installed_for

PROGRAM = "import sys; sys.argv = ['mobilesam']; from mobilesam_cli.app import main; main()"


def test_the_shell_is_offered_commands_and_packaged_configs(tmp_path: Path) -> None:
    def complete(line: str) -> list[str]:
        words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, **words, "_MOBILESAM_COMPLETE": "complete_bash"},
            check=False,
        )
        return ended.stdout.split()

    (tmp_path / "mine.yaml").touch()
    assert {"doctor", "distill", "data"} <= set(complete("mobilesam d"))
    assert complete("mobilesam train q") == ["quickstart"]
    assert complete("mobilesam train m") == ["mine.yaml"]
    assert complete("mobilesam predict --checkpoint n") == ["nano"]


def test_files_are_offered_by_their_suffix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.yaml", "a.yml", "a.json", ".a.yaml", "runs/best.safetensors", "runs/log.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert complete_config("a") == ["a.yaml", "a.yml"]
    assert complete_config("") == ["quickstart", "a.yaml", "a.yml", "runs/"]
    assert complete_config("./r") == ["./runs/"] and complete_config("none/") == []
    assert complete_checkpoint("runs/") == ["runs/best.safetensors"]
    assert complete_checkpoint("") == ["official", "nano", "runs/"]


def test_whether_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert installed_for() == ("fish", False)
    (tmp_path / ".config/fish/completions").mkdir(parents=True)
    (tmp_path / ".config/fish/completions/mobilesam.fish").touch()
    assert installed_for() == ("fish", True)
    monkeypatch.setenv("SHELL", "/bin/odd")
    assert installed_for() == ("odd", None)
    monkeypatch.delenv("SHELL")
    assert installed_for() == ("unknown", None)
