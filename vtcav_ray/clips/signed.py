"""Copies among own clips, and between these and the corpus: by signatures made while clips are cut.

Copies of corpus videos are found before clips are planned, since a detector sees every video
(`vtcav_ray.tracks.copies`).
Own clips are first decoded when they are cut; so are the corpus videos of a run without a detector. Of two copies in
sets that are compared, the later one is left out, like a near-duplicate: a concept's clip is kept before a class
example, and that before a random clip.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from vtcav_ray.clips.parts import Spans, segment_of
from vtcav_ray.errors import InputError
from vtcav_ray.tracks.copies import NUMBERS, Pictures, find_copies
from vtcav_ray.video.decode import Video
from vtcav_ray.video.segments import Segment

_FIRST = {"concept": 0, "class": 1, "random": 2}
Row = dict[str, Any]
COLUMNS = ("clip_id", "video_id", "set", "given", "signature")


def signatures_of_video(video: Video, rows: Iterable[Row], spans: Spans) -> list[Row]:
    """Return rows of CLIP_SIGNATURES for rows of the plan that are cut from this file.

    Args:
        video: open.
        rows: of the plan, without `frames`.
        spans: of each part of the file that a row names. Parts without a frame have no signature.
    """
    by_part: dict[Segment | None, list[Row]] = defaultdict(list)
    for row in rows:
        by_part[segment_of(row)].append(row)
    found: list[Row] = []
    for part, of in by_part.items():
        span = spans[part]
        if isinstance(span, InputError):  # the clips have failed for the same reason
            continue
        pictures = Pictures()
        for frame in _frames(video, part, *span):
            pictures.add(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))
        if not pictures.is_empty:
            found += _signed(pictures.signature(), of)
    return found


def _frames(video: Video, part: Segment | None, first: int, count: int) -> Iterator[np.ndarray]:
    pairs = video.frames() if part is None else video.frames_at(range(first, first + count))
    yield from (frame for _, frame in itertools.islice(pairs, count))


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
    source_of: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """Return clip_id -> the clip that it repeats, of another source video.

    Args:
        signed: CLIP_SIGNATURES tables.
        corpus: SIGNATURES tables of the corpus's videos, if a detector has seen them.
        planned: video_id -> (clip_id, set) of the clips cut from a corpus video, without motion controls.
        distance: `clips.quality.copy_distance`.
        source_of: id of a file of the corpus -> its source video, where a manifest names one.
    """
    entries: dict[str, tuple[tuple[int, str], list[str], np.ndarray]] = {}
    of_video: dict[str, str] = {}
    for table in signed:
        for row in table.to_pylist():
            vector = np.asarray(row["signature"], np.float32)
            # The clips of one part of a corpus video share its signature; other segments of it have others.
            part = hashlib.sha256(vector.tobytes()).hexdigest()[:16]
            name = row["clip_id"] if row["given"] else f"corpus/{row['video_id']}/{part}"
            order, clips, _ = entries.get(name, ((9, ""), [], vector))
            entries[name] = (min(order, (_FIRST[row["set"]], name)), [*clips, row["clip_id"]], vector)
            of_video[name] = row["video_id"]
    for table in corpus:
        for row in table.to_pylist():
            video_id = source_of.get(row["video_id"], row["video_id"])
            clips_of = [(c, s) for c, s in planned.get(video_id, ()) if s != "concept"]
            if clips_of:
                name = f"corpus/{row['video_id']}"
                order = min((_FIRST[s], name) for _, s in clips_of)
                entries[name] = (order, [c for c, _ in clips_of], np.asarray(row["signature"], np.float32))
                of_video[name] = video_id
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
