"""The part of a file that a row of the plan is cut from: a segment of a corpus video, or of an own clip's file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vtcav_ray.errors import InputError
from vtcav_ray.video.decode import Video
from vtcav_ray.video.segments import Segment, frame_ranges, outside

# Segment (None: the whole file) -> first frame and number of frames, or why there is none.
Spans = Mapping[Segment | None, tuple[int, int] | InputError]


def segment_of(row: Mapping[str, Any]) -> Segment | None:
    """Return the segment that a row of the plan is cut from; None: the whole file.

    A row with an `end` alone starts with the file.
    """
    start, end = row.get("start"), row.get("end")
    return None if start is None and end is None else Segment(start or 0.0, end)


def spans_of(video: Video, rows: Iterable[Mapping[str, Any]], max_frames: int) -> Spans:
    """Return the first frame and the number of frames of each part that rows of the plan name.

    A segment without a frame in the video has an `InputError` of kind `segment` instead.

    Args:
        video: the open file of all rows.
        rows: of the plan.
        max_frames: of a part; later frames are ignored.
    """
    parts = {segment_of(row) for row in rows}
    found: dict[Segment | None, tuple[int, int] | InputError] = {}
    if segments := sorted((part for part in parts if part is not None), key=lambda part: part.start):
        seconds = video.frame_seconds()
        last = float(seconds[-1]) if len(seconds) else 0.0
        for segment, frames in zip(segments, frame_ranges(segments, seconds, max_frames), strict=True):
            if frames is None:
                found[segment] = InputError("segment", f"{video.name} {outside(segment, last)}")
            else:
                found[segment] = frames[0], frames[1] - frames[0] + 1
    if None in parts:
        found[None] = 0, min(video.count(), max_frames)
    return found
