"""What decoding shows about the files of a shard: times of frames whose rate varies, and what a user should know."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from vtcav_ray.tables import SEGMENTS, TIMES
from vtcav_ray.video.segments import Range, Segment

_NAMED = 3  # videos that a warning names


@dataclass
class Media:
    """Facts about the videos of a shard, by video_id.

    Attributes:
        times: float64 [num_frames], seconds since the first frame; only of videos whose frame rate varies.
        choices: which of several video streams was decoded, in words.
        pixel_aspects: width of a stored pixel over its height, where it is not 1.
        segments: the frames of each segment; None: the video has no frame in it.
    """

    times: dict[str, np.ndarray] = field(default_factory=dict)
    choices: dict[str, str] = field(default_factory=dict)
    pixel_aspects: dict[str, float] = field(default_factory=dict)
    segments: dict[str, list[tuple[Segment, Range | None]]] = field(default_factory=dict)

    def add(self, video_id: str, times: np.ndarray | None, choice: str | None, pixel_aspect: float) -> None:
        """Note the facts about a video that was decoded to its end."""
        if times is not None:
            self.times[video_id] = times
        if choice is not None:
            self.choices[video_id] = choice
        if pixel_aspect != 1:
            self.pixel_aspects[video_id] = pixel_aspect

    def warnings(self) -> list[str]:
        """Return sentences for the user, at most one of each kind."""
        found = []
        if self.choices:
            found.append(
                f"Videos with several video streams: {len(self.choices)}. As in a player, the default stream is used, "
                f"else the largest: {_named(self.choices)}."
            )
        if self.pixel_aspects:
            aspects = {video: f"{aspect:.4g}:1" for video, aspect in self.pixel_aspects.items()}
            found.append(
                f"Videos whose pixels are not square: {len(aspects)}. Frames are used as stored, as MMAction2's "
                f"decoders give them, and are squeezed or stretched; a player corrects that: {_named(aspects)}."
            )
        return found

    def table(self, order: Collection[str]) -> pa.Table:
        """Return the `TIMES` table; its rows are in the order of the given video_ids."""
        rows = [{"video_id": video, "seconds": self.times[video]} for video in order if video in self.times]
        return pa.Table.from_pylist(rows, schema=TIMES)

    def segment_table(self, order: Collection[str]) -> pa.Table:
        """Return the `SEGMENTS` table; its rows are in the order of the given video_ids."""
        rows = [
            {
                "video_id": video,
                "start": segment.start,
                "end": segment.end,
                "first": None if frames is None else frames[0],
                "last": None if frames is None else frames[1],
            }
            for video in order
            for segment, frames in self.segments.get(video, ())
        ]
        return pa.Table.from_pylist(rows, schema=SEGMENTS)


def _named(facts: Mapping[str, str]) -> str:
    shown = "; ".join(f"{video} ({fact})" for video, fact in sorted(facts.items())[:_NAMED])
    more = len(facts) - _NAMED
    return f"{shown}, and {more} more" if more > 0 else shown
