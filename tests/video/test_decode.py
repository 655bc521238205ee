from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.drawn import KEYFRAMES_EVERY_30, encode, number_of, numbered_frames, quarter_turned, sound_only
from vtcav_ray.errors import InputError
from vtcav_ray.video import decode
from vtcav_ray.video.decode import Video, decode_frames, iter_frames, probe


def kind_of(source: str | bytes, **options: int) -> str:
    with pytest.raises(InputError) as caught:
        decode_frames(source, **options)
    return caught.value.kind


@pytest.fixture(scope="module")
def long_video() -> bytes:
    return encode(numbered_frames(200), options=KEYFRAMES_EVERY_30)


@pytest.mark.parametrize(
    ("container", "codec", "options"),
    [
        ("mp4", "libx264", KEYFRAMES_EVERY_30),
        ("matroska", "libx264", KEYFRAMES_EVERY_30),
        ("mpegts", "libx264", KEYFRAMES_EVERY_30),
        ("webm", "libvpx-vp9", {"g": "30", "deadline": "realtime", "cpu-used": "8"}),
        ("avi", "mpeg4", {"g": "30", "bf": "2"}),
        ("mp4", "libx265", {"x265-params": "keyint=30:log-level=none", "preset": "ultrafast"}),
    ],
)
def test_indices_are_frame_exact(container: str, codec: str, options: dict[str, str]) -> None:
    data = encode(numbered_frames(150), container=container, codec=codec, options=options)
    wanted = [0, 1, 47, 48, 90, 91, 120, 149, 30, 90]
    frames, info = decode_frames(data, wanted)
    assert [number_of(f) for f in frames] == wanted
    assert (info.height, info.width) == (64, 96)
    assert [number_of(f) for f in decode_frames(data, [140])[0]] == [140]


def test_jumping_to_keyframes_decodes_less_and_gives_the_same(
    long_video: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = itertools.count()
    original = Video._decode

    def counting(self: Video):
        for frame in original(self):
            next(decoded)
            yield frame

    monkeypatch.setattr(Video, "_decode", counting)
    frames, _ = decode_frames(long_video, [3, 185])
    assert [number_of(f) for f in frames] == [3, 185]
    assert next(decoded) < 60


@pytest.mark.slow
def test_whole_video_and_stream_agree(long_video: bytes) -> None:
    frames, info = decode_frames(long_video)
    assert [number_of(f) for f in frames] == list(range(200))
    assert (info.fps, info.num_frames, info.truncated) == (25.0, 200, False)
    strided = list(iter_frames(long_video, stride=7))
    assert [i for i, _ in strided] == list(range(0, 200, 7))
    assert all(np.array_equal(f, frames[i]) for i, f in strided)
    assert probe(long_video) == info


def test_frames_come_one_at_a_time(long_video: bytes) -> None:
    with Video(long_video) as video:
        first = list(itertools.islice(video.frames(), 3))
        assert [i for i, _ in first] == [0, 1, 2]
        assert video.num_frames <= 3


@pytest.mark.slow
def test_a_video_is_opened_once_for_its_frames(long_video: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = itertools.count()
    original = Video._opened

    def counting(self: Video, *args: Any, **options: str) -> Any:
        next(opened)
        return original(self, *args, **options)

    monkeypatch.setattr(Video, "_opened", counting)
    with Video(long_video) as video:
        first = [(index, number_of(frame)) for index, frame in video.frames()]
        assert first == [(i, i) for i in range(200)]
        assert next(opened) == 1
        # From the start again: after all frames, after a few of them, and after a look at the packets.
        assert [(index, number_of(frame)) for index, frame in video.frames()] == first
        assert [number_of(frame) for _, frame in itertools.islice(video.frames(), 3)] == [0, 1, 2]
        assert len(list(video.frames(50))) == 4
        assert video.count() == 200
        assert [number_of(frame) for frame in video.read([0, 5])] == [0, 5]
    with Video(long_video) as video:
        assert video.count() == 200
        assert [number_of(frame) for _, frame in video.frames(100)] == [0, 100]


def test_max_frames_is_the_end(long_video: bytes) -> None:
    frames, info = decode_frames(long_video, max_frames=20)
    assert len(frames) == info.num_frames == 20
    assert probe(long_video, max_frames=20).num_frames == 20
    assert kind_of(long_video, indices=[25], max_frames=20) == "too_short"


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "zero.mp4"
    path.write_bytes(b"")
    assert kind_of(str(path)) == "empty"
    assert kind_of(b"") == "empty"


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert kind_of(str(tmp_path / "none.mp4")) == "missing"
    assert kind_of(str(tmp_path)) == "not_video"
    assert kind_of("memory://nothing/there.mp4") == "missing"


def test_text_named_mp4(tmp_path: Path) -> None:
    path = tmp_path / "notes.mp4"
    path.write_text("These are notes, and no video.\n" * 50)
    assert kind_of(str(path)) == "not_video"


def test_playlist_does_not_open_what_it_points_to(tmp_path: Path, long_video: bytes) -> None:
    (tmp_path / "secret.ts").write_bytes(encode(numbered_frames(10), container="mpegts"))
    playlist = tmp_path / "list.mp4"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n")
    assert kind_of(str(playlist)) == "not_video"
    script = tmp_path / "concat.mp4"
    script.write_text("ffconcat version 1.0\nfile secret.ts\n")
    assert kind_of(str(script)) == "not_video"


def test_no_video_stream() -> None:
    assert kind_of(sound_only()) == "no_video_stream"


def test_truncated_without_its_index(long_video: bytes) -> None:
    assert long_video.rindex(b"moov") > len(long_video) // 2
    assert kind_of(long_video[: len(long_video) // 2]) == "truncated"


def test_truncated_with_its_index_gives_what_is_there(tmp_path: Path) -> None:
    options = {"movflags": "faststart"}  # puts the index at the front, for which FFmpeg needs a real file
    data = encode(
        numbered_frames(200), options=KEYFRAMES_EVERY_30, container_options=options, path=str(tmp_path / "a.mp4")
    )
    half = data[: len(data) * 6 // 10]
    frames, info = decode_frames(half)
    assert info.truncated
    assert 20 < len(frames) < 180
    assert [number_of(f) for f in frames[:20]] == list(range(20))
    assert [number_of(f) for f in decode_frames(half, [5, 10])[0]] == [5, 10]
    assert kind_of(half, indices=[199]) == "truncated"


@pytest.mark.slow
def test_bytes_broken_in_the_middle_do_not_stop_the_video(long_video: bytes) -> None:
    middle = len(long_video) // 3
    frames, _ = decode_frames(long_video[:middle] + b"\x5a" * 40 + long_video[middle + 40 :])
    assert len(frames) > 100


def test_too_large_is_refused_before_decoding(long_video: bytes) -> None:
    assert kind_of(long_video, max_pixels=64 * 95) == "too_large"


CODECS = pytest.mark.parametrize(
    ("container", "codec", "pix_fmt"),
    [
        ("gif", "gif", "rgb8"), ("apng", "apng", "rgb24"), ("mp4", "png", "rgb24"), ("avi", "mjpeg", "yuvj420p"),
        ("webm", "libvpx-vp9", "yuv420p"), ("matroska", "ffv1", "yuv420p"), ("mp4", "libx264", "yuv420p"),
    ],
)  # fmt: skip


@CODECS
def test_too_large_is_reported_with_the_size_also_where_the_decoder_forgets_it(
    container: str, codec: str, pix_fmt: str
) -> None:
    """FFmpeg does not report the size after its decoder has refused it, but the container does."""
    video = encode(numbered_frames(2, 64, 128), container=container, codec=codec, pix_fmt=pix_fmt)
    with pytest.raises(InputError, match=r"has frames of 128x64; the limit is 8,191 pixels") as caught:
        decode_frames(video, max_pixels=64 * 128 - 1)
    assert caught.value.kind == "too_large"


@CODECS
def test_frames_of_just_the_largest_size_are_taken(container: str, codec: str, pix_fmt: str) -> None:
    """FFmpeg's padding does not count."""
    for height, width in ((64, 128), (66, 98)):
        video = encode(numbered_frames(2, height, width), container=container, codec=codec, pix_fmt=pix_fmt)
        assert len(decode_frames(video, max_pixels=height * width)[0]) == 2


def test_result_that_fits_no_memory_is_refused(long_video: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_RESULT_BYTES", 50 * 64 * 96 * 3)
    assert kind_of(long_video) == "too_large"
    assert kind_of(long_video, indices=range(60)) == "too_large"
    assert len(decode_frames(long_video, range(50))[0]) == 50


def test_beyond_the_end_is_too_short(long_video: bytes) -> None:
    assert kind_of(long_video, indices=[200]) == "too_short"
    with pytest.raises(ValueError, match="counted from 0"):
        decode_frames(long_video, [-1])


def test_odd_size_survives() -> None:
    frames, info = decode_frames(encode(numbered_frames(10, 49, 65), pix_fmt="yuv444p"))
    assert frames.shape == (10, 49, 65, 3)
    assert (info.height, info.width) == (49, 65)


def test_variable_rate_counts_frames_not_time() -> None:
    stamps = np.cumsum(np.where(np.arange(60) % 5 == 0, 200, 20))
    data = encode(numbered_frames(60), container="matroska", pts=[int(t) for t in stamps], options=KEYFRAMES_EVERY_30)
    frames, info = decode_frames(data, [0, 29, 31, 59])
    assert [number_of(f) for f in frames] == [0, 29, 31, 59]
    assert 5 < info.fps < 60


def test_no_frame_rate_falls_back() -> None:
    data = encode(numbered_frames(1), container="matroska", pts=[0])
    stated = bytes.fromhex("23e38384")  # the frame's duration, made void
    assert stated in data
    data = data.replace(stated, bytes.fromhex("ec860000"))
    frames, info = decode_frames(data)
    assert len(frames) == 1
    assert info.fps == decode.FALLBACK_FPS


def test_rotation_is_applied() -> None:
    frames, info = decode_frames(quarter_turned())
    upright, _ = decode_frames(encode(numbered_frames(8)))
    assert (info.height, info.width) == (96, 64)
    assert np.array_equal(frames[5], np.rot90(upright[5], -1))  # clockwise


def test_frames_that_change_size_are_scaled_to_the_first() -> None:
    big = encode(numbered_frames(6), container="h264")
    small = encode(numbered_frames(6, 32, 48), container="h264")
    frames, info = decode_frames(big + small)
    assert len(frames) >= 10
    assert (info.height, info.width) == (64, 96)


def test_a_missing_right_is_reported_as_such_and_not_as_bad_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long_video: bytes
) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(long_video)

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(InputError, match="Permission denied") as caught:  # there are no neighbours to check
        decode_frames(str(path))
    assert caught.value.kind == "permission"


def test_remote_object_is_read(long_video: bytes) -> None:
    import fsspec

    with fsspec.open("memory://decode/a.mp4", "wb") as file:
        file.write(long_video)
    assert number_of(decode_frames("memory://decode/a.mp4", [77])[0][0]) == 77


@pytest.mark.shared
@pytest.mark.slow
def test_real_videos_are_frame_exact(shared_data: Path) -> None:
    for path in sorted((shared_data / "videos").rglob("*.m*"))[::4]:
        info = probe(str(path))
        wanted = {0, info.num_frames // 2, info.num_frames - 1}
        picked, _ = decode_frames(str(path), sorted(wanted))
        count = 0
        for i, frame in iter_frames(str(path)):
            count += 1
            if i in wanted:
                assert np.array_equal(frame, picked[sorted(wanted).index(i)]), (path, i)
        assert count == info.num_frames, path
