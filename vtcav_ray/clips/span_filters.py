"""From tracks to spans that could become clips: quality filters and motion words, on metadata alone."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from vtcav_ray.clips.corpus import Example
from vtcav_ray.clips.motion import describe_motions
from vtcav_ray.clips.spans import Span, Spans, Track
from vtcav_ray.config import ClipsConfig

SPANS_A_TRACK = 6  # number of positions tried along a track
Positions = tuple[int, np.ndarray]  # interval, first frames of the spans
FILTERS = ("track_length", "gaps", "cut", "box_size", "confidence", "blur")  # in the order of application


def usable_spans(track: Track, config: ClipsConfig, dropped: Counter[str]) -> list[Span]:
    """Return spans of a track that pass the quality filters, at up to `SPANS_A_TRACK` positions along it.

    The track must cover the clip's whole span, (T - 1) x interval + 1 source frames: a clip with closer frames would
    show slower motion than the recogniser sees elsewhere. A shorter track may be used only if
    `quality.min_track_frames` is lower, with the largest interval that fits, down to 1.

    Args:
        dropped: if no span is left, the filter that removed the last one is counted here.
    """
    return usable_spans_of([(track, None)], config, dropped)[0]


def usable_spans_of(
    tracks: Sequence[tuple[Track, Example | None]], config: ClipsConfig, dropped: Counter[str]
) -> list[list[Span]]:
    """Apply `usable_spans` to many tracks at once: ten times as fast, and equal bit for bit.

    Args:
        tracks: each with the example of the corpus that it lies in; its spans then have the example's source video.
        dropped: as for `usable_spans`.
    """
    spans, counts = _usable(tracks, config, dropped)
    if spans is None:
        return [[] for _ in tracks]
    ends = list(accumulate(counts))
    return [spans.at(range(end - count, end)) for end, count in zip(ends, counts, strict=True)]


def usable_spans_by_video(
    tracks: Sequence[tuple[Track, Example]], config: ClipsConfig, dropped: Counter[str]
) -> dict[str, Spans]:
    """Return the spans of `usable_spans_of` by source video, in columns.

    Args:
        tracks, dropped: as for `usable_spans_of`.

    Returns:
        Source video -> its spans, of which there is at least one. Videos and spans are in the order of the tracks.
    """
    spans, counts = _usable(tracks, config, dropped)
    ranges: dict[str, list[tuple[int, int]]] = {example.video_id: [] for _, example in tracks}
    end = 0
    for (_, example), count in zip(tracks, counts, strict=True):
        begin, end = end, end + count
        mine = ranges[example.video_id]
        if mine and mine[-1][1] == begin:
            mine[-1] = mine[-1][0], end
        elif count:
            mine.append((begin, end))
    return {
        video_id: Spans.joined([spans.part(*one) for one in mine])
        for video_id, mine in ranges.items()
        if mine and spans is not None
    }


def _usable(
    tracks: Sequence[tuple[Track, Example | None]], config: ClipsConfig, dropped: Counter[str]
) -> tuple[Spans | None, list[int]]:
    """Return the usable spans of all tracks in their order, None if there are none; and the number of each track."""
    counts = [0] * len(tracks)
    positions = _positions([track for track, _ in tracks], config, dropped)
    long = [i for i, some in enumerate(positions) if some]
    if not long:
        return None, counts
    batch = _Batch([tracks[i][0] for i in long], [positions[i] for i in long])
    passed_S = batch.passed(config)
    best = np.zeros(len(long), int)
    np.maximum.at(best, batch.owner_S, passed_S)
    for place in np.flatnonzero(best < 3).tolist():
        dropped[("box_size", "confidence", "blur")[best[place]]] += 1
    good = np.flatnonzero(passed_S == 3)
    for i, count in zip(long, np.bincount(batch.owner_S[good], minlength=len(long)).tolist(), strict=True):
        counts[i] = count
    return batch.spans(good, [tracks[i][1] for i in long]) if len(good) else None, counts


def _positions(tracks: Sequence[Track], config: ClipsConfig, dropped: Counter[str]) -> list[list[Positions]]:
    """Return the positions to try of each track, in order; none if the track is too short, or broken."""
    quality = config.quality
    span = (config.frames - 1) * config.interval + 1
    needed = max(min(quality.min_track_frames or span, span), config.frames)
    least = max(needed, quality.min_track_frames or 0)
    edges = [(int(t.frames[0]), int(t.frames[-1])) if len(t.frames) >= 2 else (0, -1) for t in tracks]
    long = [i for i, (first, last) in enumerate(edges) if last - first + 1 >= least]
    found: list[list[Positions]] = [[] for _ in tracks]
    if len(long) < len(tracks):
        dropped["track_length"] += len(tracks) - len(long)
    if not long:
        return found
    gaps, cuts, begins = _gaps_and_cuts([tracks[i] for i in long], quality.max_gap)
    breaks = gaps if quality.allow_cuts else gaps | cuts
    broken = np.logical_or.reduceat(breaks, begins[:-1]).tolist()
    for i, some, begin, end in zip(long, broken, begins[:-1].tolist(), begins[1:].tolist(), strict=True):
        if not some:  # nearly all
            found[i] = [_of_segment(*edges[i], config)]
            continue
        frames, inside = tracks[i].frames, slice(begin, end - 1)
        segments = _segments(frames, breaks[inside], needed)
        if not segments:
            dropped["cut" if _segments(frames, gaps[inside], needed) else "gaps"] += 1
        found[i] = _of_segments([(int(frames[a]), int(frames[b])) for a, b in segments], config)
    return found


def _gaps_and_cuts(tracks: Sequence[Track], max_gap: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where tracks have a gap and a cut after a box: bool [boxes of all tracks], and where each track begins.

    Each track has two boxes at least. A gap is a step that is more than `max_gap` longer than the track's shortest one.
    """
    lengths = [len(track.frames) for track in tracks]
    begins = np.concatenate(([0], np.cumsum(lengths)))
    lasts = begins[1:] - 1
    frames = np.concatenate([track.frames for track in tracks])
    shot = np.concatenate([track.shot for track in tracks])
    steps = np.empty(len(frames), np.int64)
    steps[:-1] = frames[1:] - frames[:-1]
    steps[lasts] = np.iinfo(np.int64).max  # not between two boxes of one track
    gaps = steps - np.repeat(np.minimum.reduceat(steps, begins[:-1]), lengths) > max_gap
    cuts = np.empty(len(frames), bool)
    cuts[:-1] = shot[1:] != shot[:-1]
    gaps[lasts] = cuts[lasts] = False
    return gaps, cuts, begins


def _of_segments(segments: Sequence[tuple[int, int]], config: ClipsConfig) -> list[Positions]:
    """Return the positions inside segments (first and last frame), those of equal intervals together."""
    by_interval: dict[int, list[np.ndarray]] = {}
    for first, last in segments:
        interval, starts = _of_segment(first, last, config)
        by_interval.setdefault(interval, []).append(starts)
    return [(interval, np.concatenate(starts)) for interval, starts in by_interval.items()]


def _of_segment(first: int, last: int, config: ClipsConfig) -> Positions:
    covered, steps = last - first + 1, config.frames - 1
    interval = min(config.interval, (covered - 1) // max(steps, 1))
    return interval, first + _spread(covered - (steps * interval + 1))


@functools.lru_cache(maxsize=4096)
def _spread(room: int) -> np.ndarray:
    """Return up to `SPANS_A_TRACK` different offsets, spread evenly from 0 to `room`."""
    return np.unique(np.linspace(0, room, SPANS_A_TRACK).round().astype(int))


def _segments(frames: np.ndarray, breaks: np.ndarray, needed: int) -> list[tuple[int, int]]:
    """Return (first, last) places between breaks that cover at least `needed` source frames."""
    edges = np.flatnonzero(breaks)
    firsts, lasts = np.concatenate(([0], edges + 1)), np.concatenate((edges, [len(frames) - 1]))
    return [(int(a), int(b)) for a, b in zip(firsts, lasts, strict=True) if frames[b] - frames[a] + 1 >= needed]


class _Batch:
    """Spans of several tracks, S in all, as arrays. All boxes of the tracks lie one after the other.

    Args:
        tracks: with at least one position each.
        positions: of each track, from `_positions`.
    """

    def __init__(self, tracks: Sequence[Track], positions: Sequence[Sequence[Positions]]) -> None:
        self.tracks = tracks
        counts = [sum(len(starts) for _, starts in some) for some in positions]
        self.owner_S = np.repeat(np.arange(len(tracks)), counts)
        starts_S = np.concatenate([starts for some in positions for _, starts in some])
        self.interval_S = np.repeat(
            [interval for some in positions for interval, _ in some],
            [len(starts) for some in positions for _, starts in some],
        )
        self.starts_S = starts_S
        lengths = [len(track.frames) for track in tracks]
        self.offset = np.concatenate(([0], np.cumsum(lengths)))  # of each track's first box
        # A frame's key rises over all tracks, so one search finds the place of each frame in its own track.
        self.stride = 1 + max(int(track.frames[-1]) for track in tracks)
        self.keys = np.concatenate([i * self.stride + track.frames for i, track in enumerate(tracks)])

    def passed(self, config: ClipsConfig) -> np.ndarray:
        """Return int [S]: how many of the last three filters each span passes, in their order."""
        quality, length_T = config.quality, config.frames
        self.frames_ST = self.starts_S[:, None] + np.arange(length_T) * self.interval_S[:, None]
        keys_ST = self.owner_S[:, None] * self.stride + self.frames_ST
        self.place_ST = np.searchsorted(self.keys, keys_ST, "right") - 1  # of the box at the frame, or the one before
        self.past_ST = keys_ST - self.keys[self.place_ST]  # frames since that box
        # The coordinates come first, so that each is one contiguous array.
        self.edges_4ST = self._interpolated([track.boxes for track in self.tracks], self.place_ST, self.past_ST)
        size_S = _medians_reach(
            np.minimum(self.edges_4ST[2] - self.edges_4ST[0], self.edges_4ST[3] - self.edges_4ST[1]),
            quality.min_box_side,
        )
        # The first box in the span, and the first one after it.
        begins, ends = self.place_ST[:, 0] + (self.past_ST[:, 0] > 0), self.place_ST[:, -1] + 1
        self.confidence_S = self._mean_confidence(begins, ends)
        passes = [size_S, self.confidence_S >= quality.min_confidence]
        if quality.min_sharpness > 0:
            passes.append(self._sharp(begins, ends, quality.min_sharpness))
        else:
            passes.append(np.ones(len(self.owner_S), bool))
        return np.logical_and.accumulate(np.column_stack(passes), axis=1).sum(1)

    def _mean_confidence(self, begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
        # Sums of each track alone: the sum over all tracks would round differently.
        sums = np.zeros(self.offset[-1] + len(self.tracks))  # each track has one sum more than boxes
        for number, (track, begin) in enumerate(zip(self.tracks, self.offset.tolist(), strict=False)):
            first = begin + number + 1
            track.confidence.cumsum(dtype=np.float64, out=sums[first : first + len(track.confidence)])
        return (sums[ends + self.owner_S] - sums[begins + self.owner_S]) / np.maximum(ends - begins, 1)

    def _sharp(self, begins: np.ndarray, ends: np.ndarray, least: float) -> np.ndarray:
        """Return whether the median sharpness of the boxes in each span is at least `least`: bool [S]."""
        sharpness = np.concatenate([track.sharpness for track in self.tracks])
        above, strange = (np.concatenate(([0], some.cumsum())) for some in (sharpness >= least, np.isnan(sharpness)))
        count_S, many_S = ends - begins, 2 * (above[ends] - above[begins])
        sharp_S = many_S > count_S
        # With exactly half of them above, the two middle ones decide.
        for place in np.flatnonzero((many_S == count_S) | (strange[ends] > strange[begins])).tolist():
            sharp_S[place] = count_S[place] and np.median(sharpness[begins[place] : ends[place]]) >= least
        return sharp_S

    def spans(self, good: np.ndarray, examples: Sequence[Example | None]) -> Spans:
        """Return the spans at these places.

        Args:
            examples: of each track.
        """
        owner_S, frames_ST, edges_4ST = self.owner_S[good], self.frames_ST[good], self.edges_4ST[:, good]
        place_ST, past_ST = self.place_ST[good], self.past_ST[good]
        fps_S, height_S, width_S = (
            np.array([getattr(track, name) for track in self.tracks])[owner_S] for name in ("fps", "height", "width")
        )
        camera_2ST = self._interpolated([track.camera for track in self.tracks], place_ST, past_ST)
        whole_ST = (edges_4ST[0] > 1) & (edges_4ST[1] > 1)
        whole_ST &= edges_4ST[2] < width_S[:, None] - 1
        whole_ST &= edges_4ST[3] < height_S[:, None] - 1
        owners = owner_S.tolist()
        tracks = [self.tracks[owner] for owner in owners]
        of = [examples[owner] for owner in owners]
        return Spans(
            [t.video_id if one is None else one.video_id for t, one in zip(tracks, of, strict=True)],
            [track.track_id for track in tracks],
            [track.label for track in tracks],
            describe_motions(edges_4ST, self._times(owner_S, frames_ST), fps_S, height_S, width_S, camera_2ST),
            self._best_frames(place_ST, past_ST == 0, whole_ST).tolist(),
            self.confidence_S[good].tolist(),
            self.interval_S[good].tolist(),
            of,
            frames_ST.astype(np.int32),
            edges_4ST.transpose(1, 2, 0).astype(np.float32, order="C"),
        )

    def _times(self, owner_S: np.ndarray, frames_ST: np.ndarray) -> np.ndarray:
        """Return when the frames of spans are shown, as `Track.at` does: float [S, T]."""
        times_ST = frames_ST.astype(float)
        for owner, track in enumerate(self.tracks):
            if track.times is not None and (mine := np.flatnonzero(owner_S == owner)).size:
                times_ST[mine] = track.at(frames_ST[mine])
        return times_ST

    def _interpolated(self, values: Sequence[np.ndarray], place_ST: np.ndarray, past_ST: np.ndarray) -> np.ndarray:
        """Interpolate values between the boxes of a track, as `np.interp` does.

        Args:
            values: of each track, [boxes, N].
            place_ST: of the box at each frame, or the one before it.
            past_ST: frames since that box.

        Returns:
            float64 [N, S, T].
        """
        columns = np.ascontiguousarray(np.concatenate(values).T, np.float64)
        # From each box to the next one. After a track's last box nothing is interpolated.
        slopes = np.zeros_like(columns)
        slopes[:, :-1] = (columns[:, 1:] - columns[:, :-1]) / np.maximum(self.keys[1:] - self.keys[:-1], 1)
        found = columns.take(place_ST, axis=1)
        return np.add(found, slopes.take(place_ST, axis=1) * past_ST, out=found, where=past_ST != 0)

    def _best_frames(self, place_ST: np.ndarray, detected_ST: np.ndarray, whole_ST: np.ndarray) -> np.ndarray:
        """Return int [S]: the sharpest frame with the object whole and detected with at least median confidence.

        Args:
            place_ST: of the box at each frame, or the one before it.
            detected_ST: whether there is a box at the frame.
            whole_ST: whether the object is inside the frame.
        """
        place_ST = place_ST + ~detected_ST  # the box at the frame, or the one after it
        confidence = np.concatenate([track.confidence for track in self.tracks])
        sharpness = np.concatenate([track.sharpness for track in self.tracks])
        confidence_ST = np.where(detected_ST, confidence.take(place_ST), np.nan)
        # The median of those that are numbers, as `np.nanmedian`, which takes ten times as long.
        rising_ST = np.sort(confidence_ST, axis=1)  # those that are not come last
        last_S = np.maximum(np.count_nonzero(~np.isnan(rising_ST), axis=1) - 1, 0)
        rows = np.arange(len(rising_ST))
        usual_S = (rising_ST[rows, last_S // 2] + rising_ST[rows, (last_S + 1) // 2]) / 2
        sure_ST = confidence_ST >= usual_S[:, None]
        both_ST = sure_ST & whole_ST
        wanted_ST = np.where(both_ST.any(1, keepdims=True), both_ST, sure_ST)
        return np.where(wanted_ST, sharpness.take(place_ST), -1.0).argmax(1)


def _medians_reach(values_ST: np.ndarray, least: float) -> np.ndarray:
    """Return whether the median of each row is at least `least`: bool [S]. Most rows need no sorting."""
    length_T = values_ST.shape[1]
    many_S = 2 * np.count_nonzero(values_ST >= least, axis=1)
    reach_S = many_S > length_T
    # With exactly half of them above, the two middle ones decide. A sum shows whether all values are numbers.
    if (open_ := np.flatnonzero((many_S == length_T) | np.isnan(values_ST.sum(1)))).size:
        reach_S[open_] = np.median(values_ST[open_], axis=1) >= least
    return reach_S
