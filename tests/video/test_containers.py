"""Every container on the list is read, and none that points to other files."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
from av.format import formats_available

from tests.helpers.drawn import encode, number_of, numbered_frames
from tests.helpers.odd_videos import dahua
from vtcav_ray.store.containers import CONTAINERS, DEMUXERS, VIDEO_EXTENSIONS
from vtcav_ray.video.decode import decode_frames

# Extension -> (FFmpeg's muxer, codec, options of `encode`).
MADE = {
    "mp4": ("mp4", "libx264", {}),
    "mov": ("mov", "libx264", {}),
    "3gp": ("3gp", "libx264", {}),
    "3g2": ("3g2", "libx264", {}),
    "f4v": ("f4v", "libx264", {}),
    "mkv": ("matroska", "libx264", {}),
    "webm": ("webm", "libvpx-vp9", {}),
    "avi": ("avi", "mpeg4", {}),
    "mpg": ("mpeg", "mpeg2video", {}),
    "vob": ("vob", "mpeg2video", {}),
    "m1v": ("mpeg1video", "mpeg1video", {}),
    "m2v": ("mpeg2video", "mpeg2video", {}),
    "ts": ("mpegts", "libx264", {}),
    "m2ts": ("mpegts", "libx264", {"container_options": {"mpegts_m2ts_mode": "1"}}),
    "flv": ("flv", "libx264", {}),
    "wmv": ("asf", "wmv2", {}),
    "asf": ("asf", "msmpeg4v3", {}),
    "ogv": ("ogg", "libvpx", {}),
    "nut": ("nut", "mpeg4", {}),
    "mxf": ("mxf", "mpeg2video", {}),
    "wtv": ("wtv", "mpeg2video", {}),
    "rm": ("rm", "rv10", {}),
    "y4m": ("yuv4mpegpipe", "rawvideo", {}),
    "h264": ("h264", "libx264", {}),
    "hevc": ("hevc", "libx265", {"options": {"x265-params": "log-level=none"}}),
    "ivf": ("ivf", "libvpx-vp9", {}),
    "gif": ("gif", "gif", {"pix_fmt": "rgb8"}),
    "apng": ("apng", "apng", {"pix_fmt": "rgb24"}),
}


@pytest.mark.parametrize("extension", MADE)
def test_every_container_is_read(extension: str) -> None:
    container, codec, options = MADE[extension]
    size = (96, 128) if codec == "rv10" else (64, 96)  # a size that the codec has
    data = encode(numbered_frames(30, *size), container=container, codec=codec, **options)
    frames, info = decode_frames(data)
    assert (info.height, info.width) == size
    assert [number_of(f) for f in frames] == list(range(30))
    assert extension in VIDEO_EXTENSIONS
    with av.open(io.BytesIO(data)) as opened:
        assert opened.format.name in CONTAINERS


@pytest.mark.parametrize(
    ("container", "codec", "pix_fmt"), [("dv", "dvvideo", "yuv420p"), ("gxf", "mpeg2video", "yuv422p")]
)
def test_containers_of_television_sizes_are_read(container: str, codec: str, pix_fmt: str) -> None:
    data = encode(numbered_frames(10, 576, 720), container=container, codec=codec, pix_fmt=pix_fmt)
    frames, _ = decode_frames(data)
    assert frames.shape[1:] == (576, 720, 3)
    assert [number_of(f) for f in frames] == list(range(len(frames)))
    assert len(frames) >= 9


def test_a_security_cameras_file_is_read() -> None:
    frames, info = decode_frames(dahua(numbered_frames(30)))
    assert [number_of(f) for f in frames] == list(range(30))
    assert (info.height, info.width) == (64, 96)


def test_the_decoder_has_every_demuxer_on_the_list() -> None:
    known = {name for format_ in formats_available for name in format_.split(",")}
    assert {name for names in CONTAINERS for name in names.split(",")} <= known


def test_no_demuxer_that_opens_other_files_is_on_the_list() -> None:
    refused = {"concat", "hls", "dash", "image2", "image2pipe", "mlv", "vobsub", "sdp", "rtsp", "rtp", "lavfi", "imf",
               "webm_dash_manifest", "vapoursynth", "avisynth", "tty", "ffmetadata", "libopenmpt", "r3d"}  # fmt: skip
    assert not refused & set(DEMUXERS.split(","))


def test_extensions_are_lower_case_and_listed_once() -> None:
    assert len(set(VIDEO_EXTENSIONS)) == len(VIDEO_EXTENSIONS)
    assert all(extension == extension.lower().strip(". ") for extension in VIDEO_EXTENSIONS)


def test_a_gif_of_varying_delays_is_timed_by_them() -> None:
    from PIL import Image

    from vtcav_ray.video.decode import Video

    sink = io.BytesIO()
    images = [Image.fromarray(np.ascontiguousarray(f)) for f in numbered_frames(12)]
    delays = [50] * 6 + [500] * 6
    images[0].save(sink, "GIF", save_all=True, append_images=images[1:], duration=delays)
    with Video(sink.getvalue()) as video:
        assert video.count() == 12
        assert video.seconds is not None
        assert video.seconds[-1] == pytest.approx(sum(delays[:-1]) / 1000)
