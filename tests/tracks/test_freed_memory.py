"""Freed memory that stays in the process."""

from __future__ import annotations

import ctypes
import functools
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vtcav_ray.tracks import freed_memory

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# Allocates and frees 64 MB, which glibc would map and unmap, and counts the page faults of doing so again.
_PROGRAM = """
import ctypes, resource, sys
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
if sys.argv[1] == "kept":
    from vtcav_ray.tracks.freed_memory import keep_freed_memory
    assert keep_freed_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(64 << 20)
    ctypes.memset(block, 1, 64 << 20)
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.fixture(autouse=True)
def _not_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freed_memory, "keep_freed_memory", freed_memory.keep_freed_memory.__wrapped__)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
@pytest.mark.skipif("[always]" in HUGE_PAGES.read_text() if HUGE_PAGES.exists() else False, reason="pages are huge")
def test_a_large_block_is_used_again_without_page_faults() -> None:
    faults = {
        how: int(subprocess.run([sys.executable, "-c", _PROGRAM, how], capture_output=True, check=True).stdout)
        for how in ("kept", "returned")
    }
    assert faults["kept"] < 100
    assert faults["returned"] > 1000


def test_without_glibc_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    assert not freed_memory.keep_freed_memory()


def test_an_older_glibc_takes_the_largest_size_that_it_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def mallopt(option: int, size: int) -> int:
        asked.append((option, size))
        return int(option == -1 or size <= 32 << 20)

    library: Any = SimpleNamespace(mallopt=mallopt)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    assert freed_memory.keep_freed_memory()
    assert asked == [(-3, 2**31 - 1), (-3, 32 << 20), (-1, 2**31 - 1)]


def test_some_is_kept_unless_all_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    library: Any = SimpleNamespace(mallopt=lambda *numbers: asked.append(numbers) or 1)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    monkeypatch.setattr(freed_memory, "keep_freed_memory", functools.cache(freed_memory.keep_freed_memory))
    keep_some = freed_memory.keep_some_freed_memory.__wrapped__
    assert keep_some()
    assert asked == [(-3, 4 << 20), (-1, 64 << 20)]
    assert freed_memory.keep_freed_memory()
    asked.clear()
    assert keep_some()
    assert not asked


@pytest.mark.slow
def test_workers_on_a_cpu_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from vtcav_ray.config import Config
    from vtcav_ray.tracks import sources
    from vtcav_ray.tracks.stage import TrackWorker

    kept = []
    monkeypatch.setattr(sources, "keep_freed_memory", lambda: kept.append(True))
    TrackWorker(Config.model_validate({"videos": {"uri": "x"}, "out": "y"}))
    assert kept == [True]
