"""From tracks to spans that could become clips: quality filters and motion words, on metadata alone.

The candidates for a set are a bounded number, so memory does not grow with the number of tracks.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vtcav_ray.clips.classes import draw
from vtcav_ray.clips.corpus import Example
from vtcav_ray.clips.motion import Motion, describe_motions
from vtcav_ray.config import ClipsConfig
from vtcav_ray.video.segments import Range, frame_ranges

SECONDS = "seconds"  # column of times that `with_times` appends
SPANS_A_TRACK = 6  # number of positions tried along a track
FILTERS = ("track_length", "gaps", "cut", "box_size", "confidence", "blur")  # in the order of application


@dataclass(frozen=True, eq=False)
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


@dataclass(frozen=True, eq=False)
class Span:
    """T frames of a track that are good enough for a clip.

    Attributes:
        frames: int32 [T] source frames, `interval` apart.
        boxes: float32 [T, 4] xyxy, source pixels; interpolated where the track has no box.
        motion: over these frames.
        pick: the frame (0 to T-1) that shows the object best: detected, whole, sharp.
        confidence: mean over the span.
        interval: distance between consecutive frames, in source frames.
        example: of the corpus that it lies in; the planner sets it.
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


def iter_tracks(table: pa.Table) -> Iterator[Track]:
    """Yield the rows of a TRACKS table without creating a Python object per number.

    The table may have the column of `with_times`.
    """
    table = table.combine_chunks()
    if not table.num_rows:
        return
    columns = {name: table.column(name).chunk(0) for name in table.column_names}
    offsets = columns["frames"].offsets.to_numpy()
    flat = {
        "frames": columns["frames"].values.to_numpy().astype(np.int64),
        "boxes": columns["boxes"].values.values.to_numpy().reshape(-1, 4),
        "confidence": columns["confidence"].values.to_numpy(),
        "camera": columns["camera"].values.values.to_numpy().reshape(-1, 2),
        "sharpness": columns["sharpness"].values.to_numpy(),
        "shot": columns["shot"].values.to_numpy(),
    }
    single = ("video_id", "track_id", "label", "fps", "height", "width", "num_frames")
    times = columns.get(SECONDS)
    for i, values in enumerate(zip(*(columns[name].to_pylist() for name in single), strict=True)):
        part = slice(int(offsets[i]), int(offsets[i + 1]))
        seconds = times[i].values.to_numpy() if times is not None and times[i].is_valid else None
        yield Track(**dict(zip(single, values, strict=True)), **{k: v[part] for k, v in flat.items()}, times=seconds)


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


def usable_spans(track: Track, config: ClipsConfig, dropped: Counter[str]) -> list[Span]:
    """Return spans of a track that pass the quality filters, at up to `SPANS_A_TRACK` positions along it.

    The track must cover the clip's whole span, (T - 1) x interval + 1 source frames: a clip with closer frames would
    show slower motion than the recogniser sees elsewhere. A shorter track may be used only if
    `quality.min_track_frames` is lower, with the largest interval that fits, down to 1.

    Args:
        dropped: if no span is left, the filter that removed the last one is counted here.
    """
    quality = config.quality
    span = (config.frames - 1) * config.interval + 1
    needed = max(min(quality.min_track_frames or span, span), config.frames)
    if len(track.frames) < 2 or track.frames[-1] - track.frames[0] + 1 < max(needed, quality.min_track_frames or 0):
        dropped["track_length"] += 1
        return []
    stride = int(np.diff(track.frames).min())
    gap = np.diff(track.frames) - stride > quality.max_gap
    cut = np.diff(track.shot) != 0
    segments = _segments(track.frames, gap | (cut & (not quality.allow_cuts)), needed)
    if not segments:
        dropped["cut" if _segments(track.frames, gap, needed) else "gaps"] += 1
        return []
    # Spans with equal intervals have equal shapes, so they are described together.
    by_interval: dict[int, list[np.ndarray]] = {}
    for first, last in segments:
        covered = int(track.frames[last] - track.frames[first] + 1)
        interval = min(config.interval, (covered - 1) // max(config.frames - 1, 1))
        room = covered - ((config.frames - 1) * interval + 1)
        starts = track.frames[first] + np.unique(np.linspace(0, room, SPANS_A_TRACK).round().astype(int))
        by_interval.setdefault(interval, []).append(starts)
    spans: list[Span] = []
    passed = 0
    for interval, starts in by_interval.items():
        frames_ST = np.concatenate(starts)[:, None] + np.arange(config.frames) * interval
        found, stage = _spans(track, frames_ST, interval, config)
        spans += found
        passed = max(passed, stage)
    if not spans:
        dropped[("box_size", "confidence", "blur")[passed]] += 1
    return spans


def _segments(frames: np.ndarray, breaks: np.ndarray, needed: int) -> list[tuple[int, int]]:
    """Return (first, last) positions between breaks that cover at least `needed` source frames."""
    edges = np.flatnonzero(breaks)
    firsts, lasts = np.concatenate(([0], edges + 1)), np.concatenate((edges, [len(frames) - 1]))
    return [(int(a), int(b)) for a, b in zip(firsts, lasts, strict=True) if frames[b] - frames[a] + 1 >= needed]


def _spans(track: Track, frames_ST: np.ndarray, interval: int, config: ClipsConfig) -> tuple[list[Span], int]:
    """Return the spans at these frames that pass the last three filters, and how many of these the best one passed."""
    quality = config.quality
    boxes_ST4 = np.stack([np.interp(frames_ST, track.frames, track.boxes[:, i]) for i in range(4)], axis=2)
    size_S = np.median((boxes_ST4[..., 2:] - boxes_ST4[..., :2]).min(2), axis=1)
    begins = np.searchsorted(track.frames, frames_ST[:, 0])
    ends = np.searchsorted(track.frames, frames_ST[:, -1], "right")
    total = np.concatenate(([0.0], track.confidence.cumsum(dtype=np.float64)))
    confidence_S = (total[ends] - total[begins]) / np.maximum(ends - begins, 1)
    sharp_S = np.ones(len(frames_ST), bool)
    if quality.min_sharpness > 0:
        medians = [np.median(track.sharpness[a:b]) for a, b in zip(begins, ends, strict=True)]
        sharp_S = np.array(medians) >= quality.min_sharpness
    passes = np.column_stack((size_S >= quality.min_box_side, confidence_S >= quality.min_confidence, sharp_S))
    passed = np.logical_and.accumulate(passes, axis=1).sum(1)
    good = np.flatnonzero(passed == 3)
    if not len(good):
        return [], int(passed.max())
    camera_ST2 = np.stack([np.interp(frames_ST[good], track.frames, track.camera[:, i]) for i in range(2)], axis=2)
    motions = describe_motions(
        boxes_ST4[good], track.at(frames_ST[good]), track.fps, track.height, track.width, camera_ST2
    )
    spans = [
        Span(
            track.video_id,
            track.track_id,
            track.label,
            frames_ST[i].astype(np.int32),
            boxes_ST4[i].astype(np.float32),
            motion,
            int(pick),
            float(confidence_S[i]),
            interval,
        )
        for i, motion, pick in zip(good, motions, _best_frames(track, frames_ST[good], boxes_ST4[good]), strict=True)
    ]
    return spans, 3


def _best_frames(track: Track, frames_ST: np.ndarray, boxes_ST4: np.ndarray) -> np.ndarray:
    """Return int [S]: the sharpest frame with the object whole and detected with at least median confidence."""
    place = np.clip(np.searchsorted(track.frames, frames_ST), 0, len(track.frames) - 1)
    detected = track.frames[place] == frames_ST
    confidence = np.where(detected, track.confidence[place], np.nan)
    known = np.where(detected.any(1, keepdims=True), confidence, 0.0)
    median = np.nanmedian if np.isnan(known).any() else np.median  # the latter is ten times faster
    usual = median(known, axis=1, keepdims=True)
    sure = np.nan_to_num(confidence, nan=-1.0) >= usual
    whole = (boxes_ST4[..., :2] > 1).all(2)
    whole &= (boxes_ST4[..., 2] < track.width - 1) & (boxes_ST4[..., 3] < track.height - 1)
    wanted = np.where((sure & whole).any(1, keepdims=True), sure & whole, sure)
    return np.where(wanted, track.sharpness[place], -1.0).argmax(1)


@dataclass
class Candidates:
    """Spans by video for one concept, or for one class's random clips: a bounded number, those of the lowest hashes."""

    capacity: int
    role: str
    seed: int
    available: int = 0
    kept: dict[str, tuple[float, list[Span]]] = field(default_factory=dict)

    def add(self, video_id: str, spans: list[Span]) -> None:
        """Offer a video. Offer each video only once."""
        self.available += 1
        self.kept[video_id] = (draw(self.seed, self.role, video_id), spans)
        if len(self.kept) > 2 * self.capacity:
            best = sorted(self.kept.items(), key=lambda item: item[1][0])[: self.capacity]
            self.kept = dict(best)


def one_a_track(spans: list[Span]) -> list[Span]:
    """Return the first span of each track, in order."""
    first: dict[int, Span] = {}
    for span in spans:
        first.setdefault(span.track_id, span)
    return list(first.values())


def different(spans: list[Span]) -> list[Span]:
    """Drop spans that overlap another of their track; order the rest: one of each track, then a second, and so on."""
    rounds: list[tuple[int, Span]] = []
    by_track: dict[int, list[Span]] = defaultdict(list)
    for span in spans:
        mine = by_track[span.track_id]
        if all(span.frames[0] > o.frames[-1] or span.frames[-1] < o.frames[0] for o in mine):
            rounds.append((len(mine), span))
            mine.append(span)
    return [span for _, span in sorted(rounds, key=lambda r: r[0])]
