"""TorchCodec agrees with PyAV on a CPU, where both give the same frames bit for bit."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from av.stream import Disposition

from tests.helpers.drawn import KEYFRAMES_EVERY_30, encode, number_of, numbered_frames, quarter_turned
from tests.helpers.odd_videos import of_streams, oriented
from vtcav_ray.errors import InputError, StageError
from vtcav_ray.video import gpu_decode
from vtcav_ray.video.decode import Video
from vtcav_ray.video.gpu_decode import TorchcodecVideo, check_torchcodec

WITH_B_FRAMES = {"g": "30", "bf": "2"}


@pytest.fixture(scope="module")
def _usable() -> None:
    try:
        check_torchcodec()
    except StageError as error:
        pytest.skip(str(error))


usable = pytest.mark.usefixtures("_usable")


def both(source: str | bytes, stride: int = 1, **options: int) -> tuple[TorchcodecVideo, list[np.ndarray]]:
    """Check that TorchCodec's frames equal PyAV's; return the video and the frames."""
    with Video(source, **options) as pyav:
        wanted = list(pyav.frames(stride))
    with TorchcodecVideo(source, **options) as video:
        found = list(video.frames(stride))
    assert [i for i, _ in found] == [i for i, _ in wanted]
    for (index, a), (_, b) in zip(found, wanted, strict=True):
        assert np.array_equal(a, b), index
    assert video.info == pyav.info
    return video, [frame for _, frame in found]


@usable
@pytest.mark.parametrize("stride", [1, 3, 50])
@pytest.mark.parametrize(
    ("container", "codec", "options"),
    [
        ("mp4", "libx264", KEYFRAMES_EVERY_30),
        ("matroska", "libx264", KEYFRAMES_EVERY_30),
        ("webm", "libvpx-vp9", {"g": "30", "deadline": "realtime", "cpu-used": "8"}),
        ("mp4", "libx265", {"x265-params": "keyint=30:log-level=none", "preset": "ultrafast"}),
    ],
)
def test_frames_and_what_is_known_are_those_of_pyav(
    container: str, codec: str, options: dict[str, str], stride: int
) -> None:
    data = encode(numbered_frames(101), container=container, codec=codec, options=options)
    video, frames = both(data, stride)
    assert video.handed_over is None
    assert [number_of(f) for f in frames] == list(range(0, 101, stride))


@usable
def test_variable_rate_odd_size_and_the_end(tmp_path: Path) -> None:
    stamps = [int(t) for t in np.cumsum(np.where(np.arange(60) % 5 == 0, 200, 20))]
    varies = encode(numbered_frames(60), container="matroska", pts=stamps, options=KEYFRAMES_EVERY_30)
    assert both(varies)[0].handed_over is None
    assert both(varies, stride=4, max_frames=30)[0].num_frames == 30
    both(encode(numbered_frames(10, 49, 65), pix_fmt="yuv444p"))
    path = tmp_path / "a file.mp4"
    path.write_bytes(encode(numbered_frames(20)))
    assert both(str(path))[0].handed_over is None


@pytest.mark.slow
@usable
def test_pyav_takes_over_what_torchcodec_does_not_do() -> None:
    for name in ("mirrored", "flipped", "transposed"):  # TorchCodec itself does not mirror
        assert "rotated or mirrored" in str(both(oriented(numbered_frames(8), name))[0].handed_over)
    video, frames = both(quarter_turned())
    assert "rotated or mirrored" in str(video.handed_over)
    assert frames[0].shape == (96, 64, 3)
    # A seek to the first frame lands after it, or a packet may not be exactly one frame.
    for container, codec in (("mpegts", "libx264"), ("avi", "mpeg4")):
        video, frames = both(encode(numbered_frames(101), container=container, codec=codec, options=WITH_B_FRAMES))
        assert video.handed_over is not None
        assert [number_of(f) for f in frames] == list(range(101))
    # Frames change size in the middle.
    video, _ = both(encode(numbered_frames(6), container="h264") + encode(numbered_frames(6, 32, 48), container="h264"))
    assert video.num_frames >= 10


@usable
def test_both_decode_the_stream_that_a_player_shows() -> None:
    large, small = numbered_frames(20, 96, 128), numbered_frames(20)
    for streams in ([(small, 0), (large, 0)], [(large, 0), (small, int(Disposition.default))]):
        video, frames = both(of_streams(streams))
        assert video.handed_over is None
        assert frames[0].shape == (streams[1][0][0]).shape


@pytest.mark.slow
@usable
def test_a_file_that_breaks_off_gives_what_pyav_finds(tmp_path: Path) -> None:
    fast = {"movflags": "faststart"}
    path = str(tmp_path / "whole.mp4")
    data = encode(numbered_frames(200), options=KEYFRAMES_EVERY_30, container_options=fast, path=path)
    video, frames = both(data[: int(len(data) * 0.7)])
    assert video.truncated
    assert 60 < len(frames) < 200
    with pytest.raises(InputError, match="not a video"):
        TorchcodecVideo(b"no video at all" * 100)


@usable
def test_a_decoder_that_stops_half_way_loses_and_doubles_no_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    original = gpu_decode._decoder_class()

    class Stops:
        def __init__(self, *args: object, **options: object) -> None:
            self._real = original(*args, **options)
            self.metadata = self._real.metadata

        def get_frames_in_range(self, first: int, last: int, step: int) -> object:
            if first >= 32:
                raise RuntimeError("the GPU has no room for another surface\nand so on")
            return self._real.get_frames_in_range(first, last, step)

    monkeypatch.setattr(gpu_decode, "_decoder_class", lambda: Stops)
    video, frames = both(encode(numbered_frames(70)), stride=2)
    assert video.handed_over == "the GPU has no room for another surface"
    assert [number_of(f) for f in frames] == list(range(0, 70, 2))


@usable
def test_a_build_that_can_not_decode_on_the_device_is_reported_at_once() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(StageError, match=r"can't decode plain H\.264 on `cuda`.*build for your CUDA"):
        check_torchcodec("cuda")


def test_where_it_can_not_be_used_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(StageError, match=r"vtcav-ray\[torchcodec\].*ffmpeg.*pyav"):
        check_torchcodec()


@usable
@pytest.mark.shared
@pytest.mark.slow
def test_real_videos_are_those_of_pyav(shared_data: Path) -> None:
    for path in sorted((shared_data / "videos").rglob("*.m*"))[::3]:
        assert both(str(path), stride=3, max_frames=120)[0].handed_over is None, path
