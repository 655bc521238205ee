"""A file that can't be used gets its true reason: encrypted, sound, cut off, empty, or what else it is."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.helpers.drawn import encode, numbered_frames
from tests.helpers.odd_videos import (
    encrypted_mp4,
    encrypted_webm,
    fairplay_mp4,
    protected_wmv,
    scrambled_ts,
    scrambled_vob,
    sound_in,
)
from vtcav_ray.errors import InputError
from vtcav_ray.video.decode import Video, decode_frames

NOISE = np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8).tobytes()


def reason_of(data: bytes | str) -> tuple[str, str]:
    with pytest.raises(InputError) as caught:
        decode_frames(data)
    return caught.value.kind, caught.value.message


def picture(kind: str, **options: object) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(numbered_frames(4)[3]).save(sink, kind, **options)
    return sink.getvalue()


def zipped() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("a.mp4", encode(numbered_frames(4)))
    return sink.getvalue()


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (encrypted_mp4, "common encryption"),
        (fairplay_mp4, "FairPlay"),
        (scrambled_ts, "scrambled"),
        (protected_wmv, "Windows Media DRM"),
        (scrambled_vob, "program stream"),
        (encrypted_webm, "WebM encryption"),
    ],
)
def test_an_encrypted_video_is_named_as_such(make: Callable[[], bytes], word: str, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(make())
    for source in (make(), str(path)):
        kind, message = reason_of(source)
        assert kind == "encrypted"
        assert word in message
        assert "Decrypt it" in message


@pytest.mark.parametrize(
    ("container", "codec", "word"),
    [
        ("mp3", "libmp3lame", "MP3"), ("adts", "aac", "AAC"), ("wav", "pcm_s16le", "WAV"), ("flac", "flac", "FLAC"),
        ("ac3", "ac3", "AC-3"), ("aiff", "pcm_s16be", "AIFF"), ("au", "pcm_s16be", "AU"), ("caf", "pcm_s16le", "CAF"),
    ],
)  # fmt: skip
def test_a_sound_file_is_named_as_such(container: str, codec: str, word: str) -> None:
    kind, message = reason_of(sound_in(container, codec))
    assert (kind, f"({word})" in message) == ("no_video_stream", True), message


@pytest.mark.parametrize(
    ("container", "codec", "share"),
    [
        ("matroska", "libx264", 0.05), ("matroska", "libx264", 0.4), ("avi", "libx264", 0.4), ("flv", "flv", 0.05),
        ("webm", "libvpx-vp9", 0.1), ("asf", "msmpeg4v3", 0.05), ("mpegts", "libx264", 0.05),
        ("wtv", "mpeg2video", 0.5),
    ],
)  # fmt: skip
def test_a_file_that_breaks_off_before_its_first_frame(
    container: str, codec: str, share: float, tmp_path: Path
) -> None:
    data = encode(numbered_frames(30), container=container, codec=codec)
    path = tmp_path / "a.bin"
    path.write_bytes(data[: int(share * len(data))])
    kind, message = reason_of(str(path))
    assert kind == "truncated", message
    assert "breaks off" in message


def test_an_mp4_that_breaks_off_in_its_index() -> None:
    fast = encode(numbered_frames(30), container_options={"movflags": "empty_moov+frag_keyframe"})
    end = fast.index(b"moov") + 200
    assert reason_of(fast[:end]) == (
        "truncated",
        f"the video breaks off in its index (`moov` lacks {_left(fast, end)} bytes).",
    )


def _left(data: bytes, end: int) -> str:
    at = data.index(b"moov") - 4
    return f"{at + int.from_bytes(data[at : at + 4], 'big') - end:,}"


def test_a_segment_without_its_head() -> None:
    data = encode(numbered_frames(30), container_options={"movflags": "empty_moov+frag_keyframe"})
    kind, message = reason_of(data[data.index(b"moof") - 4 :])
    assert kind == "truncated"
    assert "initialisation segment" in message


def test_a_video_without_frames_is_empty() -> None:
    data = encode(numbered_frames(30), container_options={"movflags": "empty_moov+frag_keyframe"})
    kind, message = reason_of(data[: data.index(b"moof") - 4])
    assert kind == "empty"
    assert "without a single frame" in message


def test_frames_that_do_not_decode_are_not_called_truncated() -> None:
    data = bytearray(encode(numbered_frames(30)))
    first, last = data.index(b"mdat") + 4, data.index(b"moov") - 4
    data[first:last] = NOISE[: last - first]
    kind, message = reason_of(bytes(data))
    assert kind == "decode"
    assert "not one frame could be decoded" in message


@pytest.mark.parametrize(
    ("data", "kind", "word"),
    [
        (bytes(9000), "truncated", "zero bytes"),
        (zipped(), "not_video", "ZIP archive. Unpack it"),
        (b"\x1f\x8b\x08" + NOISE, "not_video", "gzip"),
        (b"Rar!\x1a\x07\x01\x00" + NOISE, "not_video", "RAR"),
        (b"%PDF-1.7\n" + NOISE, "not_video", "PDF"),
        (picture("JPEG"), "not_video", "JPEG picture"),
        (picture("PNG"), "not_video", "PNG picture"),
        (picture("WEBP"), "not_video", "WebP picture"),
        (picture("TIFF"), "not_video", "TIFF picture"),
        (picture("AVIF"), "not_video", "picture (AVIF)"),
        (
            picture("WEBP", save_all=True, append_images=[Image.new("RGB", (96, 64))]),
            "not_video",
            "animated WebP",
        ),
        (b"#EXTM3U\n#EXTINF:1,\nsecret.ts\n", "not_video", "playlist (HLS)"),
        (b'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011">', "not_video", "playlist (DASH)"),
        (b"ffconcat version 1.0\nfile secret.ts\n", "not_video", "list of files"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 9\n", "not_video", "git lfs pull"),
        (b"\n<!DOCTYPE html><html><body>Not found", "not_video", "web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "not_video", "storage service"),
        (b'{"error": "quota"}', "not_video", "JSON"),
        ("Notes, no video.\n".encode("utf-16"), "not_video", "is text"),
        (NOISE, "not_video", "FFmpeg can open"),
    ],
)
def test_what_is_no_video_is_named(data: bytes, kind: str, word: str) -> None:
    found, message = reason_of(data)
    assert found == kind, message
    assert word in message


def test_a_broken_part_does_not_hide_that_the_rest_decodes() -> None:
    data = encode(numbered_frames(60), container="mpegts")
    with Video(data[: len(data) // 2]) as video:
        assert video.count() > 0


def test_what_ffmpeg_calls_not_permitted_is_a_bad_file_and_no_missing_permission(tmp_path: Path) -> None:
    """FFmpeg reports `Operation not permitted` for an ASF whose stream is of an unknown type."""
    video_media = bytes.fromhex("c0ef19bc4d5bcf11a8fd00805f5c442b")
    data = encode(numbered_frames(8), container="asf", codec="wmv2")
    assert video_media in data
    broken = data.replace(video_media, bytes(16))
    with pytest.raises(PermissionError):
        av.open(io.BytesIO(broken))
    (tmp_path / "a.wmv").write_bytes(broken)
    for source in (broken, str(tmp_path / "a.wmv")):
        kind, message = reason_of(source)
        assert kind == "not_video"
        assert "ASF or WMV" in message
