"""Frames of one video, decoded with PyAV: all of them in order, or only the requested ones.

A frame's INDEX is its position among the frames that decode, in presentation order, from 0. It does not depend on
time stamps, so a variable or missing frame rate only changes `fps` and `seconds`.

Special cases:
- Of several video streams, the one is decoded that a player shows: never an attached picture (a cover), first a
  default stream, then the largest. `Video.choice` says which.
- The file's display matrix is applied, rotation and mirroring, in steps of 90 degrees: frames look as in a player.
- Pixels that are not square are not stretched: frames have their stored size, as with Decord, OpenCV and PyAV, and so
  as in MMAction2. `Video.pixel_aspect` says what a player does.
- Packets that do not decode are skipped, as in a player. A truncated file gives the frames before the break; requesting
  later frames raises `InputError("truncated")`.
- Frames that change size in mid-stream are scaled to the size of the first.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import av
import av.error
import numpy as np

from vtcav_ray.errors import InputError
from vtcav_ray.video.bounded_decoder import BoundedDecoder
from vtcav_ray.video.fetch import Source, fetch
from vtcav_ray.video.ffmpeg_errors import raise_unless_bad_video
from vtcav_ray.video.frame_times import frame_times, seconds_of_frames
from vtcav_ray.video.limits import MAX_CPU_SECONDS as MAX_CPU_SECONDS
from vtcav_ray.video.limits import MAX_FRAMES as MAX_FRAMES
from vtcav_ray.video.limits import MAX_HELD_BYTES as MAX_HELD_BYTES
from vtcav_ray.video.limits import MAX_PIXELS as MAX_PIXELS
from vtcav_ray.video.limits import MAX_RESULT_BYTES as MAX_RESULT_BYTES
from vtcav_ray.video.orientation import UPRIGHT, orientation_of
from vtcav_ray.video.packets import SEEKABLE, PacketIndex, read_index
from vtcav_ray.video.sample import FALLBACK_FPS

_SEEK_GAIN = 24  # frames that a jump must save: a seek flushes the decoder and starts at an expensive keyframe
_REORDERED = 64  # packets that may arrive before their frame's position, with a margin
_MAX_FPS = 1000.0  # at or above it, FFmpeg found no rate and returns the unit of the time stamps


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video.

    Attributes:
        fps: average frames per second: of the container until all frames were seen, then of their time stamps if these
            differ; `FALLBACK_FPS` if the file has neither.
        num_frames: frames that decode (the function that returns this states how far it looked).
        height, width: pixels of a shown frame, after rotation.
        truncated: the file breaks off, or declares more frames than it has.
    """

    fps: float
    num_frames: int
    height: int
    width: int
    truncated: bool = False


class Video(BoundedDecoder):
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
        InputError: `missing`, `empty`, `not_video`, `no_video_stream`, `encrypted`, `truncated`, `too_large`, `memory`,
            `timeout` or `decode`.
        OSError: permission is missing, or the network failed.

    Attributes:
        fps: see `VideoInfo`.
        stated_fps: the container's rate.
        seconds: float64 [num_frames], the time of each frame since the first, once `frames()` or `count()` has seen all
            frames, if the frame rate varies; else None.
        choice: which of several video streams is decoded; None if the file has one.
        pixel_aspect: width of a stored pixel over its height; 1 if the file states nothing.
        turned: whether frames are turned or mirrored.
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
        name = "the video" if isinstance(source, bytes) else os.fspath(source)
        data = source if isinstance(source, bytes) else fetch(source, storage_options)
        super().__init__(
            name,
            data,
            max_pixels=max_pixels,
            max_held_bytes=max_held_bytes,
            max_cpu_seconds=max_cpu_seconds,
            threads=threads,
        )
        self._max_frames = max_frames
        self._index: PacketIndex | None = None
        self._begun: tuple[Any, Iterator[Any]] | None = None  # the first frame and those after it, until used
        self.num_frames = 0
        self._open()
        try:
            frames = self._decode()
            first = next(frames, None)
            if first is None:
                raise self._no_frame()
            self._begun = (first, frames)
            self.height, self.width = self._shown(first).shape[:2]
            self.turned = orientation_of(first) != UPRIGHT
            self.pixel_aspect = float(self._stream.sample_aspect_ratio or 1)
            rate = float(self._stream.average_rate or self._stream.guessed_rate or 0)
            self.stated_fps = self.fps = rate if 0 < rate < _MAX_FPS else FALLBACK_FPS
            self.seconds: np.ndarray | None = None
            self._size = (self.height, self.width)
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

    def frames(self, stride: int = 1) -> Iterator[tuple[int, np.ndarray]]:
        """Yield every `stride`-th frame from the start: (index, uint8 [H, W, 3] RGB). Holds one frame in memory."""
        self.num_frames = 0
        stamps: list[int | None] = []
        for frame in self._from_start():
            if self.num_frames >= self._max_frames:
                self._note_times(stamps)
                return
            stamps.append(frame.pts)
            if self.num_frames % stride == 0:
                yield self.num_frames, self._shown(frame)
            self.num_frames += 1
        self._note_times(stamps)
        self._note_end()

    def close(self) -> None:
        """Free the file, the decoder and the first frame."""
        self._begun = None
        super().close()

    def _from_start(self) -> Iterator[Any]:
        """Yield PyAV frames from the first one. A video that was just opened is not opened and decoded again."""
        if self._begun is None:
            self._reopen()
            yield from self._decode()
            return
        first, rest = self._begun
        self._begun = None
        yield first
        del first  # hold no frame longer than its user
        yield from rest

    def _note_times(self, stamps: Sequence[int | None]) -> None:
        """Set `fps` and `seconds` from the time stamps of all frames, in the stream's time base."""
        found = frame_times(stamps, float(self._stream.time_base or 0), self.stated_fps)
        self.fps, self.seconds = found.fps, found.seconds

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
        index = self._packet_index()
        if index is not None:
            used = index.stamps_T[: self._max_frames].tolist()
            self._note_times(used)
            return len(used)
        for _ in self.frames(stride=2**31):
            pass
        return self.num_frames

    def frame_seconds(self) -> np.ndarray:
        """Return the time of each frame since the first, in seconds, rising: float64 [num_frames].

        The times are read from the packets if each packet is surely one frame. Otherwise all frames are decoded.
        """
        index = self._packet_index()
        if index is not None:
            stamps: list[int | None] = index.stamps_T[: self._max_frames].tolist()
        else:
            stamps = [frame.pts for frame in itertools.islice(self._from_start(), self._max_frames)]
        self.num_frames = len(stamps)
        self._note_times(stamps)
        if index is None:
            self._note_end()
        return seconds_of_frames(stamps, float(self._stream.time_base or 0), self.fps)

    def _in_order(self, wanted: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the wanted frames by decoding from the start up to the last of them."""
        self.num_frames = 0
        want = set(wanted)
        for frame in self._from_start():
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
        packets = self._packet_index()
        if packets is None or wanted[-1] >= min(len(packets), self._max_frames):
            return
        jumps, at = {}, 0
        for index in wanted:
            key = packets.keyframe(index)
            if key >= at + _SEEK_GAIN:
                jumps[index] = key
            at = index + 1
        if not jumps:
            return
        self._reopen()
        frames = self._decode()
        for index in wanted:
            if index in jumps:
                stamp = int(packets.stamps_T[jumps[index]])
                self._container.seek(stamp, stream=self._stream, backward=True)
                frames = self._decode()
            for frame in frames:
                place = packets.rank(frame.pts)
                if place is None or place > index or self.truncated:
                    return  # the seek landed too late, or the stream does not match its packets
                if place == index:
                    yield index, self._shown(frame)
                    break
            else:
                return
        self.num_frames = len(packets)

    def _packet_index(self) -> PacketIndex | None:
        """Return the index of all frames, read once from the packets; None if ranks can't be trusted."""
        if self._index is not None:
            return self._index
        self._reopen()
        if self._stream.codec_context.name not in SEEKABLE:
            return None
        self._fresh = False
        packets = self._container.demux(self._stream)
        watched = iter(lambda: self._watched(next, packets, None), None)
        try:
            self._index = read_index(watched, self._max_frames + _REORDERED + 1, self._promised)
        except av.error.FFmpegError as error:
            raise_unless_bad_video(self._data, error)
        return self._index


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
