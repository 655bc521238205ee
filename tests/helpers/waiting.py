"""Wait for an event in short steps; make files look old instead of waiting for them to age."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def wait_for(what: Callable[[], T], seconds: float = 300, process: subprocess.Popen[Any] | None = None) -> T:
    """Return the first true answer, while this process runs.

    The limit is for a busy machine, on which a process takes a minute to start.
    """
    end = time.monotonic() + seconds
    while not (found := what()):
        assert process is None or process.poll() is None, "the process ended before it came"
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)
    return found


def make_old(folder: Path, seconds: float) -> None:
    """Move the times of all files below a folder into the past."""
    for path in folder.rglob("*"):
        written = path.stat().st_mtime - seconds
        os.utime(path, (written, written))
