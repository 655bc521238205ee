"""Frames of a video by TorchCodec: the GPU's decoder next to a detector on a GPU, FFmpeg on a CPU.

Optional (`tracks.decoder: torchcodec`). PyAV still opens every video first, so refusals, frame counts and frame sizes
do not depend on the option. If TorchCodec stops at a frame, PyAV decodes the rest from there. On a CPU the frames equal
those of PyAV bit for bit. A GPU rounds differently when it converts YUV to RGB.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any

import av
import numpy as np

from vtcav_ray.errors import StageError
from vtcav_ray.video.decode import Source, Video

logger = logging.getLogger(__name__)

_BLOCK_BYTES = 16 * 2**20  # of the frames decoded in one call
_BLOCK_FRAMES = 16
_SAME_SECONDS = 1e-4


def check_torchcodec(device: str = "cpu") -> None:
    """Check that TorchCodec works on this machine by decoding a plain video.

    Without this check PyAV would silently decode every video: a CPU-only build loads, and decodes no video on a GPU.

    Args:
        device: device to decode on, such as "cuda" or "cpu".

    Raises:
        StageError: TorchCodec is not installed, does not load, or does not decode on the device.
    """
    needs = "`tracks.decoder: torchcodec` needs TorchCodec and the shared libraries of FFmpeg 4 to 8"
    try:
        decoder = _decoder_class()
    except (ImportError, OSError, RuntimeError) as error:
        raise StageError(
            f"{needs}, in versions that match torch: pip install 'vtcav-ray[torchcodec]', and Debian's package "
            f"`ffmpeg`. Or set `pyav`. ({_first_line(error)})"
        ) from error
    try:
        decoder(_plain_video(), dimension_order="NHWC", device=device).get_frames_in_range(0, 2)
    except (RuntimeError, ValueError) as error:
        raise StageError(
            f"{needs}; the installed TorchCodec can't decode plain H.264 on `{device}`. Install its build for "
            f"your CUDA (see its README), or set `pyav`. ({_first_line(error)})"
        ) from error


def _plain_video() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 256, 256, "yuv420p"
        for _ in range(2):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((256, 256, 3), 90, np.uint8), format="rgb24")))
        out.mux(stream.encode(None))
    return buffer.getvalue()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _decoder_class() -> Any:
    from torchcodec.decoders import VideoDecoder

    return VideoDecoder


class TorchcodecVideo(Video):
    """A `Video` whose `frames` come from TorchCodec as far as it can decode them, and from PyAV after that.

    Args:
        source, limits: as for `Video`; the errors are the same.
        device: torch device that decodes, such as "cuda" or "cpu".

    Attributes:
        handed_over: why PyAV decoded the video, or its last part, since `frames` was called; None if it did not.
    """

    def __init__(self, source: Source, *, device: str = "cpu", **limits: Any) -> None:
        super().__init__(source, **limits)
        self.device = device
        self.handed_over: str | None = None

    def frames(self, stride: int = 1) -> Iterator[tuple[int, np.ndarray]]:
        """Yield every `stride`-th frame from the start: (index, uint8 [H, W, 3] RGB). Holds a few frames in memory."""
        self.handed_over = None
        begin = 0
        for index, frame in self._by_torchcodec(stride):
            yield index, frame
            begin = index + stride
        if self.handed_over is not None:
            logger.info("%s: decoded by PyAV from frame %d on: %s", self.name, begin, self.handed_over)
            for index, frame in super().frames(stride):
                if index >= begin:
                    yield index, frame

    def _by_torchcodec(self, stride: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield frames. Ends early, with `handed_over` set, if TorchCodec can't continue."""
        if self.turned:
            self.handed_over = "the video is rotated or mirrored"
            return
        # TorchCodec seeks before it decodes. If the seek lands too late (MPEG-TS), it silently returns other frames. So
        # compare each frame's time with that of the packets.
        packets = self._packet_index()
        if packets is None:
            self.handed_over = "its packets don't identify the frames"
            return
        count = min(len(packets), self._max_frames)
        seconds = packets.stamps_T[:count] * float(self._stream.time_base)
        block = max(1, min(_BLOCK_FRAMES, _BLOCK_BYTES // (self.height * self.width * 3)))
        try:
            decoder = self._watched(
                lambda: _decoder_class()(
                    self._data,
                    stream_index=self._stream.index,
                    dimension_order="NHWC",
                    device=self.device,
                    seek_mode="exact",
                )
            )
            for first in range(0, count, block * stride):
                last = min(count, first + block * stride)
                found = self._watched(decoder.get_frames_in_range, first, last, stride)
                frames = found.data.cpu().numpy()
                if np.abs(found.pts_seconds.cpu().numpy() - seconds[first:last:stride]).max() > _SAME_SECONDS:
                    self.handed_over = "TorchCodec returns frames from different times"
                    return
                if frames.shape[1:] != (self.height, self.width, 3):
                    self.handed_over = f"TorchCodec returns frames of {frames.shape[2]}x{frames.shape[1]}"
                    return
                for place, frame in enumerate(frames):
                    yield first + place * stride, frame
        except (RuntimeError, IndexError, ValueError) as error:  # an unsupported codec, file or GPU
            self.handed_over = _first_line(error)
            return
        self.num_frames = count
        self._note_times(packets.stamps_T[:count].tolist())
        self._note_end()
