"""Segments of a video: a start and an end in seconds, and the frames between them.

Time 0 is the first frame of the video. A frame belongs to a segment if start <= time < end, so consecutive segments
share no frame.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_ROUNDING = 1e-3  # seconds: containers round time stamps to milliseconds
_CLOCK = re.compile(r"(?:(\d{1,4}):)?(\d{1,4}):(\d{1,2}(?:\.\d*)?)")
Range = tuple[int, int]  # first and last frame


@dataclass(frozen=True, order=True)
class Segment:
    """A part of a video.

    Attributes:
        start: seconds since the first frame.
        end: seconds; None: the end of the video.
    """

    start: float = 0.0
    end: float | None = None

    @property
    def name(self) -> str:
        """The segment as a part of names: `12.5-20`, `12.5-` without an end."""
        return f"{_short(self.start)}-{'' if self.end is None else _short(self.end)}"

    def overlaps(self, other: Segment) -> bool:
        """Return whether two segments of one video share some time."""
        return self.start < _end(other) and other.start < _end(self)


WHOLE = Segment()


def seconds_of(text: str) -> float:
    """Return a time in seconds from text: seconds (`83.5`), `mm:ss` or `hh:mm:ss`, each with decimals if need be.

    Raises:
        ValueError: the text is none of these; the message is a clause.
    """
    text = text.strip()
    if (clock := _CLOCK.fullmatch(text)) is not None:
        hours, minutes, seconds = int(clock[1] or 0), int(clock[2]), float(clock[3])
        if seconds < 60 and (clock[1] is None or minutes < 60):
            return 3600 * hours + 60 * minutes + seconds
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{text[:40]!r} is not a time: give seconds (83.5) or hh:mm:ss (00:01:23.5)")
    return value


def frame_ranges(segments: Sequence[Segment], seconds_T: np.ndarray, most: int | None = None) -> list[Range | None]:
    """Return the first and the last frame of each segment; None: the video has no frame in it.

    Args:
        segments: of one video.
        seconds_T: float64 [T], the time of each frame of the video, rising.
        most: frames of a segment; later ones are ignored. None: all.
    """
    found: list[Range | None] = []
    for segment in segments:
        first = int(np.searchsorted(seconds_T, segment.start - _ROUNDING))
        last = len(seconds_T) if segment.end is None else int(np.searchsorted(seconds_T, segment.end - _ROUNDING))
        last = last if most is None else min(last, first + most)
        found.append((first, last - 1) if last > first else None)
    return found


def outside(segment: Segment, last_second: float) -> str:
    """Return a clause about a video that has no frame in a segment: its last frame is at `last_second`."""
    return f"has no frame in its segment {segment.name} s: its last frame is at {_short(last_second)} s."


def stretches(ranges: Sequence[Range | None]) -> list[Range]:
    """Return the frames of all ranges, as rising ranges that neither overlap nor touch."""
    merged: list[Range] = []
    for first, last in sorted(one for one in ranges if one is not None):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def _end(segment: Segment) -> float:
    return math.inf if segment.end is None else segment.end


def _short(seconds: float) -> str:
    return f"{seconds:.3f}".rstrip("0").rstrip(".")
