"""FFmpeg on one video file, within limits of memory and processor time: open, demux, decode, convert to RGB."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import av
import av.error
import numpy as np

from vtcav_ray.errors import InputError
from vtcav_ray.store.containers import DEMUXERS
from vtcav_ray.video.encryption import encrypted_data, encrypted_head, encrypted_packet
from vtcav_ray.video.ffmpeg_errors import head_of, raise_unless_bad_video, why_broken_off, why_not_open
from vtcav_ray.video.file_kinds import still_brand
from vtcav_ray.video.guard import UNDER_WAY
from vtcav_ray.video.mp4_boxes import has_index
from vtcav_ray.video.orientation import orientation_of
from vtcav_ray.video.streams import choose_stream, describe_choice

# FFmpeg opens files that a file refers to (playlists, concat scripts), so a "video" could read other files or URLs.
# Only self-contained formats are allowed, and no protocol except the local file.
_OPEN_OPTIONS = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file"}
_MAX_BROKEN_PACKETS = 200

# Whole frames that FFmpeg holds at a time with one thread, measured and rounded up. Animated pictures are composed
# from earlier ones; film codecs hold up to 16 reference frames, and as many that wait for their turn.
_HELD_FRAMES = {"apng": 4, "gif": 4, "png": 3, "mjpeg": 3, "rawvideo": 3, "ffv1": 4, "huffyuv": 3, "prores": 3}
_HELD_FRAMES_ELSEWHERE = 28
_RGB_BYTES = 3  # per pixel of the returned frame
_LARGEST_PIXEL_BYTES = 8  # per pixel, over all FFmpeg formats used by videos (rgba64)
_PROBED_FRAMES = 2  # frames that FFmpeg holds while it probes the streams
_PADDED_TO = 64  # pixels, at most, by FFmpeg: whole vectors of a processor, whole blocks of a codec
_MOST_STREAMS = 64  # streams that are probed with an individual limit
T = TypeVar("T")


class BoundedDecoder:
    """The video stream that a player shows, decoded within limits. `Video` adds frame indices and seeking to it.

    Args:
        name: of the video, for messages.
        data: the file's bytes, or its path on this machine.
        max_pixels, max_held_bytes, max_cpu_seconds, threads: see `vtcav_ray.video.decode.Video`.

    Raises:
        InputError: the file is empty.
    """

    def __init__(
        self,
        name: str,
        data: bytes | str,
        *,
        max_pixels: int,
        max_held_bytes: int,
        max_cpu_seconds: float,
        threads: int,
    ) -> None:
        self.name, self._data = name, data
        self._max_pixels, self._threads = max_pixels, threads
        self._max_held_bytes = max_held_bytes
        self._probed = min(max_pixels, max_held_bytes // (_LARGEST_PIXEL_BYTES * _PROBED_FRAMES))  # pixels
        self._max_cpu_seconds, self._cpu_seconds = max_cpu_seconds, 0.0
        if not data:
            raise InputError("empty", f"{name} has no bytes.")
        self.truncated = False
        self.choice: str | None = None  # which of several video streams is decoded
        self._packets, self._first_error = 0, ""  # of the video stream, since `_decode` began
        self._size: tuple[int, int] | None = None  # height and width of all shown frames; None: each frame's own
        self._container: Any = None

    def _open(self) -> None:
        """Open the file and prepare its video stream, with the limits that FFmpeg itself checks."""
        try:
            # FFmpeg decodes a frame of each stream to probe it, before anything can be checked here.
            each = [{"max_pixels": str(self._probed)}] * _MOST_STREAMS
            try:
                self._container = self._watched(self._opened, each)
            except ValueError as error:
                if "Per-stream options" not in str(error):
                    raise
                # MPEG and FLV name no streams before they are probed, and hold no pictures as large as those of PNG.
                self._container = self._watched(self._opened, None)
        except av.error.FFmpegError as error:
            raise_unless_bad_video(self._data, error)
            raise why_not_open(self.name, self._data, error) from error
        try:
            self._choose()
        except InputError:
            self.close()
            raise
        context = self._stream.codec_context
        self._size_known = context.width > 0  # not if only decoding reveals the size, and the frame has too many pixels
        try:
            self._check_frame(context.width, context.height, context.format)
        except InputError:
            self.close()
            raise
        # FFmpeg's own check, before it allocates memory: a stream may switch to larger frames midway.
        most = min(self._max_pixels, int(self._max_held_bytes / self._bytes_a_pixel(context.format)))
        # It counts the padding of rows and blocks too, with which a frame of just the largest size would be refused.
        padded = -(-context.width // _PADDED_TO) * -(-context.height // _PADDED_TO) * _PADDED_TO**2
        context.options = {**context.options, "max_pixels": str(max(most, padded))}
        context.thread_count = self._threads
        context.thread_type = "NONE" if self._threads == 1 else "AUTO"
        self._promised = int(self._stream.frames or 0)
        self._fresh = True

    def _choose(self) -> None:
        """Set `_stream` to the stream that a player shows, and `choice` to which of several it is."""
        streams = self._container.streams
        name, head = self._container.format.name, head_of(self._data)
        if (brand := still_brand(head)) and not has_index(self._data):
            raise InputError("not_video", f"{self.name} is a picture ({brand}), not a video.")
        stream = choose_stream(streams.video)
        if stream is None:
            if not streams.audio and (why := why_broken_off(self._data)):
                raise InputError("truncated", f"{self.name} {why}")
            has = "sound" if streams.audio else "no sound"
            cover = " and a cover picture" if streams.video else ""
            raise InputError("no_video_stream", f"{self.name} has no video stream. It has {has}{cover}.")
        self._stream: Any = stream
        if why := encrypted_head(name, head, stream):
            raise InputError("encrypted", f"{self.name} {why}.")
        if stream.codec_context is None:
            if why := encrypted_data(name, self._data, head):
                raise InputError("encrypted", f"{self.name} {why}.")
            raise InputError("decode", f"{self.name}: this build of FFmpeg does not know its codec.")
        self.choice = describe_choice(streams.video, stream)

    def _opened(self, each_stream: Any, **options: str) -> Any:
        file: Any = io.BytesIO(self._data) if isinstance(self._data, bytes) else f"file:{self._data}"
        return av.open(file, options=_OPEN_OPTIONS | options, stream_options=each_stream, metadata_errors="replace")

    def _reopen(self) -> None:
        if not self._fresh:
            self.close()
            self._open()

    def close(self) -> None:
        """Free the file and the decoder."""
        if self._container is not None:
            self._container.close()
            self._container = None

    def _decode(self) -> Iterator[Any]:
        """Yield PyAV frames in presentation order. Packets that don't decode are skipped."""
        self._fresh = False
        self._packets = broken = 0
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = self._watched(next, packets, None)
            except av.error.FFmpegError as error:
                raise_unless_bad_video(self._data, error)
                self.truncated = True
                return
            if packet is None:
                return
            if packet.is_corrupt:
                self.truncated = True
            if why := encrypted_packet(packet):
                raise InputError("encrypted", f"{self.name} {why}.")
            self._packets += packet.size > 0
            try:
                frames = self._watched(packet.decode)
            except av.error.EOFError:
                return
            except (av.error.FFmpegError, ValueError) as error:
                raise_unless_bad_video(self._data, error)
                broken += 1
                self.truncated = True
                self._first_error = self._first_error or str(error)
                if broken > _MAX_BROKEN_PACKETS:
                    return
                continue
            for frame in frames:
                self._check_frame(frame.width, frame.height, frame.format)
                yield frame

    def _shown(self, frame: Any) -> np.ndarray:
        """Convert a PyAV frame to RGB, turned and mirrored as in a player, and scaled to `_size`: uint8 [H, W, 3]."""
        orientation = orientation_of(frame)
        height, width = (frame.height, frame.width) if self._size is None else self._size
        if orientation.transposed and self._size is not None:
            height, width = width, height
        try:
            image = self._watched(lambda: frame.to_ndarray(format="rgb24", width=width, height=height))
        except (av.error.FFmpegError, ValueError) as error:
            raise_unless_bad_video(self._data, error)
            raise InputError("decode", f"{self.name}: a frame can't be converted to RGB: {error}") from error
        return orientation.apply(image)

    def _no_frame(self) -> InputError:
        """Return why not one frame came: encrypted, empty, broken off, broken, or frames too large to look at."""
        said = f"{self.name}: not one frame could be decoded."
        head = head_of(self._data)
        if why := encrypted_data(self._container.format.name, self._data, head):
            return InputError("encrypted", f"{self.name} {why}.")
        if (self.truncated or not self._packets) and (why := why_broken_off(self._data)):
            return InputError("truncated", f"{self.name} {why}")
        if not self._packets and self._promised:
            return InputError("truncated", f"{self.name} breaks off before its first frame of {self._promised:,}.")
        if not self._packets:
            why = "nothing was recorded, or it breaks off"
            return InputError("empty", f"{self.name} has a video stream without a single frame: {why}.")
        if self._size_known:
            why = f" The first of its {self._packets:,} packets: {self._first_error}" if self._first_error else ""
            return InputError("decode", said + why)
        width, height = self._stated_size()
        try:
            self._check_frame(width, height, None)
        except InputError as too_large:
            return too_large
        why = "" if width else f" It is broken, or its frames have over {self._probed:,} pixels."
        return InputError("decode", said + why)

    def _stated_size(self) -> tuple[int, int]:
        """Return the width and height that the container states, 0 where it states none. No decoder is opened."""
        try:
            with self._watched(lambda: self._opened(None, codec_whitelist="none")) as container:
                stream = choose_stream(container.streams.video)
                context = stream.codec_context if stream is not None else None
                return (context.width, context.height) if context is not None else (0, 0)
        except av.error.FFmpegError as error:
            raise_unless_bad_video(self._data, error)
            return 0, 0

    def _bytes_a_pixel(self, pixels: Any) -> float:
        """Return bytes per pixel over all frames that are held at a time. `pixels` is PyAV's VideoFormat."""
        bits = pixels.padded_bits_per_pixel if pixels is not None else 0
        held = _HELD_FRAMES.get(self._stream.codec_context.name, _HELD_FRAMES_ELSEWHERE) + self._threads - 1
        return (bits / 8 or _LARGEST_PIXEL_BYTES) * held + _RGB_BYTES

    def _check_frame(self, width: int, height: int, pixels: Any) -> None:
        """Refuse frames that are too large in pixels, or in the memory needed to decode them."""
        if width * height > self._max_pixels:
            raise InputError(
                "too_large", f"{self.name} has frames of {width}x{height}; the limit is {self._max_pixels:,} pixels."
            )
        if (held := width * height * self._bytes_a_pixel(pixels)) > self._max_held_bytes:
            what = pixels.name if pixels is not None else "unknown"
            raise InputError(
                "too_large",
                f"{self.name} has frames of {width}x{height} ({self._stream.codec_context.name}, {what}): decoding "
                f"them may need {held / 1e9:.1f} GB, and {self._max_held_bytes / 1e9:.1f} GB are allowed "
                "(resources.decode.frames_gb).",
            )

    def _watched(self, call: Callable[..., T], *args: Any) -> T:
        """Call FFmpeg within the limits of this video, and record the call in `UNDER_WAY` for the guard."""
        if self._cpu_seconds > self._max_cpu_seconds:
            raise InputError("timeout", f"{self.name} takes over {self._max_cpu_seconds:.0f} s of processor time.")
        thread, began = threading.get_ident(), time.thread_time()
        UNDER_WAY[thread] = (self.name, time.monotonic())
        try:
            return call(*args)
        except MemoryError as error:
            raise InputError("memory", f"{self.name} needs more memory than is available.") from error
        finally:
            del UNDER_WAY[thread]
            self._cpu_seconds += time.thread_time() - began
