"""Videos as other people have them: several streams, covers, turned and mirrored, encrypted, with odd pixels."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from PIL import Image

from tests.helpers.drawn import encode, numbered_frames

ONE = 1 << 16  # in a display matrix
# The eight right-angled display matrices as (a, b, c, d): x' = a x + c y, y' = b x + d y.
ORIENTATIONS = {
    "upright": (1, 0, 0, 1),
    "right": (0, 1, -1, 0),
    "upside_down": (-1, 0, 0, -1),
    "left": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
    "flipped": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "anti_transposed": (0, -1, -1, 0),
}


def shown_as(image: np.ndarray, name: str) -> np.ndarray:
    """Return an image [H, W, ...] as a display matrix of `ORIENTATIONS` shows it, pixel by pixel."""
    a, b, c, d = ORIENTATIONS[name]
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width]
    to_x, to_y = a * x + c * y, b * x + d * y
    to_x, to_y = to_x - to_x.min(), to_y - to_y.min()
    shown = np.empty((to_y.max() + 1, to_x.max() + 1, *image.shape[2:]), image.dtype)
    shown[to_y, to_x] = image
    return shown


def oriented(frames: np.ndarray, name: str, *, container: str = "mp4", fps: int = 25) -> bytes:
    """Encode frames with a display matrix of `ORIENTATIONS`."""
    a, b, c, d = (n * ONE for n in ORIENTATIONS[name])
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream = _stream(out, "libx264", frames, fps)
        stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        _write(out, {stream: frames})
    return buffer.getvalue()


def of_streams(
    streams: Sequence[tuple[np.ndarray, int]], *, container: str = "matroska", codec: str = "libx264"
) -> bytes:
    """Return a file with several video streams, given as (frames, disposition)."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        made: dict[Any, np.ndarray] = {}
        for frames, disposition in streams:
            stream = _stream(out, codec, frames, 25)
            stream.disposition = Disposition(disposition)
            made[stream] = frames
        _write(out, made)
    return buffer.getvalue()


def with_cover(
    frames: np.ndarray | None,
    cover: np.ndarray,
    *,
    container: str = "mp4",
    disposition: int = int(Disposition.attached_pic),
) -> bytes:
    """Return a file with a cover, by default as attached picture, and either a video or (`frames` is None) sound."""
    buffer = io.BytesIO()
    picture = io.BytesIO()
    Image.fromarray(cover).save(picture, "PNG")
    with av.open(buffer, "w", format=container) as out:
        first = out.add_stream("png", rate=1)
        first.height, first.width, first.pix_fmt = *cover.shape[:2], "rgb24"
        first.disposition = Disposition(disposition)
        if frames is None:
            second: Any = out.add_stream("aac", rate=16_000)
        else:
            second = _stream(out, "libx264", frames, 25)
        out.start_encoding()
        packet = av.Packet(picture.getvalue())
        packet.stream, packet.pts, packet.dts, packet.time_base = first, 0, 0, Fraction(1, 1)
        packet.is_keyframe = True
        out.mux(packet)
        if frames is None:
            _write_silence(out, second)
        else:
            _write(out, {second: frames})
    return buffer.getvalue()


def wmv_with_cover(frames: np.ndarray, cover: np.ndarray) -> bytes:
    """Return a WMV whose header has a cover (`WM/Picture`), which FFmpeg reads as stream 0."""
    picture = io.BytesIO()
    Image.fromarray(cover).save(picture, "PNG")
    image = picture.getvalue()
    image += bytes(len(image) % 2)
    value = b"\x03" + len(image).to_bytes(4, "little") + "image/png\0".encode("utf-16-le") + b"\0\0" + image + b"\0"
    key = "WM/Picture"
    place = "x" * (len(value) // 2 - 1)  # FFmpeg's writer has text alone; its type and content are replaced below
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="asf") as out:
        out.metadata[key] = place
        stream = _stream(out, "msmpeg4v3", frames, 25)
        _write(out, {stream: frames})
    old = (
        (key + "\0").encode("utf-16-le") + b"\0\0" + len(value).to_bytes(2, "little") + f"{place}\0".encode("utf-16-le")
    )
    new = (key + "\0").encode("utf-16-le") + b"\1\0" + len(value).to_bytes(2, "little") + value
    data = buffer.getvalue()
    assert data.count(old) == 1
    assert len(new) == len(old)
    return data.replace(old, new)


def encrypted_mp4() -> bytes:
    """Return an MP4 with common encryption."""
    key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "76" * 16, "encryption_kid": "a7" * 16}
    return encode(numbered_frames(30), container_options=key)


def fairplay_mp4() -> bytes:
    """Return an MP4 whose sample entry is that of FairPlay."""
    return encode(numbered_frames(8)).replace(b"avc1\0", b"drmi\0")


def scrambled_ts() -> bytes:
    """Return a transport stream whose video packets are scrambled, and state it."""
    data = bytearray(encode(numbered_frames(30), container="mpegts"))
    noise = np.random.default_rng(0)
    for at in range(0, len(data), 188):
        if (data[at + 1] & 0x1F) << 8 | data[at + 2] == 256:
            data[at + 3] |= 0xC0
            first = at + 4 + (data[at + 4] + 1 if data[at + 3] & 0x20 else 0)
            data[first : at + 188] = noise.integers(0, 256, at + 188 - first, dtype=np.uint8).tobytes()
    return bytes(data)


def scrambled_vob() -> bytes:
    """Return a program stream whose video packets state that they are scrambled, as on a DVD."""
    data = bytearray(encode(numbered_frames(30), container="vob", codec="mpeg2video"))
    at = data.find(b"\0\0\1\xe0")
    while at >= 0:
        data[at + 6] |= 0x10
        at = data.find(b"\0\0\1\xe0", at + 4)
    return bytes(data)


def encrypted_webm() -> bytes:
    """Return a WebM whose track has a ContentEncryption element."""
    data = encode(numbered_frames(8), container="webm", codec="libvpx-vp9", container_options={"live": "1"})

    def element(name: str, content: bytes) -> bytes:
        return bytes.fromhex(name) + (1 << 56 | len(content)).to_bytes(8, "big") + content

    encryption = element("5035", element("47e1", b"\5") + element("47e2", bytes(range(16))))
    encodings = element(
        "6d80", element("6240", element("5031", b"\0") + element("5032", b"\1") + element("5033", b"\1") + encryption)
    )
    tracks, end = _element(data, bytes.fromhex("1654ae6b"), data.rindex(bytes.fromhex("1654ae6b")))
    track, _ = _element(data, b"\xae", tracks[1])
    content = element("ae", data[track[1] : track[2]] + encodings)
    return data[: tracks[0]] + element("1654ae6b", content) + data[end:]


def _element(data: bytes, name: bytes, start: int) -> tuple[tuple[int, int, int], int]:
    """Return ((start, start of the content, end), end) of the next element of that name."""
    at = data.index(name, start)
    first = at + len(name)
    width = 9 - data[first].bit_length()
    size = int.from_bytes(data[first : first + width], "big") & ((1 << 7 * width) - 1)
    end = first + width + size
    return (at, first + width, end), end


def protected_wmv() -> bytes:
    """Return a WMV whose header has a Content Encryption Object."""
    data = encode(numbered_frames(30), container="asf", codec="msmpeg4v3")
    padding = bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e") + (24 + 16).to_bytes(8, "little") + bytes(16)
    size = int.from_bytes(data[16:24], "little")
    count = int.from_bytes(data[24:28], "little")
    head = data[:16] + (size + len(padding)).to_bytes(8, "little") + (count + 1).to_bytes(4, "little") + data[28:size]
    return head + padding + data[size:]


def dahua(frames: np.ndarray) -> bytes:
    """Return a file as security cameras write it (.dav): one header per frame of H.264."""
    buffer = io.BytesIO()
    sizes = bytes([0x80, 0, frames.shape[2] // 8, frames.shape[1] // 8, 0x81, 0, 0x08, 25])  # size; codec and rate
    codec = av.CodecContext.create("libx264", "w")
    codec.height, codec.width, codec.pix_fmt, codec.time_base = *frames.shape[1:3], "yuv420p", Fraction(1, 25)
    codec.options = {"bf": "0"}
    images = [av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24") for image in frames]
    for number, packet in enumerate(p for image in [*images, None] for p in codec.encode(image)):
        data = bytes(packet)
        length = 24 + len(sizes) + len(data) + 8
        head = b"DHAV" + bytes([0xFD if packet.is_keyframe else 0xFC, 0, 0, 0]) + struct.pack("<II", number, length)
        head += struct.pack("<IHBB", 0, 40 * number, len(sizes), 0)
        buffer.write(head + sizes + data + b"dhav" + struct.pack("<I", length))
    return buffer.getvalue()


def stretched(frames: np.ndarray, aspect: Fraction) -> bytes:
    """Encode frames whose pixels are `aspect` times as wide as high."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = _stream(out, "libx264", frames, 25)
        stream.codec_context.sample_aspect_ratio = aspect
        _write(out, {stream: frames})
    return buffer.getvalue()


def sound_in(container: str, codec: str) -> bytes:
    """Return two seconds of silence in a container."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        _write_silence(out, out.add_stream(codec, rate=16_000 if codec == "aac" else 44_100))
    return buffer.getvalue()


def _stream(out: Any, codec: str, frames: np.ndarray, fps: int) -> Any:
    stream = out.add_stream(codec, rate=fps)
    stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
    return stream


def _write(out: Any, streams: dict[Any, np.ndarray]) -> None:
    for stream, frames in streams.items():
        for image in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        out.mux(stream.encode(None))


def _write_silence(out: Any, stream: Any) -> None:
    planar = stream.codec_context.format is None or stream.codec_context.format.is_planar
    for i in range(40):
        if planar:
            samples, kind = np.zeros((1, 1024), np.float32), "fltp"
        else:
            samples, kind = np.zeros((1, 1024), np.int16), "s16"
        frame = av.AudioFrame.from_ndarray(samples, format=kind, layout="mono")
        frame.sample_rate, frame.pts = stream.codec_context.sample_rate, i * 1024
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))
