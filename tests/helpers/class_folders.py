"""A small planted world in the layout of most corpora: one folder per class."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq

from vtcav_ray.world import write_world


def class_folders(place: Path, videos: int) -> Path:
    """Render a world into `place/world`, copy its videos into `place/videos/CLASS/`, and return `place/videos`."""
    write_world(str(place / "world"), videos=videos, seed=5)
    for row in pq.read_table(place / "world" / "videos.parquet").to_pylist():
        target = place / "videos" / row["label"] / Path(row["uri"]).name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(place / "world" / row["uri"], target)
    return place / "videos"
