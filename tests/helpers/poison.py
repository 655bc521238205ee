"""Make the decoder fail by a video's name, in every process that starts with `folder` on its PYTHONPATH.

Real files that crash one FFmpeg would work in the next. The tests check that the harm stays with the video.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from tests.helpers.tracked_things import track_row, tracks_table
from vtcav_ray.errors import InputError
from vtcav_ray.registry import TRACK_SOURCES
from vtcav_ray.rows import Failure
from vtcav_ray.store.commits import ShardOutput
from vtcav_ray.tracks.sources import Tracked, TrackSource
from vtcav_ray.video.decode import Video
from vtcav_ray.video.rehearse import Limits

LIMITS = Limits(max_frames=2000, max_pixels=10**6, cpu_seconds=30.0, stall_seconds=3.0, memory_bytes=400 * 2**20)

SITECUSTOMIZE = """
import av, ctypes, time

_open = av.open

def _harmful(file, *args, **kwargs):
    name = str(file).rsplit("/", 1)[-1]
    if "segv" in name:
        ctypes.string_at(0)  # a real segmentation fault
    if "hang" in name:
        time.sleep(1e5)
    if "lock" in name:
        ctypes.PyDLL(None).sleep(100_000)  # hangs and holds the interpreter's lock
    if "eats" in name:
        eaten = []
        while True:
            eaten.append(b"x" * 2**26)
    return _open(file, *args, **kwargs)

av.open = _harmful
"""


def install(folder: Path) -> str:
    """Write the module that Python imports at its start; return the folder, for PYTHONPATH."""
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
    return str(folder)


class Counter:
    """A worker that counts the frames of each video."""

    def __init__(self, dies_in_the_worker: str = "") -> None:
        self.dies_in_the_worker = dies_in_the_worker

    def __call__(self, rows: pa.Table) -> ShardOutput:
        counted, failures = [], []
        for row in rows.to_pylist():
            if row["video_id"] == self.dies_in_the_worker:
                os._exit(1)  # decoding it is harmless, but the worker dies on it
            try:
                with Video(row["uri"], max_frames=LIMITS.max_frames, max_pixels=LIMITS.max_pixels) as video:
                    counted.append({"video_id": row["video_id"], "n": sum(1 for _ in video.frames())})
            except InputError as error:
                failures.append(Failure.of_video(row, error))
        return ShardOutput({"tracks": pa.Table.from_pylist(counted)} if counted else {}, failures)


SOURCE = "decoded"


class Decoded(TrackSource):
    """A source that decodes each video, as a detector does, and finds one track without a model."""

    def tracks_of(self, videos: Sequence[tuple[str, Any]]) -> Tracked:
        for _, place in videos:
            with Video(place, max_frames=LIMITS.max_frames, max_pixels=LIMITS.max_pixels) as video:
                assert sum(1 for _ in video.frames())
        found = tracks_table([track_row(video_id) for video_id, _ in videos])
        return Tracked(found, [], {"videos": float(len(videos))})


@contextmanager
def decoding_source() -> Iterator[None]:
    """Register the source."""
    TRACK_SOURCES.register(SOURCE)(Decoded)
    try:
        yield
    finally:
        TRACK_SOURCES._entries.pop(SOURCE, None)
