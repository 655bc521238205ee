"""Tracks and clips of videos as other people have them: turned, mirrored, of varying rate, of several streams."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from av.stream import Disposition

from tests.helpers.drawn import KEYFRAMES_EVERY_30, encode, numbered_frames, square_video
from tests.helpers.odd_videos import ORIENTATIONS, encrypted_mp4, of_streams, oriented, shown_as, stretched, with_cover
from tests.helpers.tracked_things import RedSquares, track_row, tracks_table, videos_table
from vtcav_ray.clips.cut import cut_clips
from vtcav_ray.clips.plan_table import PLAN
from vtcav_ray.clips.span_filters import usable_spans
from vtcav_ray.clips.spans import Span, iter_tracks, with_times
from vtcav_ray.clips.stage import STAGE as CLIPS
from vtcav_ray.config import ClipsConfig, Config, TracksConfig
from vtcav_ray.errors import StageError
from vtcav_ray.registry import TRACK_SOURCES
from vtcav_ray.runs.stage import Context
from vtcav_ray.store.commits import ShardOutput, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.tracks.media import Media
from vtcav_ray.tracks.sources import Tracked, TrackSource
from vtcav_ray.tracks.stage import TrackWorker
from vtcav_ray.tracks.track import track_videos
from vtcav_ray.video.codec import decode_clip
from vtcav_ray.video.gpu_decode import check_torchcodec

CLIP = ClipsConfig(frames=8, interval=2, size=32)
RISING = [(56.0, 70.0 - 2 * t) for t in range(24)]  # a square that moves up
WORDS = {(1, 0): "right", (-1, 0): "left", (0, 1): "down", (0, -1): "up"}


def spans_of(tracks: pa.Table, media: Media, config: ClipsConfig = CLIP) -> list[Span]:
    table = with_times(tracks, media.table(list(media.times))) if media.times else tracks
    (track,) = iter_tracks(table)
    return usable_spans(track, config, Counter())


def track(video: bytes, decoder: str = "pyav") -> tuple[pa.Table, Media]:
    media = Media()
    config = TracksConfig(batch_size=8, decoder=decoder)  # type: ignore[arg-type]
    tracks, failures, _ = track_videos([("v", video)], RedSquares(), config, media=media)
    assert failures == []
    return tracks, media


@pytest.mark.parametrize("decoder", ["pyav", pytest.param("torchcodec", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_a_box_is_tracked_where_a_player_shows_it(name: str, decoder: str) -> None:
    if decoder == "torchcodec":
        try:
            check_torchcodec()
        except StageError as error:
            pytest.skip(str(error))
    drawn, boxes = square_video(RISING)
    tracks, media = track(oriented(drawn, name), decoder)
    masks = np.zeros((len(boxes), 96, 128), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
        mask[y1:y2, x1:x2] = True
    (row,) = tracks.to_pylist()
    for index, box in zip(row["frames"], row["boxes"], strict=True):
        ys, xs = np.nonzero(shown_as(masks[index], name))
        assert np.abs(np.array(box) - (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)).max() < 4
    _, _, c, d = ORIENTATIONS[name]
    assert {span.motion.direction for span in spans_of(tracks, media)} == {WORDS[(-c, -d)]}


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_a_clip_is_cut_as_a_player_shows_it(name: str) -> None:
    frames = np.full((24, 64, 96, 3), 30, np.uint8)
    frames[:, :32, 48:], frames[:, 32:, :48], frames[:, 32:, 48:] = 90, 150, 220
    row = {
        "clip_id": "c", "set": "class", "name": "lift", "kind": "full", "video_id": "v", "uri": "/nowhere", "view": 0,
        "label": "lift", "seed": 7, "pick": 0,
    }  # fmt: skip
    table, failures = cut_clips(pa.Table.from_pylist([row], schema=PLAN), {"v": oriented(frames, name)}, CLIP)
    assert failures == []
    clip = decode_clip(table["encoding"][0].as_py(), table["encoded"][0].as_py())
    shown = shown_as(frames[0], name)
    assert (clip.shape[1] > clip.shape[2]) == (shown.shape[0] > shown.shape[1])
    for y, x in ((0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)):
        expected = shown[int(y * shown.shape[0]), int(x * shown.shape[1])]
        assert np.abs(clip[3, int(y * clip.shape[1]), int(x * clip.shape[2])].astype(int) - expected).max() < 12


# A recording that begins at 50 frames per second and goes on at 5: FFmpeg judges the rate by the beginning.
STAMPS = [int(t) for t in np.cumsum([0, *[20] * 40, *[200] * 39])]


@pytest.mark.slow
@pytest.mark.parametrize("container", ["matroska", "mpegts", "webm", "mp4"])
def test_speed_is_measured_in_real_time(container: str) -> None:
    """The square moves 12 pixels per second, an eighth of the short side, whatever the distance of the frames."""
    drawn, _ = square_video([(10 + 12 * t / 1000, 30) for t in STAMPS])
    codec, options = (
        ("libvpx-vp9", {"deadline": "realtime"}) if container == "webm" else ("libx264", KEYFRAMES_EVERY_30)
    )
    tracks, media = track(encode(drawn, container=container, codec=codec, options=options, pts=STAMPS))
    assert tracks["fps"].to_pylist() == [pytest.approx(79 / (STAMPS[-1] / 1000), rel=0.02)]
    late = [span for span in spans_of(tracks, media) if span.frames[0] > 41]
    assert late
    assert [span.motion.speed for span in late] == pytest.approx([0.125] * len(late), rel=0.15)


def test_a_constant_rate_leaves_no_times() -> None:
    tracks, media = track(encode(square_video(RISING)[0]))
    assert (media.times, media.warnings()) == ({}, [])
    assert tracks["fps"].to_pylist() == [25.0]


def test_times_by_frame_equal_indices_at_a_constant_rate() -> None:
    """A video of constant rate gives the same spans with its times as without."""
    tracks = tracks_table([track_row("v", step=(1.5, 0.0))])
    plain = spans_of(tracks, Media())
    timed = spans_of(tracks, Media(times={"v": np.arange(40) / 25}))
    assert [span.motion.speed for span in timed] == pytest.approx([span.motion.speed for span in plain])
    slow = spans_of(tracks, Media(times={"v": np.arange(40) / 5}))
    assert [s.motion.speed for s in slow] == pytest.approx([span.motion.speed / 5 for span in plain])


@pytest.mark.slow
def test_warnings_name_the_videos() -> None:
    default = int(Disposition.default)
    several = of_streams([(square_video(RISING)[0], 0), (square_video(RISING, height=64, width=80)[0], default)])
    videos = [
        ("several", several),
        ("wide", stretched(square_video(RISING)[0], Fraction(16, 11))),
        ("plain", encode(square_video(RISING)[0])),
        ("cover", with_cover(square_video(RISING)[0], numbered_frames(1, 200, 300)[0])),
        ("locked", encrypted_mp4()),
    ]
    media = Media()
    tracks, failures, _ = track_videos(videos, RedSquares(), TracksConfig(batch_size=8), media=media)
    assert set(tracks["video_id"].to_pylist()) == {"several", "wide", "plain", "cover"}
    assert {f.video_id: f.error_kind for f in failures} == {"locked": "encrypted"}
    streams, pixels = media.warnings()
    assert "Videos with several video streams: 1." in streams
    assert "several (stream 1 of 0, 1: h264, 80x64)" in streams
    assert "pixels are not square: 1." in pixels
    assert "wide (1.455:1)" in pixels
    sizes = {row["video_id"]: (row["height"], row["width"]) for row in tracks.to_pylist()}
    assert sizes["wide"] == sizes["plain"] == (96, 128)  # as stored, as Decord gives them
    assert sizes["several"] == (64, 80)


def test_many_videos_are_counted_and_some_are_named() -> None:
    (warning,) = Media(choices={f"v{i}": "stream 1" for i in range(9)}).warnings()
    assert "streams: 9." in warning
    assert "v2 (stream 1), and 6 more." in warning


def test_a_shard_keeps_times_and_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fixed(TrackSource):
        def tracks_of(self, videos: Any) -> Tracked:
            media = Media(times={"b": np.arange(40) / 5}, pixel_aspects={"a": 2.0})
            return Tracked(tracks_table([track_row("a"), track_row("b")]), media=media)

    monkeypatch.setitem(TRACK_SOURCES._entries, "fixed", Fixed)
    config = Config.model_validate({"videos": {"uri": "x"}, "out": "y", "tracks": {"source": "fixed"}})
    made = TrackWorker(config)(videos_table({"a": None, "b": None}))
    assert made.tables["times"]["video_id"].to_pylist() == ["b"]
    assert made.tables["times"]["seconds"].to_pylist() == [(np.arange(40) / 5).tolist()]
    assert len(made.warnings) == 1


def planned(folder: Path, names: list[str], varying: list[str]) -> set[str]:
    """Plan clips of a fast concept; return its videos. All have the same boxes; frames of `varying` ones are slow."""
    media = Media(times={name: np.arange(40) / 5 for name in varying})
    made = {"tracks": tracks_table([track_row(name) for name in names])}
    if varying:
        made["times"] = media.table(names)
    run, inputs = Folder(str(folder)), {}
    for stage, tables in (("videos", {"videos": videos_table(dict.fromkeys(names, "lift"))}), ("tracks", made)):
        inputs[stage] = stage_folder(run, stage, "k")
        inputs[stage].commit("all", ShardOutput(tables))
    clips = {
        "frames": 8, "interval": 1, "size": 32, "per_class": 6, "min_per_class": 2, "per_concept": 6,
        "min_per_concept": 2, "random_pool": 12,
        "concepts": [{"name": "fast", "object": "cup", "motion": {"min_speed": 0.3}}],
    }  # fmt: skip
    config = Config.model_validate({"videos": {"uri": "x"}, "out": "y", "clips": clips})
    work = CLIPS.prepare(Context(config, run, inputs))
    rows = [row for shard in work.shards for row in shard.rows.to_pylist()]
    return {row["video_id"] for row in rows if row["set"] == "concept"}


@pytest.mark.slow
def test_the_plan_reads_times_of_a_stored_shard(tmp_path: Path) -> None:
    names = [f"v{i}" for i in range(8)]
    fast = planned(tmp_path / "constant", names, [])
    assert fast
    assert not fast & planned(tmp_path / "varying", names, sorted(fast))
