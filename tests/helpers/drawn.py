"""Small videos drawn for tests: frames that show their own number, and a moving square."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

KEYFRAMES_EVERY_30 = {"g": "30", "bf": "2", "preset": "ultrafast", "sc_threshold": "0"}


def numbered_frames(count: int, height: int = 64, width: int = 96) -> np.ndarray:
    """Draw frames uint8 [count, height, width, 3]; ten bright or dark columns encode each frame's number."""
    frames = np.full((count, height, width, 3), 40, np.uint8)
    edges = np.linspace(0, width, 11).astype(int)
    for number in range(count):
        for bit in range(10):
            if number >> bit & 1:
                frames[number, :, edges[bit] : edges[bit + 1]] = 220
    return frames


def number_of(frame: np.ndarray) -> int:
    """Return the number that a frame of `numbered_frames` shows, also after lossy coding."""
    columns = np.array_split(frame.mean(axis=(0, 2)), 10)
    return sum(int(c[len(c) // 2] > 128) << bit for bit, c in enumerate(columns))


def square_video(
    way: Sequence[tuple[float, float]], *, side: int = 16, height: int = 96, width: int = 128, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a red square on a textured ground; return (frames uint8 [T, H, W, 3], boxes float [T, 4]).

    Args:
        way: (x, y) of the square's upper left corner in each frame.
    """
    rng = np.random.default_rng(seed)
    ground = rng.integers(30, 140, (height // 4, width // 4)).repeat(4, 0).repeat(4, 1)
    frames = np.stack([ground] * 3, axis=2)[None].repeat(len(way), 0).astype(np.uint8)
    boxes = []
    for frame, (x, y) in zip(frames, way, strict=True):
        x, y = round(x), round(y)
        frame[max(y, 0) : y + side, max(x, 0) : x + side] = (250, 10, 10)
        boxes.append((max(x, 0), max(y, 0), min(x + side, width), min(y + side, height)))
    return frames, np.array(boxes, float)


def encode(
    frames: np.ndarray,
    *,
    container: str = "mp4",
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    fps: int = 25,
    options: dict[str, str] | None = None,
    pts: Sequence[int] | None = None,
    container_options: dict[str, str] | None = None,
    path: str | None = None,
) -> bytes:
    """Return the bytes of a video file. `pts` (in 1/1000 s) makes the frame rate vary; `path`: also write it there."""
    buffer = io.BytesIO()
    with av.open(path or buffer, "w", format=container, options=container_options or {}) as out:
        stream = out.add_stream(codec, rate=fps)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pix_fmt
        stream.options = options or {}
        if pts is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            if pts is not None:
                frame.pts, frame.time_base = pts[i], Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return Path(path).read_bytes() if path else buffer.getvalue()


def sound_only() -> bytes:
    """Return an mp4 with a second of silence and no picture."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=16_000)
        for i in range(15):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16_000, i * 1024
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return buffer.getvalue()


def quarter_turned() -> bytes:
    """Make eight numbered frames to be shown rotated a quarter turn clockwise."""
    data = bytearray(encode(numbered_frames(8)))
    at = data.index(b"tkhd") + 4 + 40  # the display matrix
    turn_right = (0, 1 << 16, 0, -(1 << 16), 0, 0, 64 << 16, 0, 1 << 30)
    data[at : at + 36] = struct.pack(">9i", *turn_right)
    return bytes(data)
