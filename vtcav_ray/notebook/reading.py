"""Clips from video files, for `vtcav_ray.explain`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vtcav_ray.errors import InputError
from vtcav_ray.video.decode import decode_frames, probe
from vtcav_ray.video.sample import spread_clips

PathLike = str | os.PathLike[str]


def read_clips(
    videos: PathLike | Iterable[PathLike], frames: int = 16, interval: int = 1, *, skip_bad: bool = False
) -> list[np.ndarray]:
    """Read one clip from the middle of each video, as a run reads class examples.

    Args:
        videos: files, or a folder: all files in it, by name.
        frames: T. A shorter video is looped from its start.
        interval: source frames from one frame of the clip to the next.
        skip_bad: warn about videos that can't be read, and leave them out.

    Returns:
        One `uint8 [T, H, W, 3]` per video, RGB, in the size of the video.

    Raises:
        ValueError: a video can't be read, has fewer than half of the frames, or there is none.
    """
    files = _files(videos)
    if not files:
        raise ValueError(f"There is no video in {videos}.")
    found = []
    for file in files:
        try:
            where = spread_clips(probe(file).num_frames, frames, interval, 1)[0]
            found.append(decode_frames(file, where)[0])
        except InputError as error:
            if not skip_bad:
                raise ValueError(f"{file} can't be used: {error.message} Set skip_bad=True to leave it out.") from error
            warnings.warn(f"{file} is left out: {error.message}", stacklevel=2)
    return found


def _files(videos: PathLike | Iterable[PathLike]) -> list[str]:
    if isinstance(videos, str | os.PathLike):
        folder = Path(videos)
        if not folder.is_dir():
            return [str(folder)]
        return sorted(str(file) for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    return [os.fspath(file) for file in videos]
