"""A corpus of empty files with a stand-in for the detector, for runs that look at no more videos than they need."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.helpers.tracked_things import track_row, tracks_table
from vtcav_ray.config import Config
from vtcav_ray.config.loading import load_config
from vtcav_ray.errors import InputError
from vtcav_ray.registry import TRACK_SOURCES
from vtcav_ray.rows import Failure
from vtcav_ray.tracks.sources import Tracked, TrackSource

QUICKSTART = str(Path(__file__).parents[2] / "configs" / "quickstart.yaml")
LABELS = ("lift", "put_down", "push_left", "push_right")
CUP = 0.4  # share of the videos that show a cup
BALL = 0.15  # share of the videos of `push_left` that show a ball; no other label has one
BAD = 0.03  # share of the videos that can't be read
SOURCE = "drawn_by_hash"


def chance(video_id: str, what: str) -> float:
    """Return a number in [0, 1) that a video has for a purpose."""
    return int.from_bytes(hashlib.sha256(f"{what} {video_id}".encode()).digest()[:6], "big") / 2**48


class DrawnByHash(TrackSource):
    """A source whose tracks depend on the video's name. It opens no file, and sleeps as long as `weights` says."""

    def tracks_of(self, videos: Sequence[tuple[str, Any]]) -> Tracked:
        seconds = float(self.config.tracks.tracker_options.get("seconds", 0.0))
        time.sleep(seconds * len(videos) * (0.5 + chance(videos[0][0], "time")))
        rows, failures = [], []
        for video_id, _ in videos:
            if chance(video_id, "bad") < BAD:
                row = {"video_id": video_id, "uri": video_id}
                failures.append(Failure.of_video(row, InputError("broken", "it can't be read")))
                continue
            label = video_id.split("/")[0]
            if chance(video_id, "cup") < CUP:
                rows.append(track_row(video_id, 1, "cup"))
            if label == "push_left" and chance(video_id, "ball") < BALL:
                rows.append(track_row(video_id, 2, "ball"))
            rows.append(track_row(video_id, 3, "box", step=(0.0, 0.0)))
        return Tracked(tracks_table(rows), failures, {"videos": float(len(videos))})


@contextmanager
def hash_source() -> Iterator[None]:
    """Register the source."""
    TRACK_SOURCES.register(SOURCE)(DrawnByHash)
    try:
        yield
    finally:
        TRACK_SOURCES._entries.pop(SOURCE, None)


def write_corpus(folder: Path, videos: int = 1200) -> None:
    """Write empty files, in a folder for each label."""
    for label in LABELS:
        (folder / label).mkdir(parents=True)
    for i in range(videos):
        (folder / LABELS[i % 4] / f"{i:05d}.mp4").write_bytes(b"no video")


def config_of(corpus: Path, out: Path, *more: str) -> Config:
    """Return a config that asks for cups and balls, in rounds of 64 videos."""
    settings = [
        f"videos={{uri: '{corpus}', round: 64}}",
        f"tracks={{source: {SOURCE}}}",
        "clips.frames=8",
        "clips.per_class=20",
        "clips.min_per_class=4",
        "clips.per_concept=10",
        "clips.min_per_concept=4",
        "clips.random_pool=30",
        "clips.quality.copy_distance=null",
        "clips.concepts=[{name: cup, object: cup, kinds: [spatial]}, {name: ball, object: ball, kinds: [spatial]}]",
    ]
    return load_config(QUICKSTART, [*settings, *more], out=str(out))
