"""``mobilesam doctor``: the truth about a machine, and about broken ones."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobilesam_core import machine
from mobilesam_core.doctor import packages, workflow
from mobilesam_core.doctor.packages import EXTRAS, NEEDED, Extra, Package, version_of

Run = Callable[..., Any]
REPOSITORY = Path(__file__).parents[2]
FINE = "\n".join(
    json.dumps(each)
    for each in (
        {"begin": "torch"},
        {"imported": "torch", "problem": None},
        {"begin": "devices"},
        {"cuda": None, "devices": [], "mps": False, "threads": 2},
        {"step": "devices", "problem": None},
        {"begin": "nano"},
        {"step": "nano", "problem": None},
    )
)


def state(document: Any, section: str, name: str) -> tuple[str, str]:
    return next((each["state"], each["value"]) for each in document["sections"][section] if each["name"] == name)


def test_here_everything_works(run_cli: Run) -> None:
    ran = run_cli("doctor", "--json")
    assert ran.code == 0 and ran.json["healthy"] and ran.json["problems"] == 0
    assert state(ran.json, "Versions", "torch")[0] == "ok"
    assert state(ran.json, "Weights", "nano") == ("ok", "part of the package, and runs")
    assert "cores usable" in state(ran.json, "Computing", "processor")[1]
    assert "CPUExecutionProvider" in state(ran.json, "Computing", "ONNX Runtime")[1]
    assert {each["name"] for each in ran.json["sections"]["Extras"]} == {*(e.name for e in EXTRAS), "completion"}


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str | None], None]:
    """Sets what the probing process says, and how it ended."""

    def probe(said: str, reason: str | None = None) -> None:
        monkeypatch.setattr(workflow, "_probe", lambda: workflow._read_probe(said, reason))

    return probe


def test_a_missing_package_is_a_problem(run_cli: Run, probed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    probed(FINE)
    monkeypatch.setattr(workflow, "NEEDED", (*NEEDED, Package("no-such-package")))
    monkeypatch.setattr(workflow, "EXTRAS", (Extra("more", ("none-of-this",), "mobilesam fly"),))
    ran = run_cli("doctor")
    assert ran.code == 1
    assert re.search(r"✗ no-such-package +missing\n +→ pip install no-such-package", ran.out)
    assert "→ For mobilesam fly: pip install 'mobilesam[more]'" in ran.out
    assert "1 problem(s)." in ran.out


def test_a_library_that_ends_the_process_is_named(run_cli: Run, probed: Any) -> None:
    probed(
        'library prints\n[1]\n{"begin": "numpy"}\n{"imported": "numpy", "problem": null}\n{"begin": "torch"}\n',
        "the process ended with code -4",
    )
    ran = run_cli("doctor", "--json")
    assert ran.code == 1
    assert state(ran.json, "Versions", "numpy")[0] == "ok"
    found, value = state(ran.json, "Versions", "torch")
    assert found == "problem" and value.endswith("cannot be loaded: the process ended with code -4")
    assert state(ran.json, "Weights", "nano")[0] == "problem"


def test_an_import_that_fails_is_told_by_the_real_probe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libcudart is\\n missing')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(workflow, "NEEDED", (Package("torch", "torch"),))
    found = workflow._probe()
    assert found.problems == {"torch": "OSError: libcudart is missing"} and found.ended is None
    (tmp_path / "torch.py").write_text("import os; os.abort()")
    found = workflow._probe()
    assert "ended with code" in (found.problems["torch"] or "")


def test_a_python_that_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/python")
    assert any(
        check.name == "loading" and check.state == "problem" for check in workflow.diagnose().sections["Versions"]
    )


def test_odd_machines_are_described_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probed: Any) -> None:
    probed(FINE)
    monkeypatch.setattr(machine, "_read", lambda file: "")
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.delattr("os.sysconf", raising=False)
    (tmp_path / "file").touch()
    monkeypatch.setenv("MOBILESAM_CACHE", str(tmp_path / "file/cache"))
    assert (machine.total_memory(), machine.free_memory(), machine.processor_units()) == (None, None, ())
    assert machine.processor() and machine.available_cores() >= 1
    sections = workflow.diagnose().sections
    assert not any(check.name == "memory" for check in sections["Space"])
    assert any(check.name == "cache" and check.state == "note" for check in sections["Weights"])


def test_gpus_are_named_and_a_driver_without_one_is_noted(
    run_cli: Run, probed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = {
        "cuda": "12.8",
        "devices": [{"name": "H100", "memory": 80 * 2**30, "bf16": True}],
        "mps": False,
        "threads": 8,
    }
    probed(FINE + "\n" + json.dumps(gpu))
    assert state(run_cli("doctor", "--json").json, "Computing", "cuda:0") == ("ok", "H100, 80 GiB, bfloat16")
    probed(FINE)
    monkeypatch.setattr(workflow.shutil, "which", lambda name: f"/bin/{name}")
    found, value = state(run_cli("doctor", "--json").json, "Computing", "GPU")
    assert found == "note" and "torch is built without CUDA" in value


def test_the_list_of_packages_is_the_project_s() -> None:
    text = (REPOSITORY / "pyproject.toml").read_text()
    needed = re.search(r"^dependencies = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert needed is not None
    assert set(re.findall(r'"([A-Za-z0-9-]+)', needed[1])) == {each.distribution for each in NEEDED}
    for extra in EXTRAS:
        listed = re.search(rf"^{extra.name} = \[(.*?)\]", text, re.MULTILINE)
        assert listed is not None and set(re.findall(r'"([A-Za-z0-9-]+)', listed[1])) == set(extra.packages)


def test_another_build_of_a_package_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name != "opencv-python":
            raise packages.importlib.metadata.PackageNotFoundError(name)
        return "4.10"

    monkeypatch.setattr(packages.importlib.metadata, "version", version)
    assert version_of("opencv-python-headless") == "4.10 (opencv-python)" and version_of("torch") is None


def test_without_a_home_and_with_a_cache_that_may_not_be_entered(
    run_cli: Run, probed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed(FINE)

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for variable in ("MOBILESAM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "home", homeless)
        patch.setattr(sys, "platform", "linux")
        document = run_cli("doctor", "--json").json
    assert document["healthy"] and state(document, "Weights", "cache")[0] == "note"

    def closed(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "exists", closed)
        assert not workflow._may_write(Path("/root/cache"))


def test_providers_that_cannot_be_listed_are_a_problem(run_cli: Run, probed: Any) -> None:
    probed(FINE + '\n{"step": "providers", "problem": "ImportError: no library"}')
    ran = run_cli("doctor", "--json")
    assert ran.code == 1 and state(ran.json, "Computing", "ONNX Runtime") == ("problem", "ImportError: no library")
