"""Track objects in many videos at once: one detector, a tracker per video, frames of many videos in one batch.

A small pool of threads decodes a few frames ahead of the detector, and no further, so memory holds a window of frames,
however many and however long the videos are. The list of videos alone determines which frames share a batch, never
timing. The tracks of a video do not depend on it (see `vtcav_ray.tracks.detect`).
"""

from __future__ import annotations

import difflib
import functools
import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from vtcav_ray.config import TracksConfig
from vtcav_ray.errors import ConfigError, InputError
from vtcav_ray.rows import Failure
from vtcav_ray.tables import TRACKS
from vtcav_ray.tracks import camera
from vtcav_ray.tracks.decoder import Decoder, Frame
from vtcav_ray.tracks.keyframes import EveryFrame, FramePlan, Keyframes
from vtcav_ray.tracks.masks import Mask, masks_row
from vtcav_ray.tracks.media import Media
from vtcav_ray.tracks.ultralytics_import import import_ultralytics
from vtcav_ray.video.decode import MAX_CPU_SECONDS, MAX_HELD_BYTES, Source

if TYPE_CHECKING:
    from vtcav_ray.tracks.detect import Detections, Detector

_WAITING_BYTES = 512 * 2**20  # of frames that wait for a full batch, over all videos


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
    masks: list[tuple[int, Mask]] = field(default_factory=list)


def make_tracker(config: TracksConfig) -> Any:
    """Create an Ultralytics tracker with its default settings, overridden by `config.tracker_options`.

    Raises:
        ConfigError: the tracker has no such option, or the options ask for re-identification, which needs a second
            network.
    """
    import_ultralytics()
    from ultralytics.trackers.track import TRACKER_MAP
    from ultralytics.utils import IterableSimpleNamespace

    options = dict(_default_options(config.tracker))
    for name, value in config.tracker_options.items():
        if name not in options:
            near = difflib.get_close_matches(name, list(options), n=1)
            hint = f"Did you mean `{near[0]}`?" if near else f"It has: {', '.join(sorted(options))}."
            raise ConfigError(f"`tracks.tracker_options`: {config.tracker} has no option `{name}`. {hint}")
        options[name] = value
    if options.get("with_reid"):
        raise ConfigError("`tracks.tracker_options.with_reid`: re-identification is not supported. Leave it out.")
    return TRACKER_MAP[config.tracker](IterableSimpleNamespace(**options))


@functools.cache
def _default_options(tracker: str) -> Mapping[str, Any]:
    """Read a tracker's settings. Ultralytics searches its whole folder for the file, which takes 5 ms."""
    from ultralytics.utils import YAML
    from ultralytics.utils.checks import check_yaml

    options: dict[str, Any] = YAML.load(check_yaml(f"{tracker}.yaml"))
    return options


class VideoTracks:
    """The tracker of one video and its tracks so far."""

    def __init__(
        self,
        decoder: Decoder,
        names: Mapping[int, str],
        tracker: Any,
        new_tracker: Callable[[], Any] | None = None,
        plan: FramePlan | None = None,
    ) -> None:
        self.decoder, self._names = decoder, names
        self._tracker, self._new_tracker = tracker, new_tracker
        self._stretch = 0  # of segments that follow each other; its tracks are separate
        self._found: dict[tuple[int, int], _Followed] = defaultdict(_Followed)  # by stretch and the tracker's id
        self._camera = np.zeros(2, np.float32)
        self._shot = 0
        self._started = False
        self._boxes_before = np.empty((0, 4), np.float32)
        self.plan: FramePlan = plan or EveryFrame()
        self.waiting = 0
        self.ended = False

    def update(self, frame: Frame, found: Detections) -> None:
        """Add the next frame, in order, with its detections."""
        if frame.step is None and self._started:
            self._begin_stretch()
        self._started = True
        if frame.step is not None:
            self._camera = self._camera + camera.camera_shift(frame.step, self._boxes_before, frame.size)
            self._shot += int(frame.step.cut)
        self._boxes_before = found.boxes
        height, width = frame.size
        for *box, track_id, score, label, place in self._followed(frame, found):
            # The filter's estimate may extend beyond the frame; `track()` clips it, too.
            box = np.clip(np.array(box, np.float32), 0, (width, height, width, height))
            track = self._found[self._stretch, int(track_id)]
            track.frames.append(frame.index)
            track.boxes.append(box)
            track.confidence.append(float(score))
            track.camera.append(self._camera)
            track.shot.append(self._shot)
            track.votes[int(label)] += float(score)
            if found.masks is not None and (mask := found.masks[int(place)]) is not None:
                track.masks.append((frame.index, mask))
            (x1, y1), (x2, y2) = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
            crop = frame.grey[y1:y2, x1:x2]
            track.sharpness.append(camera.sharpness(crop) if crop.size else 0.0)

    def _begin_stretch(self) -> None:
        """Forget what precedes the next frame: it does not follow the previous one."""
        if self._new_tracker is not None:
            self._tracker = self._new_tracker()
        self._stretch += 1
        self._shot += 1
        self._camera = np.zeros(2, np.float32)
        self._boxes_before = np.empty((0, 4), np.float32)

    def _followed(self, frame: Frame, found: Detections) -> np.ndarray:
        """Ask the tracker: float [n, 8], with a row x1, y1, x2, y2, track id, confidence, class, place in `found`."""
        from ultralytics.engine.results import Boxes

        rows = np.column_stack((found.boxes, found.confidence, found.classes)).astype(np.float32)
        return np.asarray(self._tracker.update(Boxes(rows, frame.size), frame.bgr))

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

    def mask_rows(self) -> list[dict[str, Any]]:
        """Return rows of the MASKS table: one per track that has a mask, numbered as by `rows`."""
        tracks = enumerate((track for _, track in sorted(self._found.items())), start=1)
        rows = (masks_row(self.decoder.video_id, number, track.masks) for number, track in tracks)
        return [row for row in rows if row is not None]


class _Tracking:
    """The open videos, the frames that wait for a full batch, and the results so far."""

    def __init__(
        self,
        videos: Sequence[tuple[str, Source]],
        detector: Detector,
        config: TracksConfig,
        signatures: dict[str, np.ndarray] | None,
        media: Media | None,
        masks: dict[str, list[dict[str, Any]]] | None,
    ) -> None:
        self._videos, self._detector, self._config = videos, detector, config
        self._signatures, self._media, self._masks = signatures, media, masks
        self._open: dict[int, VideoTracks] = {}  # by the video's place in the list
        self._waiting: dict[tuple[int, ...], list[tuple[int, Frame]]] = defaultdict(list)  # by letterboxed shape
        self._rows: dict[int, list[dict[str, Any]]] = {}
        self._failures: list[Failure] = []
        self._begun, self._detect_seconds = time.perf_counter(), 0.0
        self._figures = {"videos": float(len(videos)), "frames": 0.0, "detections": 0.0, "decode_cpu_seconds": 0.0}
        self._figures |= {"batch_items": 0.0, "batch_slots": 0.0, "truncated": 0.0}
        if config.decoder == "torchcodec":
            self._figures["handed_over"] = 0.0
        if config.frame_stride == "auto":
            self._figures["detected_frames"] = 0.0

    def running(self) -> list[int]:
        """Return the places of the videos that still give frames."""
        return [place for place, video in self._open.items() if not video.ended]

    def add(self, place: int, decoder: Decoder, tracker: Any) -> None:
        new_tracker = functools.partial(make_tracker, self._config)
        plan = Keyframes(tracker.args.new_track_thresh) if self._config.frame_stride == "auto" else EveryFrame()
        self._open[place] = VideoTracks(decoder, self._detector.names, tracker, new_tracker, plan)

    def advance(self, place: int) -> None:
        """Queue one more frame of a video, or mark the video as ended."""
        video = self._open[place]
        try:
            frame = video.decoder.next()
        except InputError as error:
            self._close(place)
            video_id, source = self._videos[place]
            uri = None if isinstance(source, bytes) else str(source)
            self._failures.append(Failure.of_video({"uri": uri, "video_id": video_id}, error))
            return
        if frame is None:
            video.ended = True
            self._queue([(place, frame) for frame in video.plan.end()])
            self._finish_if_done(place)
            return
        self._figures["frames"] += 1
        video.waiting += 1
        self._queue([(place, wanted) for wanted in video.plan.add(frame)])

    def limit_memory(self) -> None:
        """Detect in the fullest batches until the waiting frames fit in `_WAITING_BYTES`."""
        while any(self._waiting.values()) and self._waiting_bytes() > _WAITING_BYTES:
            self._detect(max(self._waiting, key=lambda shape: len(self._waiting[shape])))

    def detect_rest(self) -> None:
        """Detect in all frames that still wait."""
        while any(self._waiting.values()):
            for shape in list(self._waiting):
                while self._waiting[shape]:
                    self._detect(shape)

    def stop(self) -> None:
        """Stop the decoders of all open videos."""
        for video in self._open.values():
            video.decoder.stop()

    def result(self) -> tuple[pa.Table, list[Failure], dict[str, float]]:
        """Return what `track_videos` returns."""
        rows = [row for place in sorted(self._rows) for row in self._rows[place]]
        figures = self._figures | {
            "tracks": float(len(rows)),
            "detect_seconds": self._detect_seconds,
            "seconds": time.perf_counter() - self._begun,
        }
        return pa.Table.from_pylist(rows, schema=TRACKS), self._failures, figures

    def _waiting_bytes(self) -> int:
        queued = sum(frame.nbytes for batch in self._waiting.values() for _, frame in batch)
        return queued + sum(video.plan.nbytes for video in self._open.values())

    def _queue(self, frames: Sequence[tuple[int, Frame]]) -> None:
        """Add frames, each with the place of its video, to the batches. Detect in those that are full."""
        for place, frame in frames:
            shape = frame.letterboxed.shape
            self._waiting[shape].append((place, frame))
            if len(self._waiting[shape]) >= self._config.batch_size:
                self._detect(shape)

    def _detect(self, shape: tuple[int, ...]) -> None:
        """Run the detector on one batch of frames of one shape, and pass the detections to the trackers."""
        size = self._config.batch_size
        batch, self._waiting[shape] = self._waiting[shape][:size], self._waiting[shape][size:]
        begun = time.perf_counter()
        results = self._detector.detect([f.letterboxed for _, f in batch], [f.size for _, f in batch])
        self._detect_seconds += time.perf_counter() - begun
        self._figures["batch_items"] += len(batch)
        self._figures["batch_slots"] += size
        if "detected_frames" in self._figures:
            self._figures["detected_frames"] += len(batch)
        wanted: list[tuple[int, Frame]] = []
        for (place, frame), found in zip(batch, results, strict=True):
            self._figures["detections"] += len(found.boxes)
            if place in self._open:  # else it failed after this frame was queued
                video = self._open[place]
                ready, more = video.plan.take(frame, found)
                for next_frame, its_boxes in ready:
                    video.update(next_frame, its_boxes)
                    video.waiting -= 1
                wanted += [(place, one) for one in more]
                self._finish_if_done(place)
        self._queue(wanted)

    def _finish_if_done(self, place: int) -> None:
        """Close a video that has ended and has no frame waiting, and keep its tracks."""
        video = self._open.get(place)
        if video is None or not video.ended or video.waiting:
            return
        decoder = self._close(place)
        self._rows[place] = video.rows()
        if self._signatures is not None:
            self._signatures[decoder.video_id] = decoder.pictures.signature()
        if self._masks is not None:
            self._masks[decoder.video_id] = video.mask_rows()
        if self._media is not None:
            self._media.add(decoder.video_id, decoder.times, decoder.choice, decoder.pixel_aspect)
            if decoder.segments:
                self._media.segments[decoder.video_id] = decoder.segments
        self._failures += decoder.missing_segments()
        self._figures["truncated"] += decoder.truncated
        if decoder.handed_over:
            self._figures["handed_over"] += 1

    def _close(self, place: int) -> Decoder:
        decoder = self._open.pop(place).decoder
        decoder.stop()
        self._figures["decode_cpu_seconds"] += decoder.seconds
        return decoder


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
    media: Media | None = None,
    masks: dict[str, list[dict[str, Any]]] | None = None,
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
        media: filled with the facts about the files of these videos.
        masks: filled with the rows of the MASKS table of every video that did not fail, if the detector draws masks.

    Returns:
        (TRACKS table in the order of `videos`, failure rows, metrics: `videos`, number of them `truncated`, `frames`,
        `detections`, `tracks`, `seconds`, `decode_cpu_seconds`, `detect_seconds`, `batch_items` of `batch_slots` (how
        full batches were), with `decoder: torchcodec`, `handed_over`: videos that PyAV decoded completely or from some
        frame on, and with `frame_stride: auto`, `detected_frames`).

    Raises:
        OSError, EnvironmentFault: the storage is to blame, not a single video (`vtcav_ray.video.neighbours`).
        ConfigError: see `make_tracker`.
    """
    # Before the first decoder: the import sets OpenCV's number of threads, and OpenCV divides by zero (SIGFPE) if
    # another thread is inside a call.
    import_ultralytics()
    tracking = _Tracking(videos, detector, config, signatures, media, masks)
    todo = iter(enumerate(videos))
    try:
        while True:
            free = max(0, open_videos - len(tracking.running()))
            for place, (video_id, source) in itertools.islice(todo, free):
                tracker = make_tracker(config)
                decoder = Decoder(video_id, source, detector, config, max_cpu_seconds, max_held_bytes, storage_options)
                tracking.add(place, decoder, tracker)
            if not (running := tracking.running()):
                break
            for place in running:
                tracking.advance(place)
            tracking.limit_memory()
        tracking.detect_rest()
    finally:
        tracking.stop()
    return tracking.result()
