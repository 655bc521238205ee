"""Folders of empty videos, and their listing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vtcav_ray.config import VideosConfig
from vtcav_ray.tables import VIDEOS
from vtcav_ray.videos.listing import list_videos


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * (1 + len(name)))


def listed(uri: str | Path, **options: Any) -> list[dict[str, Any]]:
    table, failures = list_videos(VideosConfig(uri=str(uri), **options))
    assert table.schema == VIDEOS
    assert failures == []
    return table.to_pylist()
