"""What this machine has, as far as it can be told without torch, and how memory is used; nothing here ever raises."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from contextlib import suppress
from pathlib import Path

_UNITS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 BF16", "avx512_vnni": "AVX-512 VNNI", "avx2": "AVX2"}
"""What a processor's flags, as Linux names them, are called, the best first."""

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
"""Of glibc's malloc.h: free bytes from which memory is given back (-1: never), how many blocks may be asked for one by
one, how many pools the threads have."""


def available_cores() -> int:
    """CPU cores this process may use; batch systems often grant fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def total_memory() -> int | None:
    """Bytes of memory that this process may use, of the machine or its container; None where unknown."""
    found = []
    with suppress(AttributeError, ValueError, OSError):  # not on Windows
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = _read(file).strip()
        if text.isdigit():
            found.append(int(text))
    positive = [each for each in found if each > 0]
    return min(positive) if positive else None


def free_memory() -> int | None:
    """Bytes of memory that could be had without swapping; None where unknown."""
    for line in _read("/proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable" and rest.split()[:1] and rest.split()[0].isdigit():
            return int(rest.split()[0]) * 1024
    return None


def keep_memory() -> bool:
    """Have this process keep the memory it frees, and be given it again; whether that could be arranged.

    glibc asks the system for every block above 32 MiB anew, and gives it back. That a page is there when it is first
    written costs as much as a pass over it: a third of a training step of ``vit_t``'s decoder, a fifth of its encoder.
    All threads share what is kept. In exchange a process takes up to three tenths more memory, of threads that
    encode side by side up to three fifths. Other C libraries are left as they are.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl has none
        return False
    return all([mallopt(_M_MMAP_MAX, 0), mallopt(_M_TRIM_THRESHOLD, -1), mallopt(_M_ARENA_MAX, 1)])


def processor() -> str:
    """Its name; the architecture where it has none."""
    for line in _read("/proc/cpuinfo").splitlines():
        name, _, rest = line.partition(":")
        if name.strip() == "model name":
            return rest.strip()
    return platform.processor() or platform.machine() or "unknown"


def processor_units() -> tuple[str, ...]:
    """What of vector and matrix units it has, the best first; nothing where that is unknown."""
    for line in _read("/proc/cpuinfo").splitlines():
        name, _, rest = line.partition(":")
        if name.strip() == "flags":
            flags = set(rest.split())
            return tuple(title for flag, title in _UNITS.items() if flag in flags)
    return ()


def has_fast_bfloat16() -> bool:
    """Whether the processor has matrix units, on which bfloat16 is faster than float32."""
    return "AMX" in processor_units()


def _read(file: str) -> str:
    try:
        return Path(file).read_text(errors="replace")
    except OSError:
        return ""
