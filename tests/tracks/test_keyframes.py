"""`tracks.frame_stride: auto`: fewer frames are detected, and the tracks begin, end and move as with every frame."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tests.helpers.drawn import encode, square_video
from tests.helpers.tracked_things import RedSquares
from vtcav_ray.config import TracksConfig
from vtcav_ray.tracks.detect import Detections
from vtcav_ray.tracks.keyframes import STILL_GAP, interpolated
from vtcav_ray.tracks.track import track_videos

SHARP = {"crf": "12", "preset": "ultrafast"}
AWAY = (400.0, 400.0)  # outside the picture


def video(way: list[tuple[float, float]], seed: int = 0) -> bytes:
    return encode(square_video(way, seed=seed)[0], options=SHARP)


def run(videos: list[bytes], stride: int | str, **options: object) -> tuple[pa.Table, dict[str, float]]:
    config = TracksConfig.model_validate({"batch_size": 8, "frame_stride": stride, **options})
    named = [(f"v{i}", data) for i, data in enumerate(videos)]
    table, failures, figures = track_videos(named, RedSquares(), config, open_videos=3)
    assert not failures
    return table, figures


def both(data: bytes, **options: object) -> tuple[list[dict], list[dict], dict[str, float]]:
    every, _ = run([data], 1, **options)
    auto, figures = run([data], "auto", **options)
    return every.to_pylist(), auto.to_pylist(), figures


@pytest.mark.slow
@pytest.mark.parametrize("tracker", ["bytetrack", "botsort"])
def test_a_moving_square_has_the_same_track_from_fewer_frames(tracker: str) -> None:
    every, auto, figures = both(video([(5 + 1.5 * t, 30) for t in range(49)]), tracker=tracker)
    assert [row["frames"] for row in auto] == [row["frames"] for row in every] == [list(range(49))]
    assert np.abs(np.array(auto[0]["boxes"]) - np.array(every[0]["boxes"])).max() < 2
    for name in ("camera", "shot", "fps", "num_frames", "label"):
        assert len(np.atleast_1d(auto[0][name])) == len(np.atleast_1d(every[0][name])), name
    assert figures["frames"] == 49
    assert figures["detected_frames"] <= 15


@pytest.mark.slow
def test_where_objects_begin_and_end_is_found_to_the_frame() -> None:
    way = [AWAY] * 14 + [(10 + 2.0 * t, 30) for t in range(21)] + [AWAY] * 11
    every, auto, figures = both(video(way))
    assert [row["frames"] for row in auto] == [row["frames"] for row in every]
    assert auto[0]["frames"][-1] == 34
    assert figures["detected_frames"] < len(way) * 0.7


@pytest.mark.slow
def test_a_still_video_is_hardly_looked_at() -> None:
    every, auto, figures = both(video([(40, 30)] * 65))
    assert auto[0]["frames"] == every[0]["frames"] == list(range(65))
    assert figures["detected_frames"] <= 64 / STILL_GAP + 3


@pytest.mark.slow
def test_what_moves_too_fast_to_overlap_is_detected_in_every_frame() -> None:
    every, auto, figures = both(video([(2 + 10.0 * (t % 11), 30) for t in range(22)]))
    assert auto == every
    assert figures["detected_frames"] == 22


@pytest.mark.slow
def test_nothing_is_interpolated_across_a_cut() -> None:
    parts = [square_video([(10 + x, 30)] * 10, seed=seed)[0] for seed, x in ((1, 0), (2, 4))]
    parts[1] = 255 - parts[1] // 2  # other colours, another picture
    parts[1][:, 30:46, 14:30] = (250, 10, 10)
    every, auto, _ = both(encode(np.concatenate(parts), options=SHARP))
    assert {shot for row in every for shot in row["shot"]} == {0, 1}
    assert [row["frames"] for row in auto] == [row["frames"] for row in every]
    assert np.abs(np.array(auto[0]["boxes"]) - np.array(every[0]["boxes"])).max() < 1


@pytest.mark.slow
def test_result_does_not_depend_on_who_shares_the_batch() -> None:
    videos = [video([(5 + 1.2 * i * t, 30) for t in range(30)], seed=i) for i in range(4)]
    together, _ = run(videos, "auto")
    alone = [run([data], "auto")[0].drop_columns("video_id") for data in videos]
    assert together.drop_columns("video_id").equals(pa.concat_tables(alone))


def test_a_short_or_empty_scene() -> None:
    for way in ([(10, 30)], [(10, 30)] * 2, [AWAY] * 9):
        every, auto, _ = both(video(way))
        assert auto == every


def found(*boxes: tuple[float, ...], confidence: float = 0.9, classes: tuple[int, ...] | None = None) -> Detections:
    n = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(n, 4),
        np.full(n, confidence, np.float32),
        np.array(classes if classes is not None else (0,) * n, np.int64),
    )


def test_boxes_between_two_frames() -> None:
    filled = interpolated(found((0, 0, 10, 10)), found((4, 0, 14, 10), confidence=0.5), 3, sure=0.25)
    assert filled is not None
    np.testing.assert_allclose([one.boxes[0, 0] for one in filled], [1, 2, 3], atol=1e-5)
    np.testing.assert_allclose([one.confidence[0] for one in filled], [0.8, 0.7, 0.6], atol=1e-5)


def test_an_object_in_one_frame_alone_needs_a_look() -> None:
    one, two = found((0, 0, 10, 10)), found((0, 0, 10, 10), (50, 50, 60, 60))
    assert interpolated(one, two, 1, sure=0.25) is None
    assert interpolated(two, one, 1, sure=0.25) is None
    assert interpolated(found(), one, 1, sure=0.25) is None
    assert interpolated(one, found((0, 0, 10, 10), classes=(1,)), 1, sure=0.25) is None
    faint = interpolated(found(), found((0, 0, 10, 10), confidence=0.2), 1, sure=0.25)
    assert faint is not None
    assert len(faint[0].boxes) == 0


def test_each_box_has_one_partner() -> None:
    before = found((0, 0, 10, 10), (2, 0, 12, 10))
    after = found((3, 0, 13, 10), (1, 0, 11, 10))
    filled = interpolated(before, after, 1, sure=0.25)
    assert filled is not None
    assert sorted(filled[0].boxes[:, 0].tolist()) == [0.5, 2.5]


def test_given_tracks_need_a_number() -> None:
    with pytest.raises(ValueError, match="is for a detector"):
        TracksConfig(format="csv", source="tracks.csv", frame_stride="auto")
