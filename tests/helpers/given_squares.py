"""Tracks of a square that moves right, as rows and lines, and the reading of them without the other stages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.helpers.drawn import encode, square_video
from vtcav_ray.config import Config
from vtcav_ray.config.loading import parse_config
from vtcav_ray.rows import Failure
from vtcav_ray.store.commits import ShardOutput
from vtcav_ray.store.folder import Folder
from vtcav_ray.tracks.given_index import find_tracks
from vtcav_ray.tracks.stage import TrackWorker
from vtcav_ray.videos.listing import list_videos

SIZE = (96, 128)
SIDE = 16
FRAMES = 24


def x_of(frame: float) -> float:
    """Where the square's left side is: it moves right by two pixels a frame."""
    return 10 + 2 * frame


def box_of(frame: float) -> list[float]:
    return [x_of(frame), 30, x_of(frame) + SIDE, 30 + SIDE]


def mot_lines(frames: Sequence[int] = range(FRAMES), track: int = 1) -> list[str]:
    return [f"{frame + 1},{track},{x_of(frame) + 1},31,{SIDE},{SIDE},1,1,1" for frame in frames]


def config_of(videos: Path, source: Path | str, form: str, **tracks: Any) -> Config:
    return parse_config({"videos": {"uri": str(videos)}, "tracks": {"source": str(source), "format": form, **tracks}})


def run(config: Config, folder: Path) -> tuple[pa.Table, dict[str, Failure], list[str]]:
    """Find and read the tracks, two videos per shard; return (tracks, failures by video, warnings)."""
    listed, _ = list_videos(config.videos)
    found = find_tracks(config.tracks, listed, 2, Folder(str(folder)))
    worker = TrackWorker(config, {}, found.folder)
    parts: list[ShardOutput] = [worker(found.videos.slice(start, 2)) for start in range(0, listed.num_rows, 2)]
    failures = {str(f.video_id): f for part in parts for f in part.failures}
    warnings = [*found.warnings, *(warning for part in parts for warning in part.warnings)]
    signed = [name for part in parts for name in part.tables["signatures"]["video_id"].to_pylist()]
    assert sorted(signed) == sorted(set(listed["video_id"].to_pylist()) - failures.keys())
    return pa.concat_tables([part.tables["tracks"] for part in parts]), failures, warnings


def write_parquet(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), file)
    return file


def rows_of(video: str, frames: Sequence[int] = range(FRAMES), **changes: Any) -> list[dict[str, Any]]:
    rows = []
    for frame in frames:
        box = dict(zip(("x1", "y1", "x2", "y2"), box_of(frame), strict=True))
        rows.append({"video_id": video, "track_id": "s", "label": "square", "frame": frame, **box, **changes})
    return rows


def write_videos(folder: Path) -> None:
    """Write a.mp4 to e.mp4: 24 frames at 25 fps."""
    for i, name in enumerate("abcde"):
        frames, _ = square_video([(x_of(frame), 30) for frame in range(FRAMES)], seed=i, height=SIZE[0], width=SIZE[1])
        (folder / f"{name}.mp4").write_bytes(encode(frames, options={"crf": "12", "preset": "ultrafast"}))
