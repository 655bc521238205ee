"""Frames of one video, decoded with PyAV: all of them in order, or only the requested ones.

A frame's INDEX is its position among the frames that decode, in presentation order, from 0. It does not depend on
time stamps, so a variable or missing frame rate only changes `fps`.

Special cases:
- A rotation stored in the file is applied, in steps of 90 degrees: frames look as in a player.
- Packets that do not decode are skipped, as in a player. A truncated file gives the frames before the break; requesting
  later frames raises `InputError("truncated")`.
- Frames that change size in mid-stream are scaled to the size of the first.
"""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import av
import av.error
import numpy as np

from vtcav_ray.errors import InputError
from vtcav_ray.video.fetch import Source, fetch
from vtcav_ray.video.ffmpeg_errors import raise_unless_bad_video, why_not_open
from vtcav_ray.video.guard import UNDER_WAY
from vtcav_ray.video.limits import MAX_CPU_SECONDS as MAX_CPU_SECONDS
from vtcav_ray.video.limits import MAX_FRAMES as MAX_FRAMES
from vtcav_ray.video.limits import MAX_HELD_BYTES as MAX_HELD_BYTES
from vtcav_ray.video.limits import MAX_PIXELS as MAX_PIXELS
from vtcav_ray.video.limits import MAX_RESULT_BYTES as MAX_RESULT_BYTES
from vtcav_ray.video.sample import FALLBACK_FPS

# FFmpeg opens files that a file refers to (playlists, concat scripts), so a "video" could read other files or URLs.
# Only self-contained formats are allowed, and no protocol except the local file.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,flv,asf,ogg,nut,h264,hevc,m4v,ivf,gif,apng"
_OPEN_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
# Codecs in which each packet is one shown frame, so a packet's rank by time stamp is its frame's index.
_SEEKABLE = frozenset({"h264", "hevc", "vp9", "av1", "mjpeg"})
_SEEK_GAIN = 24  # frames that a jump must save: a seek flushes the decoder and starts at an expensive keyframe
_MAX_BROKEN_PACKETS = 200
_REORDERED = 64  # packets that may arrive before their frame's position, with a margin
_MAX_FPS = 1000.0  # at or above it, FFmpeg found no rate and returns the unit of the time stamps

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


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video.

    Attributes:
        fps: average frames per second; `FALLBACK_FPS` if the file states none.
        num_frames: frames that decode (the function that returns this states how far it looked).
        height, width: pixels of a shown frame, after rotation.
        truncated: the file breaks off, or declares more frames than it has.
    """

    fps: float
    num_frames: int
    height: int
    width: int
    truncated: bool = False


class Video:
    """An open video. Use it as a context manager. `num_frames` is final once `frames()` is exhausted.

    Args:
        source: URI on any fsspec file system, or the file's bytes.
        max_frames: later frames are ignored.
        max_pixels: larger frames are refused before memory is allocated for them.
        max_held_bytes: memory for whole frames at a time, in FFmpeg's decoder and the returned frame. It is computed
            from the size, the pixel format and the codec, and refused before it is allocated.
        max_cpu_seconds: processor time for FFmpeg on this video, in the calling thread. Not wall time: a busy machine
            must not make a video bad.
        threads: decoder threads. Use 1 if many small videos are decoded in parallel.

    Raises:
        InputError: `missing`, `empty`, `not_video`, `no_video_stream`, `truncated`, `too_large`, `memory`, `timeout` or
            `decode`.
        OSError: permission is missing, or the network failed.
    """

    def __init__(
        self,
        source: Source,
        *,
        max_frames: int = MAX_FRAMES,
        max_pixels: int = MAX_PIXELS,
        max_held_bytes: int = MAX_HELD_BYTES,
        max_cpu_seconds: float = MAX_CPU_SECONDS,
        threads: int = 1,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = "the video" if isinstance(source, bytes) else os.fspath(source)
        self._data = source if isinstance(source, bytes) else fetch(source, storage_options)
        self._max_frames, self._max_pixels, self._threads = max_frames, max_pixels, threads
        self._max_held_bytes = max_held_bytes
        self._probed = min(max_pixels, max_held_bytes // (_LARGEST_PIXEL_BYTES * _PROBED_FRAMES))  # pixels
        self._max_cpu_seconds, self._cpu_seconds = max_cpu_seconds, 0.0
        if not self._data:
            raise InputError("empty", f"{self.name} has no bytes.")
        self.num_frames = 0
        self.truncated = False
        self._container: Any = None
        self._open()
        try:
            first = next(self._decode(), None)
            if first is None:
                raise self._no_frame()
            self.height, self.width = self._shown(first).shape[:2]
            self.rotation = round(first.rotation)  # degrees counter-clockwise, already applied to returned frames
            rate = float(self._stream.average_rate or self._stream.guessed_rate or 0)
            self.fps = rate if 0 < rate < _MAX_FPS else FALLBACK_FPS
            self._size = (first.height, first.width)
        except BaseException:
            self.close()
            raise

    @property
    def info(self) -> VideoInfo:
        """What is known so far. `num_frames` counts the frames decoded so far."""
        return VideoInfo(self.fps, self.num_frames, self.height, self.width, self.truncated)

    def __enter__(self) -> Video:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Free the file and the decoder."""
        if self._container is not None:
            self._container.close()
            self._container = None

    def frames(self, stride: int = 1) -> Iterator[tuple[int, np.ndarray]]:
        """Yield every `stride`-th frame from the start: (index, uint8 [H, W, 3] RGB). Holds one frame in memory."""
        self._reopen()
        self.num_frames = 0
        for frame in self._decode():
            if self.num_frames >= self._max_frames:
                return
            if self.num_frames % stride == 0:
                yield self.num_frames, self._shown(frame)
            self.num_frames += 1
        self._note_end()

    def _note_end(self) -> None:
        promised = min(self._promised, self._max_frames)
        self.truncated |= self.num_frames < promised - max(2, promised // 50)  # containers miscount by a frame or two

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Return the frames at these indices, in the given order, repeats allowed: uint8 [len(indices), H, W, 3] RGB.

        Raises:
            InputError: `truncated` or `too_short` if the video ends before an index; `too_large`.
        """
        wanted = sorted({int(i) for i in indices})
        if not wanted:
            return np.empty((0, self.height, self.width, 3), np.uint8)
        if wanted[0] < 0:
            raise ValueError(f"frame indices are counted from 0, not {wanted[0]}")
        if len(indices) * self.height * self.width * 3 > MAX_RESULT_BYTES:
            raise InputError(
                "too_large", f"{self.name}: {len(indices)} frames of {self.width}x{self.height} are too many at once."
            )
        places: dict[int, list[int]] = {index: [] for index in wanted}
        for place, index in enumerate(indices):
            places[int(index)].append(place)
        frames_THW3 = np.empty((len(indices), self.height, self.width, 3), np.uint8)  # filled in place: no second copy
        for index, frame in self.frames_at(wanted):
            frames_THW3[places.pop(index)] = frame
        if places:
            kind = "truncated" if self.truncated else "too_short"
            raise InputError(kind, f"{self.name} has no frame {min(places)}: {self.num_frames} frames decode.")
        return frames_THW3

    def frames_at(self, wanted: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (index, uint8 [H, W, 3] RGB) of the wanted frames, one at a time; missing frames are skipped.

        Args:
            wanted: rising indices without repeats.
        """
        given = 0
        if wanted and wanted[-1] >= _SEEK_GAIN:
            for index, frame in self._seeking(wanted):
                yield index, frame
                given += 1
        if given < len(wanted):
            yield from self._in_order(wanted[given:])

    def count(self) -> int:
        """Count the frames: from the packets if each packet is surely one frame, otherwise by decoding."""
        stamps = self._time_stamps()
        if stamps is not None:
            return min(len(stamps), self._max_frames)
        for _ in self.frames(stride=2**31):
            pass
        return self.num_frames

    def _in_order(self, wanted: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the wanted frames by decoding from the start up to the last of them."""
        self._reopen()
        self.num_frames = 0
        want = set(wanted)
        for frame in self._decode():
            if self.num_frames >= self._max_frames:
                return
            if self.num_frames in want:
                yield self.num_frames, self._shown(frame)
            self.num_frames += 1
            if self.num_frames > wanted[-1]:
                return
        self.truncated |= self.num_frames < min(self._promised, self._max_frames)

    def _seeking(self, wanted: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the wanted frames, jumping to keyframes. Ends early if no jump pays or exactness is in doubt."""
        stamps = self._time_stamps()
        if stamps is None or wanted[-1] >= min(len(stamps), self._max_frames):
            return
        keyframes = [i for i, (_, is_key) in enumerate(stamps) if is_key]
        rank = {pts: i for i, (pts, _) in enumerate(stamps)}
        jumps, at = {}, 0
        for index in wanted:
            key = keyframes[int(np.searchsorted(keyframes, index, side="right")) - 1]
            if key >= at + _SEEK_GAIN:
                jumps[index] = key
            at = index + 1
        if not jumps:
            return
        self._reopen()
        frames = self._decode()
        for index in wanted:
            if index in jumps:
                self._container.seek(stamps[jumps[index]][0], stream=self._stream, backward=True)
                frames = self._decode()
            for frame in frames:
                place = rank.get(frame.pts)
                if place is None or place > index or self.truncated:
                    return  # the seek landed too late, or the stream does not match its packets
                if place == index:
                    yield index, self._shown(frame)
                    break
            else:
                return
        self.num_frames = len(stamps)

    def _time_stamps(self) -> list[tuple[int, bool]] | None:
        """Read (pts, is keyframe) of every frame, by index, from the packets; None if ranks can't be trusted."""
        self._reopen()
        if self._stream.codec_context.name not in _SEEKABLE:
            return None
        self._fresh = False
        stamps: list[tuple[int, bool]] = []
        most = self._max_frames + _REORDERED + 1
        try:
            packets = self._container.demux(self._stream)
            while (packet := self._watched(next, packets, None)) is not None:
                if len(stamps) == most:
                    break  # a million packets may claim to be frames: list none after the last usable one
                if packet.size == 0:
                    continue
                if packet.pts is None or packet.is_corrupt or packet.is_discard:
                    return None
                stamps.append((packet.pts, bool(packet.is_keyframe)))
        except av.error.FFmpegError as error:
            raise_unless_bad_video(self._data, error)
            return None
        if not stamps or not stamps[0][1] or (self._promised and len(stamps) != min(self._promised, most)):
            return None
        first = stamps[0][0]
        stamps.sort()
        if stamps[0][0] != first or len({pts for pts, _ in stamps}) != len(stamps):
            return None  # frames before the first keyframe don't decode, and equal stamps have no order
        return stamps

    def _open(self) -> None:
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
        videos = self._container.streams.video
        if not videos:
            self.close()
            raise InputError("no_video_stream", f"{self.name} has no video stream.")
        self._stream: Any = videos[0]
        context = self._stream.codec_context
        if context is None:
            self.close()
            raise InputError("decode", f"{self.name}: this build of FFmpeg does not know its codec.")
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

    def _opened(self, each_stream: Any, **options: str) -> Any:
        file: Any = io.BytesIO(self._data) if isinstance(self._data, bytes) else f"file:{self._data}"
        return av.open(file, options=_OPEN_OPTIONS | options, stream_options=each_stream, metadata_errors="replace")

    def _no_frame(self) -> InputError:
        """Return why not one frame came: the video is broken, or its frames were too large to look at."""
        said = f"{self.name}: not one frame could be decoded."
        if self._size_known:
            return InputError("truncated" if self.truncated else "decode", said)
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
                streams = container.streams.video
                context = streams[0].codec_context if streams else None
                return (context.width, context.height) if context is not None else (0, 0)
        except av.error.FFmpegError as error:
            raise_unless_bad_video(self._data, error)
            return 0, 0

    def _reopen(self) -> None:
        if not self._fresh:
            self.close()
            self._open()

    def _decode(self) -> Iterator[Any]:
        """Yield PyAV frames in presentation order. Packets that don't decode are skipped."""
        self._fresh = False
        broken = 0
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
            try:
                frames = self._watched(packet.decode)
            except av.error.EOFError:
                return
            except (av.error.FFmpegError, ValueError) as error:
                raise_unless_bad_video(self._data, error)
                broken += 1
                self.truncated = True
                if broken > _MAX_BROKEN_PACKETS:
                    return
                continue
            for frame in frames:
                self._check_frame(frame.width, frame.height, frame.format)
                yield frame

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

    def _shown(self, frame: Any) -> np.ndarray:
        height, width = getattr(self, "_size", (frame.height, frame.width))
        try:
            image = self._watched(lambda: frame.to_ndarray(format="rgb24", width=width, height=height))
        except (av.error.FFmpegError, ValueError) as error:
            raise_unless_bad_video(self._data, error)
            raise InputError("decode", f"{self.name}: a frame can't be converted to RGB: {error}") from error
        turns = round(frame.rotation / 90) % 4  # degrees counter-clockwise, like np.rot90
        return np.ascontiguousarray(np.rot90(image, turns)) if turns else image

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


def probe(
    source: Source,
    *,
    max_frames: int = MAX_FRAMES,
    max_pixels: int = MAX_PIXELS,
    storage_options: Mapping[str, Any] | None = None,
) -> VideoInfo:
    """Open a video, decode its first frame, and count its frames, without decoding them where that is exact."""
    with Video(source, max_frames=max_frames, max_pixels=max_pixels, storage_options=storage_options) as video:
        count = video.count()
        return VideoInfo(video.fps, count, video.height, video.width, video.truncated)


def decode_frames(
    source: Source,
    indices: Sequence[int] | None = None,
    *,
    max_frames: int = MAX_FRAMES,
    max_pixels: int = MAX_PIXELS,
    storage_options: Mapping[str, Any] | None = None,
) -> tuple[np.ndarray, VideoInfo]:
    """Decode all frames of a video, or those at `indices`: (uint8 [T, H, W, 3] RGB, VideoInfo).

    Decodes only what is needed: from the start to the last index, jumping to keyframes where that pays and is exact.
    `VideoInfo.num_frames` covers the whole video if `indices` is None, else only what was seen while decoding.

    Raises:
        InputError: see `Video`; also `too_short` or `truncated` if the video ends before an index.
    """
    with Video(source, max_frames=max_frames, max_pixels=max_pixels, storage_options=storage_options) as video:
        if indices is not None:
            return video.read(indices), video.info
        frames: list[np.ndarray] = []
        for _, frame in video.frames():
            frames.append(frame)
            if len(frames) * frame.nbytes > MAX_RESULT_BYTES:
                raise InputError("too_large", f"{video.name}: its frames don't fit in {MAX_RESULT_BYTES:,} bytes.")
        return np.stack(frames), video.info


def iter_frames(
    source: Source,
    *,
    stride: int = 1,
    max_frames: int = MAX_FRAMES,
    max_pixels: int = MAX_PIXELS,
    storage_options: Mapping[str, Any] | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (index, uint8 [H, W, 3] RGB) of every `stride`-th frame. Holds one frame in memory at any video length."""
    with Video(source, max_frames=max_frames, max_pixels=max_pixels, storage_options=storage_options) as video:
        yield from video.frames(stride)
