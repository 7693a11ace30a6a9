from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import contextlib, resource, sys, threading
{before}
def blocks():
    for _ in range(4):
        bytes(1) * (48 << 20)
{run}
begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
{run}
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begun) * resource.getpagesize() >> 20)
"""
KEEP = "from mobilesam_core.machine import keep_memory; assert keep_memory()"
COMMAND = """
from mobilesam_cli.app import main
sys.argv[1:] = ["--version"]
with contextlib.suppress(SystemExit):
    main()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
@pytest.mark.parametrize("run", ["blocks()", "thread = threading.Thread(target=blocks); thread.start(); thread.join()"])
@pytest.mark.parametrize(("before", "kept"), [("", False), (KEEP, True), (COMMAND, True)])
def test_memory_that_is_kept_is_not_asked_for_again(before: str, kept: bool, run: str) -> None:
    code = FAULTS.format(before=before, run=run)
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    megabytes = int(printed.split()[-1])
    assert megabytes < 5 if kept else megabytes > 100
