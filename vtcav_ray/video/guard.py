"""A guard that ends a process in which a decoder call is stuck, or which holds too much memory.

Neither can be fixed inside the process: a thread in C code can't be stopped. So the process ends, its parent starts
another, and the videos it was working on are checked one by one (`vtcav_ray.engine.attempts`).
"""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
import time
from collections.abc import Callable
from types import TracebackType

# Calls into FFmpeg that are under way in this process: thread -> (video, start time by `time.monotonic()`).
# `vtcav_ray.video.decode` writes it. It is defined here because actors of every stage are guarded, and few decode.
UNDER_WAY: dict[int, tuple[str, float]] = {}
_LOOK_SECONDS = 0.25
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Guard:
    """A watch over this process inside a `with` block.

    Args:
        stall_seconds: maximum duration of one decoder call. If a call holds the interpreter's lock, so that no Python
            thread runs, `faulthandler`'s own thread ends the process after three times as long.
        memory_bytes: limit of the process's resident memory; None: no limit.
        end: called with the reason; must not return. By default it writes the reason to stderr and kills the process.
    """

    def __init__(
        self, stall_seconds: float, memory_bytes: float | None = None, end: Callable[[str], None] | None = None
    ) -> None:
        self.stall_seconds, self.memory_bytes = stall_seconds, memory_bytes
        self.end = end or _kill_this_process
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Guard:
        self._stop.clear()
        self._thread = threading.Thread(target=self._watch, name="guard", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        armed = 0.0
        try:
            while not self._stop.wait(_LOOK_SECONDS):
                now = time.monotonic()
                if now - armed > self.stall_seconds / 2:
                    faulthandler.dump_traceback_later(3 * self.stall_seconds, exit=True, file=2)
                    armed = now
                if (stuck := self._stuck(now)) is not None:
                    self.end(stuck)
                if self.memory_bytes is not None and (held := resident_bytes()) > self.memory_bytes:
                    self.end(f"memory: {held / 1e9:.2f} GB are held, {self.memory_bytes / 1e9:.2f} GB are allowed")
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _stuck(self, now: float) -> str | None:
        for name, began in list(UNDER_WAY.values()):
            if now - began > self.stall_seconds:
                return f"timeout: the decoder has been stuck for {now - began:.0f} s in {name}"
        return None


def resident_bytes() -> int:
    """Return the resident memory of this process, in bytes."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * _PAGE_BYTES


def _kill_this_process(reason: str) -> None:
    os.write(2, f"vtcav: this process ends itself. {reason}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)
