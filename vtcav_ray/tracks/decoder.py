"""Decode one video in a thread: frames for the detector and the tracker, a bounded number of them ahead."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from vtcav_ray.config import TracksConfig
from vtcav_ray.tracks import camera
from vtcav_ray.tracks.copies import Pictures
from vtcav_ray.video.decode import Source, Video
from vtcav_ray.video.gpu_decode import TorchcodecVideo
from vtcav_ray.video.listed import check_still_unchanged

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
        step: the change since the previous frame; None for the first frame.
    """

    index: int
    size: tuple[int, int]
    letterboxed: np.ndarray
    grey: np.ndarray
    bgr: np.ndarray | None
    step: camera.Step | None

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
            for index, rgb in video.frames(config.frame_stride):
                now = camera.glance(rgb)
                self.pictures.add(now.grey)
                yield Frame(
                    index,
                    self.size,
                    self._detector.letterbox(rgb),
                    cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY),
                    cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR) if config.tracker == "botsort" else None,
                    None if before is None else camera.step(before, now, follow=config.camera_motion),
                )
                before = now
            check_still_unchanged(self.source, self._storage_options)
            self.num_frames, self.truncated = video.num_frames, video.truncated
            self.fps, self.times = video.fps, video.seconds
            self.choice, self.pixel_aspect = video.choice, video.pixel_aspect
            self.handed_over = isinstance(video, TorchcodecVideo) and video.handed_over is not None

    def _open(self) -> Video:
        limits: dict[str, Any] = {
            "max_frames": self._config.max_frames,
            "max_pixels": self._config.max_pixels,
            "max_cpu_seconds": self._max_cpu_seconds,
            "max_held_bytes": self._max_held_bytes,
            "storage_options": self._storage_options,
        }
        if self._config.decoder == "torchcodec":
            return TorchcodecVideo(self.source, device=str(self._detector.device), **limits)
        return Video(self.source, **limits)
