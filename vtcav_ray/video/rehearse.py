"""Decode suspect videos in a separate process, which may crash, hang, or run out of memory.

Isolation costs a second decoding, so it is used only for the videos of a shard whose worker died. The child process has
no credentials (the parent fetches remote videos, and the child's environment is a short list), a limit on its address
space, and a guard against stuck calls. It reads each video in the ways that the stages do: all frames in order, the
count, a jump.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vtcav_ray.errors import InputError, StageError
from vtcav_ray.video.fetch import fetch
from vtcav_ray.video.limits import MAX_HELD_BYTES

# What the child may report: `fine` (which includes files that are refused cleanly) or one of these.
KINDS = ("crashed", "timeout", "memory")
# The child's whole environment: what locates Python, its packages and shared libraries, and a folder for temporary
# files. A list of secrets to remove would miss the next one.
_ENVIRONMENT = frozenset({
    "PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PYTHONUTF8", "VIRTUAL_ENV",
    "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "OMP_NUM_THREADS", "MALLOC_ARENA_MAX",
})  # fmt: skip
_STUCK_STATUS = 97
_FAULTHANDLER_STATUS = 1
_OWN_FAULT_STATUS = 96
_START_SECONDS = 60.0


@dataclass(frozen=True)
class Limits:
    """Limits for one video.

    Attributes:
        max_frames, max_pixels: see `vtcav_ray.video.decode.Video`.
        cpu_seconds: processor time in the decoder.
        stall_seconds: maximum duration of one decoder call.
        memory_bytes: for the child process, in addition to what it holds before the first video.
        held_bytes: for whole frames at a time; see `vtcav_ray.video.decode.Video`.
    """

    max_frames: int
    max_pixels: int
    cpu_seconds: float
    stall_seconds: float
    memory_bytes: int
    held_bytes: int = MAX_HELD_BYTES


@dataclass(frozen=True)
class Bad:
    """A video that harms the process that decodes it."""

    error_kind: str  # one of KINDS
    message: str
    attempts: int  # child processes that died for it


def rehearse(
    uris: Sequence[str], limits: Limits, attempts: int, storage_options: Mapping[str, Any] | None = None
) -> dict[str, Bad]:
    """Find the videos that harm the process that decodes them.

    Args:
        uris: each on any fsspec URL.
        attempts: number of consecutive child processes that must fail on a video before it counts as bad.
        storage_options: for fsspec.

    Returns:
        uri -> what it did, for the bad ones only.

    Raises:
        OSError: permission is missing, or the network failed.
    """
    bad: dict[str, Bad] = {}
    child: _Child | None = None
    try:
        for uri in uris:
            with _local(uri, storage_options) as path:
                for attempt in range(1, attempts + 1):
                    child = child or _Child(limits)
                    found = child.try_video(path)
                    if found is None:
                        break
                    child.close()
                    child = None
                    if attempt == attempts:
                        bad[uri] = Bad(found[0], f"{uri} {found[1]}", attempts)
    finally:
        if child is not None:
            child.close()
    return bad


@contextlib.contextmanager
def _local(uri: str, storage_options: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield a local path with the video's bytes, or an empty file if they can't be fetched."""
    try:
        source = fetch(uri, storage_options)
    except InputError:  # the worker will report it cleanly
        yield os.devnull
        return
    if not isinstance(source, bytes):
        yield os.fspath(source)
        return
    with tempfile.NamedTemporaryFile(suffix=Path(uri).suffix[:8]) as file:
        file.write(source)
        file.flush()
        yield file.name


class _Child:
    """The child process. Each path sent on a line gets one line as answer."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vtcav_ray.video.rehearse", json.dumps(asdict(limits))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            raise self._own_fault()

    def try_video(self, path: str) -> tuple[str, str] | None:
        """Return None if the video is fine, else (kind, what it did)."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        # The child enforces its own limits. This timer is for a child that no longer can.
        patience = _START_SECONDS + 4 * (self.limits.cpu_seconds + self.limits.stall_seconds)
        timer = threading.Timer(patience, self.process.kill)
        timer.start()
        try:
            self.process.stdin.write(json.dumps(path) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            late = not timer.is_alive()
            timer.cancel()
        if answer:
            kind, message = json.loads(answer)
            return (kind, message) if kind in KINDS else None
        status = self.process.wait()
        if status == _OWN_FAULT_STATUS:
            raise self._own_fault()
        if late or status in (_STUCK_STATUS, _FAULTHANDLER_STATUS):
            return "timeout", f"does not come to an end: a decoder call took over {self.limits.stall_seconds:.0f} s."
        return "crashed", f"crashed the process that decoded it ({_status_name(status)})."

    def _own_fault(self) -> StageError:
        return StageError(
            f"The process that checks suspect videos failed with exit status {self.process.wait()}, and no video is "
            "to blame. See the worker's log on its node for the traceback."
        )

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def _status_name(status: int) -> str:
    return signal.Signals(-status).name if -status in set(signal.Signals) else f"exit status {status}"


def _try(path: str, limits: Limits) -> tuple[str, str]:
    from vtcav_ray.video.decode import Video

    try:
        with Video(
            path,
            max_frames=limits.max_frames,
            max_pixels=limits.max_pixels,
            max_held_bytes=limits.held_bytes,
            max_cpu_seconds=limits.cpu_seconds,
        ) as video:
            for _ in video.frames():
                pass
            last = video.num_frames - 1
            for _ in video.frames_at(sorted({max(0, last // 2), max(0, last)})):
                pass
            video.count()
    except InputError as error:
        return (error.kind, error.message) if error.kind in KINDS else ("fine", error.kind)
    except MemoryError:
        return "memory", f"needs more than {limits.memory_bytes / 1e9:.1f} GB."
    except OSError as error:  # this machine's disk failed: not the video's fault, and the worker will meet it too
        return "fine", str(error)
    return "fine", ""


def main() -> None:
    """Run the child process."""
    from vtcav_ray.video.guard import Guard

    def own_fault(*error: Any) -> None:
        sys.__excepthook__(*error)
        os._exit(_OWN_FAULT_STATUS)

    sys.excepthook = own_fault
    limits = Limits(**json.loads(sys.argv[1]))
    with open("/proc/self/statm", encoding="ascii") as file:
        has = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (has + limits.memory_bytes, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print("ready", flush=True)
    with Guard(limits.stall_seconds, end=lambda reason: os._exit(_STUCK_STATUS)):
        for line in sys.stdin:
            print(json.dumps(_try(json.loads(line), limits)), flush=True)


if __name__ == "__main__":
    main()
