from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.drawn import KEYFRAMES_EVERY_30, encode, number_of, numbered_frames
from vtcav_ray.video import decode
from vtcav_ray.video.decode import Video
from vtcav_ray.video.frame_times import seconds_of_frames
from vtcav_ray.video.segments import Segment, frame_ranges, seconds_of, stretches


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("83.5", 83.5),
        (" 7 ", 7),
        ("1:23.5", 83.5),
        ("00:01:23", 83),
        ("1:00:00.25", 3600.25),
        ("90:00", 5400),
    ],
)
def test_times_in_words(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "1:60", "1:61:00", "-1", "inf", "1:2:3:4", "ten", "1,5"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        seconds_of(text)


def test_frames_of_segments_that_follow_each_other_are_disjoint() -> None:
    seconds = np.arange(100) / 25
    segments = [Segment(0, 1), Segment(1, 2), Segment(3.5), Segment(4, 5), Segment(3.9, 60), Segment(0.99, 1.01)]
    ranges = frame_ranges(segments, seconds)
    assert ranges == [(0, 24), (25, 49), (88, 99), None, (98, 99), (25, 25)]
    assert stretches(ranges) == [(0, 49), (88, 99)]
    assert frame_ranges([Segment(1, 3)], seconds, most=10) == [(25, 34)]
    # Matroska rounds time stamps to milliseconds.
    assert frame_ranges([Segment(1, 2)], np.round(np.arange(90) / 29.97, 3)) == [(30, 59)]


def test_seconds_do_not_drift_where_the_stated_rate_is_slightly_wrong() -> None:
    stamps = [round(i * 1000 / 29.7) for i in range(100_000)]  # stated: 30
    seconds = seconds_of_frames(stamps, 1 / 1000, 30.0)
    assert abs(seconds[-1] - 99_999 / 29.7) < 0.01
    assert np.array_equal(seconds_of_frames([None, None, None], 1 / 1000, 10.0), [0, 0.1, 0.2])
    assert np.array_equal(seconds_of_frames([7], 1 / 1000, 10.0), [0])


# The first has an index of its packets; frames of the others are found by decoding.
FILES = [("mp4", "libx264"), ("matroska", "libx264"), ("mpegts", "libx264"), ("avi", "mpeg4"), ("webm", "libvpx")]
QUICK = {"libvpx": {"deadline": "realtime", "cpu-used": "8", "g": "30"}, "libx264": KEYFRAMES_EVERY_30}


@pytest.mark.parametrize(("container", "codec"), FILES)
def test_frames_of_segments_are_those_of_the_whole_video(container: str, codec: str, tmp_path: Path) -> None:
    options = QUICK.get(codec, {"g": "30"})
    (tmp_path / "v").write_bytes(encode(numbered_frames(400), container=container, codec=codec, options=options))
    with Video(tmp_path / "v") as video:
        seconds = video.frame_seconds()
        assert np.abs(seconds - np.arange(400) / 25).max() < 0.002
        assert video.num_frames == 400
        ranges = frame_ranges([Segment(12, 12.4), Segment(4.8, 5.2), Segment(5, 6)], seconds)
        assert ranges == [(300, 309), (120, 129), (125, 149)]
        wanted = [i for first, last in stretches(ranges) for i in range(first, last + 1)]
        found = [(index, number_of(frame)) for index, frame in video.frames_at(wanted)]
    assert found == [(i, i) for i in wanted]


@pytest.mark.slow
def test_only_frames_since_a_keyframe_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 900 frames, a segment costs its own frames and at most those since its keyframe, and a demuxer's few ahead."""
    (tmp_path / "v.mp4").write_bytes(encode(numbered_frames(900), options=KEYFRAMES_EVERY_30))
    decoded = []
    inner = decode.BoundedDecoder._decode

    def counted(self: decode.BoundedDecoder) -> object:
        for frame in inner(self):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(decode.BoundedDecoder, "_decode", counted)
    with Video(tmp_path / "v.mp4") as video:
        (first, last), *_ = ranges = frame_ranges([Segment(30, 31)], video.frame_seconds())
        assert ranges == [(750, 774)]
        decoded.clear()
        assert len(list(video.frames_at(range(first, last + 1)))) == 25
    assert len(decoded) <= 25 + 30
