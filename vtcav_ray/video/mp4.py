"""Encode frames as H.264 and decode them, with PyAV."""

from __future__ import annotations

import io

import av
import numpy as np
from numpy.typing import NDArray

# x264's AVX-512 code gives different bytes from call to call (seen with PyAV 18.1 on an AMD EPYC). The code up to AVX2
# is exact, and gives the same bytes from SSSE3 upwards.
_EXACT_CODE = "asm=SSE4.2"


def encode_mp4(frames_THW3: NDArray[np.uint8], fps: int, crf: int = 18) -> bytes:
    """Encode RGB frames uint8 [T, H, W, 3] as an H.264 mp4 (yuv420p).

    The encoder runs one thread without AVX-512, so the same frames give the same bytes.

    Raises:
        ValueError: the height or width is odd (4:2:0 colour needs even ones), or fps is not positive.
    """
    _, height, width, _ = frames_THW3.shape
    if height % 2 or width % 2 or fps <= 0:
        raise ValueError(f"height={height}, width={width}, fps={fps}: need an even size and fps > 0")
    sink = io.BytesIO()
    options = {"crf": str(crf), "preset": "veryfast", "x264-params": _EXACT_CODE}
    with av.open(sink, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames_THW3:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return sink.getvalue()


def decode_mp4(data: bytes) -> NDArray[np.uint8]:
    """Decode all frames of an mp4: RGB uint8 [T, H, W, 3]. Raises `av.FFmpegError` if the bytes can't be decoded."""
    with av.open(io.BytesIO(data), "r") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return np.stack(frames).astype(np.uint8, copy=False)
