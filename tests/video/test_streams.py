"""Of several video streams the one is decoded that a player shows."""

from __future__ import annotations

import numpy as np
import pytest
from av.stream import Disposition

from tests.helpers.drawn import number_of, numbered_frames, sound_only
from tests.helpers.odd_videos import of_streams, sound_in, with_cover, wmv_with_cover
from vtcav_ray.errors import InputError
from vtcav_ray.video.decode import Video, decode_frames

COVER = np.full((300, 400, 3), 200, np.uint8)
PLAIN, DEFAULT = 0, int(Disposition.default)


def moving(height: int, width: int, count: int = 20) -> np.ndarray:
    return numbered_frames(count, height, width)


def test_a_cover_in_front_of_a_wmv_is_not_the_video() -> None:
    data = wmv_with_cover(moving(64, 96), COVER)
    frames, info = decode_frames(data)
    assert (info.height, info.width) == (64, 96)
    assert [number_of(f) for f in frames] == list(range(20))
    with Video(data) as video:
        assert video.choice is None  # a cover is no choice


def test_a_cover_in_an_mp4_is_not_the_video() -> None:
    frames, info = decode_frames(with_cover(moving(64, 96), COVER))
    assert (info.num_frames, info.height, info.width) == (20, 64, 96)
    assert number_of(frames[9]) == 9


def test_sound_with_a_cover_is_no_video() -> None:
    with pytest.raises(InputError, match="It has sound and a cover picture") as caught:
        decode_frames(with_cover(None, COVER))
    assert caught.value.kind == "no_video_stream"


@pytest.mark.parametrize("data", [sound_only(), sound_in("mpegts", "aac"), sound_in("flv", "aac")])
def test_sound_alone_is_no_video(data: bytes) -> None:
    with pytest.raises(InputError, match=r"no video stream\. It has sound\.") as caught:
        decode_frames(data)
    assert caught.value.kind == "no_video_stream"


@pytest.mark.parametrize(
    ("streams", "expected", "index"),
    [
        ([(moving(32, 48), PLAIN), (moving(64, 96), PLAIN)], (64, 96), 1),  # the largest
        ([(moving(64, 96), PLAIN), (moving(32, 48), DEFAULT)], (32, 48), 1),  # the default one, although it is small
        ([(moving(64, 96), DEFAULT), (moving(32, 48), DEFAULT)], (64, 96), 0),  # the largest default one
        ([(moving(64, 96), PLAIN), (moving(64, 96)[::-1], PLAIN)], (64, 96), 0),  # the first of equals
    ],
)
def test_the_default_stream_is_taken_and_then_the_largest(
    streams: list[tuple[np.ndarray, int]], expected: tuple[int, int], index: int
) -> None:
    data = of_streams(streams)
    with Video(data) as video:
        assert (video.height, video.width) == expected
        assert video.choice == f"stream {index} of 0, 1: h264, {expected[1]}x{expected[0]}"
        assert video.count() == 20
    assert [number_of(f) for f in decode_frames(data, [0, 13, 19])[0]] == [0, 13, 19]


def test_a_transport_stream_of_two_sizes_gives_the_larger_one() -> None:
    _, info = decode_frames(of_streams([(moving(64, 96), PLAIN), (moving(96, 128), PLAIN)], container="mpegts"))
    assert (info.height, info.width) == (96, 128)


@pytest.mark.parametrize("container", ["mov", "avi"])
def test_a_larger_cover_that_is_not_marked_as_one_is_not_the_video(container: str) -> None:
    data = with_cover(moving(64, 96), COVER, container=container, disposition=0)
    with Video(data) as video:
        assert (video.height, video.width) == (64, 96)
        assert video.choice == "stream 1 of 0, 1: h264, 96x64"
        assert video.count() == 20


def test_one_stream_is_no_choice() -> None:
    with Video(of_streams([(moving(64, 96), PLAIN)])) as video:
        assert video.choice is None
