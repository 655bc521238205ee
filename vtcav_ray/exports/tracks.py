"""Write a run's tracks in the format of another program: MOTChallenge, a folder per video.

    VIDEO_ID/gt/gt.txt      frame,id,left,top,width,height,confidence,class,visibility
    VIDEO_ID/gt/labels.txt  the names of the classes, from 1
    VIDEO_ID/seqinfo.ini    frame rate, number and size of frames

`tracks.format: mot` reads the folder (`vtcav_ray.tracks.formats.mot`): the boxes are the same to the last bit.
"""

from __future__ import annotations

import itertools
import operator
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vtcav_ray.errors import ConfigError
from vtcav_ray.runs.run import Run
from vtcav_ray.tracks.formats.mot import written

FORMATS = ("mot",)
_COLUMNS = ("video_id", "track_id", "label", "frames", "boxes", "confidence", "fps", "height", "width", "num_frames")
_VISIBLE = "-1"  # unknown


def export_tracks(run: Run, form: str, folder: str) -> int:
    """Write the tracks of a run.

    Args:
        run: with tracks.
        form: one of `FORMATS`.
        folder: a local folder, created if it is missing. Existing files of the same names are replaced.

    Returns:
        The number of videos that have tracks; each has a folder.

    Raises:
        ConfigError: an unknown format, `folder` is a file, or a video's id is no path of a folder.
    """
    if form not in FORMATS:
        raise ConfigError(f"--tracks {form!r}: choose from {', '.join(FORMATS)}.")
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise ConfigError(f"--to {folder} is a file. Give a folder for the tracks; it need not exist.")
    count = 0
    for _, part in run.stage("tracks").iter_tables("tracks", columns=_COLUMNS):
        # A video's rows lie together, in one shard.
        for video_id, rows in itertools.groupby(part.to_pylist(), operator.itemgetter("video_id")):
            _write_sequence(_folder_of(folder, video_id), video_id, list(rows))
            count += 1
    return count


def _folder_of(folder: str, video_id: str) -> Path:
    parts = video_id.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise ConfigError(f"The video id {video_id!r} is no path of a folder. Give the videos other ids.")
    return Path(folder, *parts)


def _write_sequence(place: Path, video_id: str, rows: Sequence[Mapping[str, Any]]) -> None:
    names = sorted({row["label"] for row in rows})
    (place / "gt").mkdir(parents=True, exist_ok=True)
    lines = []
    for row in rows:
        kind = names.index(row["label"]) + 1
        boxes = np.array(row["boxes"], np.float32)
        scores = np.array(row["confidence"], np.float32)
        for frame, box, score in zip(row["frames"], boxes, scores, strict=True):
            line = ",".join((*written(box), str(score), str(kind), _VISIBLE))
            lines.append((frame, row["track_id"], line))
    text = "".join(f"{frame + 1},{track},{line}\n" for frame, track, line in sorted(lines))
    (place / "gt" / "gt.txt").write_text(text, encoding="utf-8")
    (place / "gt" / "labels.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    first = rows[0]
    info = {
        "name": video_id,
        "imDir": "img1",
        "frameRate": repr(first["fps"]),
        "seqLength": first["num_frames"],
        "imWidth": first["width"],
        "imHeight": first["height"],
        "imExt": ".jpg",
    }
    body = "".join(f"{name}={value}\n" for name, value in info.items())
    (place / "seqinfo.ini").write_text(f"[Sequence]\n{body}", encoding="utf-8")
