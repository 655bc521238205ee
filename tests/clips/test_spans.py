"""Spans of many tracks at once, against one track after the other, written as the documentation says it."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest

from tests.helpers.tracked_things import track_row, tracks_table
from vtcav_ray.clips.corpus import Example
from vtcav_ray.clips.motion import describe_motion
from vtcav_ray.clips.span_filters import (
    SPANS_A_TRACK,
    _medians_reach,
    usable_spans,
    usable_spans_by_video,
    usable_spans_of,
)
from vtcav_ray.clips.spans import Span, Spans, Track, iter_tracks
from vtcav_ray.config import ClipsConfig, QualityConfig

EASY = {"min_box_side": 0.0, "min_confidence": 0.0, "min_sharpness": 0.0}


def many_tracks(count: int) -> list[Track]:
    """Return tracks of all lengths: with every second frame, with gaps, with cuts, still and on curved paths."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        frames = np.arange(1 + rng.integers(70)) * (1 + number % 2) + rng.integers(9)
        if number % 3 == 0 and len(frames) > 20:  # lost now and then, and once for long
            place = int(rng.integers(1, len(frames) - 15))
            frames = np.delete(frames, slice(place, place + int(rng.integers(15))))
            frames = frames[rng.random(len(frames)) < 0.9]
        n = len(frames)
        way = np.array([30.0, 40.0]) + np.cumsum(rng.normal(0, number % 4, (n, 2)), axis=0)
        rows.append(
            track_row(
                f"v{number // 3}",
                number,
                frames=frames,
                n=n,
                boxes=list(np.concatenate((way, way + rng.uniform(5, 30)), axis=1).astype(np.float32)),
                confidence=rng.uniform(0.2, 1, n).astype(np.float32),
                camera=[tuple(at) for at in rng.normal(0, 2, (n, 2)).astype(np.float32)],
                sharpness=rng.uniform(1, 200, n).astype(np.float32),
                shot=np.cumsum(rng.random(n) < (0.2 if number % 5 == 0 else 0)),
            )
        )
    return list(iter_tracks(tracks_table(rows)))


def places(track: Track, config: ClipsConfig) -> list[tuple[int, int]] | str:
    """Return (interval, first frame) of the spans to try, or the filter that drops the track."""
    quality, frames = config.quality, track.frames.tolist()
    span = (config.frames - 1) * config.interval + 1
    needed = max(min(quality.min_track_frames or span, span), config.frames)
    if len(frames) < 2 or frames[-1] - frames[0] + 1 < max(needed, quality.min_track_frames or 0):
        return "track_length"
    steps = [b - a for a, b in itertools.pairwise(frames)]
    gaps = [step - min(steps) > quality.max_gap for step in steps]
    cuts = [bool(a != b) and not quality.allow_cuts for a, b in itertools.pairwise(track.shot)]

    def parts(broken: list[bool]) -> list[tuple[int, int]]:
        found, begin = [], 0
        for place, ends in enumerate([*broken, True]):
            if ends:
                if frames[place] - frames[begin] + 1 >= needed:
                    found.append((frames[begin], frames[place]))
                begin = place + 1
        return found

    some = parts([a or b for a, b in zip(gaps, cuts, strict=True)])
    if not some:
        return "cut" if parts(gaps) else "gaps"
    by_interval: dict[int, list[tuple[int, int]]] = {}
    for first, last in some:
        interval = min(config.interval, (last - first) // max(config.frames - 1, 1))
        room = last - first - (config.frames - 1) * interval
        offsets = sorted({round(float(x)) for x in np.linspace(0, room, SPANS_A_TRACK)})
        by_interval.setdefault(interval, []).extend((interval, first + offset) for offset in offsets)
    return [one for several in by_interval.values() for one in several]


def facts(span: Span) -> tuple[Any, ...]:
    numbers = (span.frames.tobytes(), span.boxes.tobytes(), span.pick, span.confidence, span.interval, span.motion)
    return (span.video_id, span.track_id, span.object, *numbers)


SETTINGS = [
    {"frames": 8, "interval": 2},
    {"frames": 8, "interval": 2, "quality": {"min_track_frames": 9, "max_gap": 1}},
    {"frames": 16, "interval": 3, "quality": {"allow_cuts": True, "max_gap": 0, "min_track_frames": 40}},
    {"frames": 1, "interval": 1},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_every_position_is_tried_and_every_drop_counted(settings: dict[str, Any]) -> None:
    quality = QualityConfig(**{**EASY, **settings.get("quality", {})})  # type: ignore[arg-type]
    config = ClipsConfig(**{**settings, "size": 32, "quality": quality})
    tracks, dropped, expected = many_tracks(150), Counter[str](), Counter[str]()
    found = usable_spans_of([(track, None) for track in tracks], config, dropped)
    for track, spans in zip(tracks, found, strict=True):
        wanted = places(track, config)
        if isinstance(wanted, str):
            expected[wanted] += 1
            wanted = []
        assert [(span.interval, int(span.frames[0])) for span in spans] == wanted
    assert dropped == expected
    assert expected["track_length"]
    if "quality" not in settings and config.frames > 1:
        assert expected["gaps"]
        assert expected["cut"]


@pytest.mark.parametrize("settings", SETTINGS)
def test_spans_of_many_tracks_are_those_of_each_alone_bit_for_bit(settings: dict[str, Any]) -> None:
    sharp = {"min_sharpness": 100.0} if settings["frames"] > 1 else {}
    quality = QualityConfig(**{**sharp, **settings.get("quality", {})})
    config = ClipsConfig(**{**settings, "size": 32, "quality": quality})
    tracks, together, alone = many_tracks(150), Counter[str](), Counter[str]()
    found = usable_spans_of([(track, None) for track in tracks], config, together)
    for track, spans in zip(tracks, found, strict=True):
        assert [facts(span) for span in spans] == [facts(span) for span in usable_spans(track, config, alone)]
    assert together == alone
    assert sum(map(len, found)) > 50
    if "quality" not in settings and sharp:
        assert together["blur"]


@pytest.mark.slow
def test_boxes_and_motion_are_those_of_numpy_and_of_one_span() -> None:
    config = ClipsConfig(frames=8, interval=2, size=32, quality=QualityConfig(**EASY))  # type: ignore[arg-type]
    tracks = many_tracks(60)
    shapes = Counter[str]()
    for track, spans in zip(tracks, usable_spans_of([(t, None) for t in tracks], config, Counter()), strict=True):
        for span in spans:
            boxes, camera = (
                np.stack([np.interp(span.frames, track.frames, of.astype(float)) for of in values.T], axis=1)
                for values in (track.boxes, track.camera)
            )
            assert np.array_equal(span.boxes, boxes.astype(np.float32))
            times = span.frames.astype(float)
            assert span.motion == describe_motion(boxes, times, track.fps, track.height, track.width, camera)
            shapes[span.motion.path] += 1
    assert set(shapes) == {"straight", "curved", "back_and_forth"}


def test_spans_by_video_are_those_of_its_tracks_in_their_order() -> None:
    config = ClipsConfig(frames=8, interval=2, size=32, quality=QualityConfig(**EASY))  # type: ignore[arg-type]
    # Neighbouring tracks are of different source videos, so a video's spans lie apart.
    tracks = [
        (track, Example(f"source {number % 5}", track.video_id, "", None, None))
        for number, track in enumerate(many_tracks(60))
    ]
    wanted: dict[str, list[tuple[Any, ...]]] = {}
    for (_, example), spans in zip(tracks, usable_spans_of(tracks, config, Counter()), strict=True):
        wanted.setdefault(example.video_id, []).extend(facts(span) for span in spans)
    found = usable_spans_by_video(tracks, config, Counter())
    assert {name: [facts(span) for span in spans.at(range(len(spans)))] for name, spans in found.items()} == wanted
    assert list(found) == list(wanted)
    both = Spans.joined([found["source 0"], found["source 1"]])
    assert [facts(span) for span in both.at([0, len(both) - 1])] == [wanted["source 0"][0], wanted["source 1"][-1]]


def test_spans_do_not_keep_the_others_in_memory() -> None:
    config = ClipsConfig(frames=8, interval=2, size=32, quality=QualityConfig(**EASY))  # type: ignore[arg-type]
    tracks = [(track, Example(track.video_id, track.video_id, "", None, None)) for track in many_tracks(60)]
    for spans in usable_spans_by_video(tracks, config, Counter()).values():
        assert spans.frames.base is None
        assert spans.boxes.base is None
        assert all(span.boxes.base is None and span.frames.base is None for span in spans.at(range(len(spans))))


@pytest.mark.parametrize("length", [1, 7, 8])
def test_medians_reach_a_value_as_numpy_says(length: int) -> None:
    rng = np.random.default_rng(length)
    values = rng.integers(0, 4, (200, length)).astype(float)
    values[::9, 0] = np.nan
    for least in (0.0, 1.0, 1.5, 3.0):
        wanted = np.median(values, axis=1) >= least
        assert np.array_equal(_medians_reach(values, least), wanted)
        assert 0 < np.count_nonzero(wanted) < 200
