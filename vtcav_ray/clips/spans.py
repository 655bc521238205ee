"""Tracks, and spans of them, as arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vtcav_ray.clips.corpus import Example
from vtcav_ray.clips.motion import Motion
from vtcav_ray.video.segments import Range, frame_ranges

SECONDS = "seconds"  # column of times that `with_times` appends


@dataclass(eq=False, slots=True)  # not frozen: that takes three times as long to create, and there are millions
class Track:
    """One row of the TRACKS table as arrays; see the table for units.

    `times` are the seconds of every frame of the video (table TIMES); None: the frame rate is constant.
    """

    video_id: str
    track_id: int
    label: str
    frames: np.ndarray
    boxes: np.ndarray
    confidence: np.ndarray
    fps: float
    height: int
    width: int
    num_frames: int
    camera: np.ndarray
    sharpness: np.ndarray
    shot: np.ndarray
    times: np.ndarray | None = None

    def at(self, frames: np.ndarray) -> np.ndarray:
        """Return when frames are shown, in units of 1 / fps: their indices, unless the frame rate varies."""
        if self.times is None:
            return frames.astype(float)
        return np.asarray(self.times)[np.clip(frames, 0, len(self.times) - 1)] * self.fps


@dataclass(frozen=True, eq=False, slots=True)
class Span:
    """T frames of a track that are good enough for a clip.

    Attributes:
        frames: int32 [T] source frames, `interval` apart.
        boxes: float32 [T, 4] xyxy, source pixels; interpolated where the track has no box.
        motion: over these frames.
        pick: the frame (0 to T-1) that shows the object best: detected, whole, sharp.
        confidence: mean over the span.
        interval: distance between consecutive frames, in source frames.
        example: of the corpus that it lies in; None: unknown.
    """

    video_id: str
    track_id: int
    object: str
    frames: np.ndarray
    boxes: np.ndarray
    motion: Motion
    pick: int
    confidence: float
    interval: int
    example: Example | None = None


@dataclass(eq=False, slots=True)
class Spans:
    """Spans in columns, in which most spans of a large corpus stay: a `Span` is created only when it is needed.

    Attributes:
        frames: int32 [S, T].
        boxes: float32 [S, T, 4].

    The others are lists of S values; see `Span`.
    """

    video_ids: list[str]
    track_ids: list[int]
    objects: list[str]
    motions: list[Motion]
    picks: list[int]
    confidences: list[float]
    intervals: list[int]
    examples: list[Example | None]
    frames: np.ndarray
    boxes: np.ndarray

    def __len__(self) -> int:
        return len(self.objects)

    @property
    def shown(self) -> set[tuple[str, str]]:
        """(object, direction) of all spans."""
        return {(shown, motion.direction) for shown, motion in zip(self.objects, self.motions, strict=True)}

    def part(self, begin: int, end: int) -> Spans:
        """Return the spans from one place to another, as copies: views would keep all spans in memory."""
        mine = slice(begin, end)
        lists = [column[mine] for column in self._lists()]
        columns: list[Any] = [*lists, self.frames[mine].copy(), self.boxes[mine].copy()]
        return Spans(*columns)

    def at(self, places: Iterable[int]) -> list[Span]:
        """Return some spans, with arrays of their own."""
        return [
            Span(
                self.video_ids[i], self.track_ids[i], self.objects[i], self.frames[i].copy(), self.boxes[i].copy(),
                self.motions[i], self.picks[i], self.confidences[i], self.intervals[i], self.examples[i],
            )
            for i in places
        ]  # fmt: skip

    @classmethod
    def joined(cls, parts: Sequence[Spans]) -> Spans:
        """Return the spans of all parts, of which there is at least one."""
        if len(parts) == 1:
            return parts[0]
        lists = [list(chain(*columns)) for columns in zip(*(part._lists() for part in parts), strict=True)]
        arrays = [np.concatenate([getattr(part, name) for part in parts]) for name in ("frames", "boxes")]
        columns: list[Any] = [*lists, *arrays]
        return cls(*columns)

    def _lists(self) -> tuple[list[Any], ...]:
        return (
            self.video_ids, self.track_ids, self.objects, self.motions, self.picks, self.confidences, self.intervals,
            self.examples,
        )  # fmt: skip


def iter_tracks(table: pa.Table) -> Iterator[Track]:
    """Yield the rows of a TRACKS table without creating a Python object per number.

    The table may have the column of `with_times`.
    """
    table = table.combine_chunks()
    if not table.num_rows:
        return
    columns = {name: table.column(name).chunk(0) for name in table.column_names}
    offsets = columns["frames"].offsets.to_numpy()
    flat = (
        columns["frames"].values.to_numpy().astype(np.int64),
        columns["boxes"].values.values.to_numpy().reshape(-1, 4),
        columns["confidence"].values.to_numpy(),
        columns["camera"].values.values.to_numpy().reshape(-1, 2),
        columns["sharpness"].values.to_numpy(),
        columns["shot"].values.to_numpy(),
    )
    single = ("video_id", "track_id", "label", "fps", "height", "width", "num_frames")
    rows = zip(offsets[:-1].tolist(), offsets[1:].tolist(), *(_values(columns[name]) for name in single), strict=True)
    times = columns.get(SECONDS)
    for i, (begin, end, video_id, track_id, label, fps, height, width, num_frames) in enumerate(rows):
        frames, boxes, confidence, camera, sharpness, shot = (values[begin:end] for values in flat)
        seconds = times[i].values.to_numpy() if times is not None and times[i].is_valid else None
        yield Track(
            video_id, track_id, label, frames, boxes, confidence, fps, height, width, num_frames, camera, sharpness,
            shot, seconds,
        )  # fmt: skip


def _values(column: pa.Array) -> list[Any]:
    """Return a column as Python objects."""
    if pa.types.is_primitive(column.type) and not column.null_count:  # ten times as fast
        values: list[Any] = column.to_numpy().tolist()
        return values
    return column.to_pylist()


def part_in(track: Track, example: Example) -> Track | None:
    """Return the part of a track that lies in an example; None if nothing does."""
    if example.segment is None:
        return track
    frames = example.frames
    if frames is None:  # the source of the tracks did not look at the frames
        seconds = np.arange(track.num_frames) / track.fps if track.times is None else track.times
        (frames,) = frame_ranges([example.segment], seconds)
    return None if frames is None else _within(track, frames)


def _within(track: Track, frames: Range) -> Track | None:
    """Return the part of a track that lies in a range of source frames; None if nothing does."""
    begin, end = np.searchsorted(track.frames, (frames[0], frames[1] + 1))
    if begin == end:
        return None
    names = ("frames", "boxes", "confidence", "camera", "sharpness", "shot")
    return dataclasses.replace(track, **{name: getattr(track, name)[begin:end] for name in names})


def with_times(tracks: pa.Table, times: pa.Table) -> pa.Table:
    """Append to a TRACKS table the times of each row's video, null if its frame rate is constant.

    Args:
        times: TIMES table.
    """
    places = pc.index_in(tracks["video_id"], value_set=times["video_id"].combine_chunks())
    return tracks.append_column(SECONDS, times["seconds"].combine_chunks().take(places.combine_chunks()))
