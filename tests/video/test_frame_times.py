"""Rates and times of frames come from time stamps where the container states a wrong rate."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.drawn import KEYFRAMES_EVERY_30, encode, number_of, numbered_frames
from vtcav_ray.video.decode import Video, decode_frames
from vtcav_ray.video.frame_times import frame_times

# A screen recording: a lively beginning, by which FFmpeg judges, then a frame four times a second. Milliseconds.
STAMPS = [int(t) for t in np.cumsum([0, *[20] * 40, *[250] * 39])]
CONTAINERS = pytest.mark.parametrize(
    ("container", "codec", "options"),
    [
        ("webm", "libvpx-vp9", {"g": "30", "deadline": "realtime", "cpu-used": "8"}),
        ("matroska", "libx264", KEYFRAMES_EVERY_30),
        ("mpegts", "libx264", KEYFRAMES_EVERY_30),
        ("mp4", "libx264", KEYFRAMES_EVERY_30),
        ("flv", "libx264", KEYFRAMES_EVERY_30),
    ],
)


@CONTAINERS
def test_a_varying_rate_is_measured(container: str, codec: str, options: dict[str, str]) -> None:
    data = encode(numbered_frames(80), container=container, codec=codec, options=options, pts=STAMPS)
    with Video(data) as video:
        for _ in video.frames(stride=9):
            pass
        assert video.fps == pytest.approx(79 / (STAMPS[-1] / 1000), rel=0.02)
        assert video.seconds is not None
        assert video.seconds == pytest.approx(np.array(STAMPS) / 1000, abs=0.002)
    with Video(data) as counted:  # from the packets
        assert counted.count() == 80
        assert counted.fps == video.fps
        assert counted.seconds is not None
        assert np.array_equal(counted.seconds, video.seconds)
    assert [number_of(f) for f in decode_frames(data, [0, 41, 79])[0]] == [0, 41, 79]


@CONTAINERS
@pytest.mark.parametrize("fps", [24, 30, 60])
def test_a_constant_rate_stays_what_the_container_states(
    container: str, codec: str, options: dict[str, str], fps: int
) -> None:
    with Video(encode(numbered_frames(60), container=container, codec=codec, options=options, fps=fps)) as video:
        stated = float(video._stream.average_rate)
        assert video.fps == stated
        assert video.count() == 60
        assert video.fps == stated
        for _ in video.frames():
            pass
        assert (video.fps, video.seconds) == (stated, None)


def test_a_file_that_states_no_rate_gets_that_of_its_frames() -> None:
    found = frame_times(range(0, 3000, 100), 0.001, 25.0)
    assert found.fps == pytest.approx(10)
    assert found.seconds is None


def test_rounded_stamps_and_one_lost_frame_are_no_other_rate() -> None:
    rounded = [round(i * 1000 / 29.97) for i in range(300)]
    assert frame_times(rounded, 0.001, 29.97) == frame_times([], 0.001, 29.97)
    lost = [i for i in range(300) if i != 100]
    assert frame_times(lost, 1 / 30, 30.0).fps == 30.0
    assert frame_times(lost, 1 / 30, 30.0).seconds is None


def test_a_pause_is_a_varying_rate() -> None:
    stamps = [*range(100), *range(160, 260)]
    found = frame_times(stamps, 1 / 25, 25.0)
    assert found.fps == pytest.approx(199 / 259 * 25)
    assert found.seconds is not None
    assert found.seconds[100] - found.seconds[99] == pytest.approx(61 / 25)


def test_stamps_that_do_not_rise() -> None:
    assert frame_times([None, None, None], 0.04, 24.0).fps == 24.0  # a raw stream has none
    swapped = frame_times([1, 3, 4, 2, 6, 5, 8, 7], 0.04, 25.0)  # AVI, with reordered frames
    assert (swapped.fps, swapped.seconds) == (25.0, None)
    spliced = frame_times([*range(5000, 5100), *range(100)], 0.04, 25.0)  # a transport stream that starts again
    assert (spliced.fps, spliced.seconds) == (25.0, None)
    falling = frame_times(range(100, 0, -1), 0.04, 25.0)
    assert falling.fps == pytest.approx(25.0)
