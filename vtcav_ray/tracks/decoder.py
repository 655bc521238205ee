"""Decode one video in a thread: frames for the detector and the tracker, a bounded number of them ahead."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from vtcav_ray.config import TracksConfig
from vtcav_ray.errors import InputError
from vtcav_ray.rows import Failure
from vtcav_ray.tracks import camera
from vtcav_ray.tracks.copies import Pictures
from vtcav_ray.video.decode import Source, Video
from vtcav_ray.video.gpu_decode import TorchcodecVideo
from vtcav_ray.video.limits import MAX_POSITION
from vtcav_ray.video.listed import check_still_unchanged, segments_of
from vtcav_ray.video.segments import Range, Segment, frame_ranges, outside, stretches

if TYPE_CHECKING:
    from vtcav_ray.tracks.detect import Detector

_AHEAD_BYTES = 48 * 2**20  # of decoded frames that wait, per video
_AHEAD_FRAMES = 16


@dataclass
class Frame:
    """A decoded frame, and what the detector, the tracker and the camera shift need of it.

    Attributes:
        index: of the frame in its video, from 0.
        size: (height, width) of the source frame, pixels.
        letterboxed: uint8 [h, w, 3] RGB, the detector's input.
        grey: uint8 [H, W].
        bgr: uint8 [H, W, 3]; None unless the tracker reads the picture.
        step: the change since the previous frame; None for the first frame of the video or of a stretch of segments.
        small: uint8 [h, w], the small grey picture; None unless `frame_stride` is `auto`.
    """

    index: int
    size: tuple[int, int]
    letterboxed: np.ndarray
    grey: np.ndarray
    bgr: np.ndarray | None
    step: camera.Step | None
    small: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        """Memory that the frame holds, in bytes."""
        return self.letterboxed.nbytes + self.grey.nbytes + (0 if self.bgr is None else self.bgr.nbytes)


class Decoder:
    """A decoder of one video in its own thread, a bounded number of frames ahead."""

    def __init__(
        self,
        video_id: str,
        source: Source,
        detector: Detector,
        config: TracksConfig,
        max_cpu_seconds: float,
        max_held_bytes: int,
        storage_options: Mapping[str, Any] | None,
    ) -> None:
        self.video_id, self.source = video_id, source
        self._detector, self._config, self._storage_options = detector, config, storage_options
        self._max_cpu_seconds, self._max_held_bytes = max_cpu_seconds, max_held_bytes
        self._frames: queue.Queue[Frame | BaseException | None] = queue.Queue()
        self._room = threading.Semaphore(_AHEAD_FRAMES)
        self._stopped = threading.Event()
        self.fps = 0.0  # final at the end of the video
        self.times: np.ndarray | None = None  # seconds of each frame, if the frame rate varies
        self.choice: str | None = None
        self.pixel_aspect = 1.0
        self.size = (0, 0)
        self.num_frames = 0
        self.truncated = False
        self.handed_over = False
        self.pictures = Pictures()
        self._last_second = 0.0
        self.segments: list[tuple[Segment, Range | None]] = []  # with their frames, if only these are decoded
        self.seconds = 0.0  # CPU time of this thread
        self._thread = threading.Thread(target=self._run, name=f"decode {video_id}", daemon=True)
        self._thread.start()

    def next(self) -> Frame | None:
        """Return the next frame, or None at the end. Raises what decoding raised."""
        item = self._frames.get()
        self._room.release()
        if isinstance(item, BaseException):
            raise item
        return item

    def missing_segments(self) -> list[Failure]:
        """Return a failure for each segment in which the video has no frame. Its other segments are used."""
        row = {"video_id": self.video_id, "uri": None if isinstance(self.source, bytes) else str(self.source)}
        missing = (segment for segment, frames in self.segments if frames is None)
        return [
            Failure.of_video(row, InputError("segment", f"{row['uri']} {outside(one, self._last_second)}"))
            for one in missing
        ]

    def stop(self) -> None:
        """Stop the thread after its current frame."""
        self._stopped.set()
        self._room.release()
        self._thread.join()

    def _run(self) -> None:
        try:
            for frame in self._decode():
                self._room.acquire()
                if self._stopped.is_set():
                    return
                self._frames.put(frame)
            self._frames.put(None)
        except BaseException as error:  # noqa: BLE001 - passed to the waiting thread, which raises it
            self._frames.put(error)
        finally:
            self.seconds = time.thread_time()

    def _decode(self) -> Iterator[Frame]:
        config = self._config
        with self._open() as video:
            self.fps, self.size = video.fps, (video.height, video.width)
            frame_bytes = video.height * video.width * 3
            for _ in range(_AHEAD_FRAMES - max(2, min(_AHEAD_FRAMES, _AHEAD_BYTES // frame_bytes))):
                self._room.acquire()  # decode fewer large frames ahead
            before: camera.Glance | None = None
            begins, frames = self._frames_of(video)
            for index, rgb in frames:
                if index in begins:
                    before = None
                now = camera.glance(rgb)
                self.pictures.add(now.grey)
                yield Frame(
                    index,
                    self.size,
                    self._detector.letterbox(rgb),
                    cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY),
                    cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR) if config.tracker == "botsort" else None,
                    None if before is None else camera.step(before, now, follow=config.camera_motion),
                    now.grey if config.frame_stride == "auto" else None,
                )
                before = now
            check_still_unchanged(self.source, self._storage_options)
            self.truncated = video.truncated
            if not self.segments:
                self.num_frames, self.fps, self.times = video.num_frames, video.fps, video.seconds
            self.choice, self.pixel_aspect = video.choice, video.pixel_aspect
            self.handed_over = isinstance(video, TorchcodecVideo) and video.handed_over is not None

    def _frames_of(self, video: Video) -> tuple[Collection[int], Iterator[tuple[int, np.ndarray]]]:
        """Return the first frame of each stretch of segments, and the frames to look at: (index, RGB).

        Raises:
            InputError: `no_segment`: the video has no frame in any of its segments.
        """
        wanted = segments_of(self.source)
        if not wanted:
            return (), video.frames(self._config.decode_stride)
        seconds = video.frame_seconds()
        self.num_frames, self.fps, self.times = len(seconds), video.fps, video.seconds
        self._last_second = float(seconds[-1]) if len(seconds) else 0.0
        self.segments = list(zip(wanted, frame_ranges(wanted, seconds, self._config.max_frames), strict=True))
        parts = stretches([frames for _, frames in self.segments])
        if not parts:
            raise InputError("no_segment", f"{video.name} {outside(wanted[0], self._last_second)}")
        indices = [i for first, last in parts for i in range(first, last + 1, self._config.decode_stride)]
        return {first for first, _ in parts}, video.frames_at(indices)

    def _open(self) -> Video:
        limits: dict[str, Any] = {
            "max_frames": MAX_POSITION if segments_of(self.source) else self._config.max_frames,
            "max_pixels": self._config.max_pixels,
            "max_cpu_seconds": self._max_cpu_seconds,
            "max_held_bytes": self._max_held_bytes,
            "storage_options": self._storage_options,
        }
        if self._config.decoder == "torchcodec":
            return TorchcodecVideo(self.source, device=str(self._detector.device), **limits)
        return Video(self.source, **limits)
