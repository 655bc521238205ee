"""Copies among own clips, and between these and the corpus: by signatures made while clips are cut.

Copies of corpus videos are found before clips are planned, since a detector sees every video
(`vtcav_ray.tracks.copies`).
Own clips are first decoded when they are cut; so are the corpus videos of a run without a detector. Of two copies in
sets that are compared, the later one is left out, like a near-duplicate: a concept's clip is kept before a class
example, and that before a random clip.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from vtcav_ray.errors import InputError
from vtcav_ray.tracks.copies import NUMBERS, Pictures, find_copies
from vtcav_ray.video.decode import Video

_FIRST = {"concept": 0, "class": 1, "random": 2}
Row = dict[str, Any]
COLUMNS = ("clip_id", "video_id", "set", "given", "signature")


def part_of(video: Video, row: Mapping[str, Any], count: int) -> range:
    """Return the frames of the part of a file that an own clip is.

    Args:
        video: open, and counted.
        row: with `start` and `end`, seconds.
        count: number of its frames.

    Raises:
        InputError: `too_short`: no frame lies in the part.
    """
    start, end = row.get("start"), row.get("end")
    times = np.arange(count) / video.fps if video.seconds is None else np.asarray(video.seconds)[:count]
    first = 0 if start is None else int(np.searchsorted(times, start - 1e-6))
    last = count if end is None else int(np.searchsorted(times, end - 1e-6))
    if first >= last:
        raise InputError(
            "too_short",
            f"{video.name} has no frame from {start or 0:g} s to {'its end' if end is None else f'{end:g} s'}: it has "
            f"{count} frames, {times[-1] if count else 0:.1f} s.",
        )
    return range(first, last)


def signatures_of_video(video: Video, rows: Iterable[Row]) -> list[Row]:
    """Return rows of CLIP_SIGNATURES for rows of the plan that are cut from this file."""
    parts: dict[tuple[float | None, float | None], list[Row]] = defaultdict(list)
    for row in rows:
        parts[row.get("start"), row.get("end")].append(row)
    found: list[Row] = []
    for of in parts.values():
        pictures = Pictures()
        for frame in _frames(video, of[0]):
            pictures.add(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))
        found += _signed(pictures.signature(), of)
    return found


def _frames(video: Video, row: Row) -> Iterator[np.ndarray]:
    if row.get("start") is None and row.get("end") is None:
        yield from (frame for _, frame in video.frames())
        return
    try:
        part = part_of(video, row, video.count())
    except InputError:  # the clip has failed for the same reason
        part = range(1)
    yield from (frame for _, frame in video.frames_at(list(part)))


def signatures_of_image(image: np.ndarray, rows: Iterable[Row]) -> list[Row]:
    """Return rows of CLIP_SIGNATURES for rows of the plan that show this image."""
    pictures = Pictures()
    pictures.add(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    return _signed(pictures.signature(), rows)


def _signed(signature: np.ndarray, rows: Iterable[Row]) -> list[Row]:
    names = ("clip_id", "video_id", "set")
    return [{n: row[n] for n in names} | {"given": bool(row.get("given")), "signature": signature} for row in rows]


def repeated_clips(
    signed: Iterable[pa.Table],
    corpus: Iterable[pa.Table],
    planned: Mapping[str, list[tuple[str, str]]],
    distance: float,
) -> dict[str, str]:
    """Return clip_id -> the clip that it repeats, of another source video.

    Args:
        signed: CLIP_SIGNATURES tables.
        corpus: SIGNATURES tables of the corpus's videos, if a detector has seen them.
        planned: video_id -> (clip_id, set) of the clips cut from a corpus video, without motion controls.
        distance: `clips.quality.copy_distance`.
    """
    entries: dict[str, tuple[tuple[int, str], list[str], np.ndarray]] = {}
    of_video: dict[str, str] = {}
    for table in signed:
        for row in table.to_pylist():
            name = row["clip_id"] if row["given"] else f"corpus/{row['video_id']}"
            order, clips, vector = entries.get(name, ((9, ""), [], np.asarray(row["signature"], np.float32)))
            entries[name] = (min(order, (_FIRST[row["set"]], name)), [*clips, row["clip_id"]], vector)
            of_video[name] = row["video_id"]
    for table in corpus:
        for row in table.to_pylist():
            clips_of = [(c, s) for c, s in planned.get(row["video_id"], ()) if s != "concept"]
            if clips_of:
                name = f"corpus/{row['video_id']}"
                order = min((_FIRST[s], name) for _, s in clips_of)
                entries[name] = (order, [c for c, _ in clips_of], np.asarray(row["signature"], np.float32))
                of_video[name] = row["video_id"]
    names = sorted(entries, key=lambda name: entries[name][0])
    if not names:
        return {}
    vectors = np.stack([entries[name][2] for name in names]).reshape(-1, NUMBERS)
    found = find_copies(names, vectors, distance)
    return {
        clip: entries[first][1][0]
        for name, first in found.items()
        if of_video[name] != of_video[first]
        for clip in entries[name][1]
    }
