"""Track objects in many videos at once: one detector, a tracker per video, frames of many videos in one batch.

A small pool of threads decodes a few frames ahead of the detector, and no further, so memory holds a window of frames,
however many and however long the videos are. The list of videos alone determines which frames share a batch, never
timing. The tracks of a video do not depend on it (see `vtcav_ray.tracks.detect`).
"""

from __future__ import annotations

import difflib
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pyarrow as pa

from vtcav_ray.config import TracksConfig
from vtcav_ray.errors import ConfigError, InputError
from vtcav_ray.tables import TRACKS
from vtcav_ray.tracks import camera
from vtcav_ray.tracks.copies import Pictures
from vtcav_ray.tracks.ultralytics_import import import_ultralytics
from vtcav_ray.video.decode import MAX_CPU_SECONDS, MAX_HELD_BYTES, Source, Video
from vtcav_ray.video.gpu_decode import TorchcodecVideo
from vtcav_ray.video.listed import check_still_unchanged

if TYPE_CHECKING:
    from vtcav_ray.tracks.detect import Detections, Detector

_AHEAD_BYTES = 48 * 2**20  # of decoded frames that wait, per video
_AHEAD_FRAMES = 16
_WAITING_BYTES = 512 * 2**20  # of frames that wait for a full batch, over all videos

Failure = dict[str, Any]


@dataclass
class _Frame:
    index: int
    size: tuple[int, int]
    letterboxed: np.ndarray
    grey: np.ndarray
    bgr: np.ndarray | None  # only for a tracker that reads the picture
    step: camera.Step | None

    @property
    def nbytes(self) -> int:
        return self.letterboxed.nbytes + self.grey.nbytes + (0 if self.bgr is None else self.bgr.nbytes)


@dataclass
class _Followed:
    """A track under construction."""

    frames: list[int] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)
    sharpness: list[float] = field(default_factory=list)
    camera: list[np.ndarray] = field(default_factory=list)
    shot: list[int] = field(default_factory=list)
    votes: dict[int, float] = field(default_factory=lambda: defaultdict(float))


def make_tracker(config: TracksConfig) -> Any:
    """Create an Ultralytics tracker with its default settings, overridden by `config.tracker_options`.

    Raises:
        ConfigError: the tracker has no such option, or the options ask for re-identification, which needs a second
            network.
    """
    import_ultralytics()
    from ultralytics.trackers.track import TRACKER_MAP
    from ultralytics.utils import YAML, IterableSimpleNamespace
    from ultralytics.utils.checks import check_yaml

    options = YAML.load(check_yaml(f"{config.tracker}.yaml"))
    for name, value in config.tracker_options.items():
        if name not in options:
            near = difflib.get_close_matches(name, list(options), n=1)
            hint = f"Did you mean `{near[0]}`?" if near else f"It has: {', '.join(sorted(options))}."
            raise ConfigError(f"`tracks.tracker_options`: {config.tracker} has no option `{name}`. {hint}")
        options[name] = value
    if options.get("with_reid"):
        raise ConfigError("`tracks.tracker_options.with_reid`: re-identification is not supported. Leave it out.")
    return TRACKER_MAP[config.tracker](IterableSimpleNamespace(**options))


class _Decoder:
    """Decodes one video in its own thread, a bounded number of frames ahead."""

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
        self._frames: queue.Queue[_Frame | BaseException | None] = queue.Queue()
        self._room = threading.Semaphore(_AHEAD_FRAMES)
        self._stopped = threading.Event()
        self.fps = 0.0
        self.size = (0, 0)
        self.num_frames = 0
        self.truncated = False
        self.handed_over = False
        self.pictures = Pictures()
        self.seconds = 0.0  # CPU time of this thread
        self._thread = threading.Thread(target=self._run, name=f"decode {video_id}", daemon=True)
        self._thread.start()

    def next(self) -> _Frame | None:
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

    def _decode(self) -> Iterator[_Frame]:
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
                yield _Frame(
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


class _VideoTracks:
    """The tracker of one video and its tracks so far."""

    def __init__(self, decoder: _Decoder, names: Mapping[int, str], tracker: Any) -> None:
        self.decoder, self._names, self._tracker = decoder, names, tracker
        self._found: dict[int, _Followed] = defaultdict(_Followed)
        self._camera = np.zeros(2, np.float32)
        self._shot = 0
        self._boxes_before = np.empty((0, 4), np.float32)
        self.waiting = 0
        self.ended = False

    def update(self, frame: _Frame, found: Detections) -> None:
        """Add the next frame, in order, with its detections."""
        from ultralytics.engine.results import Boxes

        if frame.step is not None:
            self._camera = self._camera + camera.camera_shift(frame.step, self._boxes_before, frame.size)
            self._shot += int(frame.step.cut)
        self._boxes_before = found.boxes
        rows = np.column_stack((found.boxes, found.confidence, found.classes)).astype(np.float32)
        height, width = frame.size
        for *box, track_id, score, label, _ in self._tracker.update(Boxes(rows, frame.size), frame.bgr):
            # The filter's estimate may extend beyond the frame; `track()` clips it, too.
            box = np.clip(np.array(box, np.float32), 0, (width, height, width, height))
            track = self._found[int(track_id)]
            track.frames.append(frame.index)
            track.boxes.append(box)
            track.confidence.append(float(score))
            track.camera.append(self._camera)
            track.shot.append(self._shot)
            track.votes[int(label)] += float(score)
            (x1, y1), (x2, y2) = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
            crop = frame.grey[y1:y2, x1:x2]
            track.sharpness.append(camera.sharpness(crop) if crop.size else 0.0)

    def rows(self) -> list[dict[str, Any]]:
        """Return rows of the TRACKS table, numbered from 1 in the order in which the tracks began."""
        height, width = self.decoder.size
        rows = []
        for number, (_, track) in enumerate(sorted(self._found.items()), start=1):
            rows.append(
                {
                    "video_id": self.decoder.video_id,
                    "track_id": number,
                    "label": self._names[max(track.votes, key=lambda c: (track.votes[c], -c))],
                    "frames": track.frames,
                    "boxes": track.boxes,
                    "confidence": track.confidence,
                    "fps": self.decoder.fps,
                    "height": height,
                    "width": width,
                    "num_frames": self.decoder.num_frames,
                    "camera": track.camera,
                    "sharpness": track.sharpness,
                    "shot": track.shot,
                }
            )
        return rows


def track_videos(
    videos: Sequence[tuple[str, Source]],
    detector: Detector,
    config: TracksConfig,
    *,
    open_videos: int = 4,
    max_cpu_seconds: float = MAX_CPU_SECONDS,
    max_held_bytes: int = MAX_HELD_BYTES,
    storage_options: Mapping[str, Any] | None = None,
    signatures: dict[str, np.ndarray] | None = None,
) -> tuple[pa.Table, list[Failure], dict[str, float]]:
    """Detect and track all objects in the videos.

    Every video is opened once. A video that fails to decode gives a failure row and no tracks. A truncated video gives
    the tracks before the break.

    Args:
        videos: (video_id, URI or bytes). A `vtcav_ray.video.listed.Listed` that was replaced fails as `changed`.
        detector: shared by all videos; its own config should be `config`.
        open_videos: number of videos to decode in parallel. Batches take frames from them in turn.
        max_cpu_seconds: processor time for decoding one video.
        max_held_bytes: for whole frames of one video at a time; see `vtcav_ray.video.decode.Video`.
        storage_options: for fsspec, if a source is a URL.
        signatures: filled with the signature (see `vtcav_ray.tracks.copies`) of every video that did not fail, in the
            order in which they finish.

    Returns:
        (TRACKS table in the order of `videos`, failure rows, metrics: `videos`, number of them `truncated`, `frames`,
        `detections`, `tracks`, `seconds`, `decode_cpu_seconds`, `detect_seconds`, `batch_items` of `batch_slots` (how
        full batches were) and, with `decoder: torchcodec`, `handed_over`: videos that PyAV decoded completely or from
        some frame on).

    Raises:
        OSError, EnvironmentFault: the storage is to blame, not a single video (`vtcav_ray.video.neighbours`).
        ConfigError: see `make_tracker`.
    """
    # Before the first decoder: the import sets OpenCV's number of threads, and OpenCV divides by zero (SIGFPE) if
    # another thread is inside a call.
    import_ultralytics()
    started = time.perf_counter()
    figures = {"videos": float(len(videos)), "frames": 0.0, "detections": 0.0, "decode_cpu_seconds": 0.0}
    figures |= {"batch_items": 0.0, "batch_slots": 0.0, "truncated": 0.0}
    if config.decoder == "torchcodec":
        figures["handed_over"] = 0.0
    rows: dict[int, list[dict[str, Any]]] = {}
    failures: list[Failure] = []
    open_now: dict[int, _VideoTracks] = {}
    waiting: dict[tuple[int, ...], list[tuple[int, _Frame]]] = defaultdict(list)
    todo = iter(enumerate(videos))
    detect_seconds = 0.0

    def close(place: int, error: InputError | None = None) -> None:
        state = open_now.pop(place)
        state.decoder.stop()
        figures["decode_cpu_seconds"] += state.decoder.seconds
        if error is None:
            rows[place] = state.rows()
            if signatures is not None:
                signatures[videos[place][0]] = state.decoder.pictures.signature()
            if state.decoder.truncated:
                figures["truncated"] += 1
            if state.decoder.handed_over:
                figures["handed_over"] += 1
        else:
            failures.append(_failure(videos[place], error))

    def flush(shape: tuple[int, ...]) -> None:
        nonlocal detect_seconds
        batch, waiting[shape] = waiting[shape][: config.batch_size], waiting[shape][config.batch_size :]
        begun = time.perf_counter()
        results = detector.detect([f.letterboxed for _, f in batch], [f.size for _, f in batch])
        detect_seconds += time.perf_counter() - begun
        figures["batch_items"] += len(batch)
        figures["batch_slots"] += config.batch_size
        for (place, frame), found in zip(batch, results, strict=True):
            figures["detections"] += len(found.boxes)
            state = open_now.get(place)
            if state is None:
                continue  # failed after this frame was queued
            state.update(frame, found)
            state.waiting -= 1
            if state.ended and not state.waiting:
                close(place)

    def advance(place: int) -> None:
        """Queue one more frame of a video, or mark the video as ended."""
        state = open_now[place]
        try:
            frame = state.decoder.next()
        except InputError as error:
            close(place, error)
            return
        if frame is None:
            state.ended = True
            if not state.waiting:
                close(place)
            return
        figures["frames"] += 1
        state.waiting += 1
        shape = frame.letterboxed.shape
        waiting[shape].append((place, frame))
        if len(waiting[shape]) >= config.batch_size:
            flush(shape)

    try:
        while True:
            running = [place for place, state in open_now.items() if not state.ended]
            while len(running) < open_videos and (item := next(todo, None)) is not None:
                place, (video_id, source) = item
                decoder = _Decoder(video_id, source, detector, config, max_cpu_seconds, max_held_bytes, storage_options)
                open_now[place] = _VideoTracks(decoder, detector.names, make_tracker(config))
                running.append(place)
            if not running:
                break
            for place in running:
                advance(place)
            while sum(f.nbytes for batch in waiting.values() for _, f in batch) > _WAITING_BYTES:
                flush(max(waiting, key=lambda s: len(waiting[s])))
        for shape in list(waiting):
            while waiting[shape]:
                flush(shape)
    finally:
        for state in open_now.values():
            state.decoder.stop()
    found = [row for place in sorted(rows) for row in rows[place]]
    figures |= {
        "tracks": float(len(found)),
        "detect_seconds": detect_seconds,
        "seconds": time.perf_counter() - started,
    }
    return pa.Table.from_pylist(found, schema=TRACKS), failures, figures


def _failure(video: tuple[str, Source], error: InputError) -> Failure:
    video_id, source = video
    uri = None if isinstance(source, bytes) else str(source)
    return {
        "uri": uri,
        "video_id": video_id,
        "clip_id": None,
        "error_kind": error.kind,
        "message": error.message,
    }
