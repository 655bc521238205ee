"""Tracks that exist already: read a video's lines, and pass over its frames for what lines can't say.

The pass gives camera motion, sharpness, shots, frame times and the signature. It uses the decoder and the code that
tracking uses, so a track has the same side values wherever its boxes come from. One difference remains: the background
that shows the camera's motion lies outside of the given boxes, and a detector also sees objects that are not tracked.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vtcav_ray.config import Config
from vtcav_ray.errors import InputError
from vtcav_ray.rows import Failure
from vtcav_ray.store.access import patiently
from vtcav_ray.store.folder import Folder
from vtcav_ray.tables import TRACKS
from vtcav_ray.tracks.decoder import Decoder, Frame
from vtcav_ray.tracks.formats.base import LINES, MOST_LINES_OF_A_VIDEO, BadFile, Declared, TrackFormat
from vtcav_ray.tracks.given_boxes import KIND, Boxes, GivenLines, Size, boxes_of, check_length
from vtcav_ray.tracks.given_files import SourceFile, path_of_file, reader_of
from vtcav_ray.tracks.given_index import FILE, PROBLEM, WHERE, declared_of
from vtcav_ray.tracks.media import Media
from vtcav_ray.tracks.sources import OPEN_VIDEOS, Tracked
from vtcav_ray.tracks.track import VideoTracks
from vtcav_ray.video.decode import Source
from vtcav_ray.video.listed import segments_of

Lines = GivenLines | InputError | None  # None: the video has no lines


@dataclass
class _Result:
    """What a video gave."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    decoder: Decoder | None = None
    frames: int = 0  # that were looked at
    outside: tuple[str, int] | None = None  # the first box outside the frame, and their number


class GivenSource:
    """Reads the tracks of videos from the files that `tracks.source` names. One instance per actor.

    Args:
        lines: the folder of the sorted lines; None: each video has its own file.
    """

    def __init__(self, config: Config, lines: Folder | None) -> None:
        self._config, self._folder = config, lines
        self._format = reader_of(config.tracks)
        cv2.setNumThreads(0)  # as Ultralytics does: the decoders' threads share the cores

    def tracks_of(self, rows: pa.Table, videos: Sequence[tuple[str, Source]]) -> Tracked:
        """Read the tracks of the videos of one shard, and pass over their frames.

        Args:
            rows: of the shard, with the columns that `vtcav_ray.tracks.given_index` adds.
            videos: (video_id, URI), in the order of the rows.
        """
        begun = time.perf_counter()
        lines = self._lines(rows)
        with ThreadPoolExecutor(self._config.resources.detect.decode_threads or OPEN_VIDEOS) as pool:
            results = list(pool.map(lambda video: self._follow(video[0], video[1], lines[video[0]]), videos))
        signatures, media = {}, Media()
        figures = {"videos": float(len(videos)), "frames": 0.0, "decode_cpu_seconds": 0.0, "truncated": 0.0}
        for (video_id, _), result in zip(videos, results, strict=True):
            if (decoder := result.decoder) is not None:
                signatures[video_id] = decoder.pictures.signature()
                media.add(video_id, decoder.times, decoder.choice, decoder.pixel_aspect)
                if decoder.segments:
                    media.segments[video_id] = decoder.segments
                figures["frames"] += result.frames
                figures["decode_cpu_seconds"] += decoder.seconds
                figures["truncated"] += decoder.truncated
        found = pa.Table.from_pylist([row for result in results for row in result.rows], schema=TRACKS)
        figures |= {"tracks": float(found.num_rows), "seconds": time.perf_counter() - begun}
        failures = [failure for result in results for failure in result.failures]
        return Tracked(found, failures, figures, signatures, media, warnings=_warnings(results))

    def _lines(self, rows: pa.Table) -> dict[str, Lines]:
        """Return the lines of each video, or why they can't be used."""
        found: dict[str, Lines] = {}
        by_video = self._sorted_lines(rows) if self._folder is not None else {}
        for row in rows.to_pylist():
            video_id = row["video_id"]
            if row[PROBLEM] is not None:
                found[video_id] = InputError(KIND, f"{row[PROBLEM]}.")
            elif row[FILE] is None:
                found[video_id] = None
            elif self._folder is None:
                found[video_id] = _read_file(self._format, row[FILE], self._config.tracks.storage_options)
            else:
                found[video_id] = GivenLines(by_video[video_id], declared_of(row), row[WHERE], self._format.unit)
        return found

    def _sorted_lines(self, rows: pa.Table) -> dict[str, pa.Table]:
        """Read the lines of a shard's videos from the files that the driver sorted."""
        assert self._folder is not None
        ids = rows.filter(pc.is_valid(rows[FILE]))["video_id"].to_pylist()
        read = functools.partial(pq.read_table, filters=[("video", "in", ids)]) if ids else None
        found: dict[str, pa.Table] = {}
        for name in pc.unique(rows[FILE]).drop_null().to_pylist():
            table = self._folder.reading(name, read)  # type: ignore[arg-type]
            for video_id in pc.unique(table["video"]).to_pylist():
                found[video_id] = table.filter(pc.equal(table["video"], video_id)).combine_chunks()
        return found

    def _follow(self, video_id: str, source: Source, lines: Lines) -> _Result:
        """Pass over the frames of one video. What is wrong with the video or its lines becomes a failure."""
        row = {"video_id": video_id, "uri": None if isinstance(source, bytes) else str(source)}
        if isinstance(lines, InputError):
            return _Result(failures=[Failure.of_video(row, lines)])
        try:
            return self._passed(video_id, source, lines)
        except InputError as error:
            return _Result(failures=[Failure.of_video(row, error)])

    def _passed(self, video_id: str, source: Source, lines: GivenLines | None) -> _Result:
        name = video_id if isinstance(source, bytes) else str(source)
        size: Size | None = None
        while True:
            video, used = self._one_pass(video_id, source, lines, size, name)
            decoder = video.decoder
            if lines is None or not lines.timed:
                break
            # The times of frames whose rate varies are known at the end only.
            size = Size(*decoder.size, decoder.fps, decoder.times)
            if np.array_equal(self._boxes(lines, size, name, source).frames, used.frames):
                break
        # Segments limit what is decoded, and not the count of the file's frames.
        whole = not decoder.truncated and (decoder.segments or decoder.num_frames < self._config.tracks.max_frames)
        if lines is not None and whole:
            used.check_end(decoder.num_frames, lines, name)
            check_length(lines, decoder.num_frames, name)
        outside = (lines.at(used.outside[0]), len(used.outside)) if lines is not None and used.outside else None
        return _Result(video.rows(), decoder.missing_segments(), decoder, video.num_seen, outside)

    def _one_pass(
        self, video_id: str, source: Source, lines: GivenLines | None, size: Size | None, name: str
    ) -> tuple[_GivenVideo, Boxes]:
        config = self._config
        tracks = config.tracks.model_copy(
            update={"frame_stride": self._stride(lines, source), "tracker": "bytetrack", "decoder": "pyav"}
        )
        decoder = Decoder(
            video_id,
            source,
            _NoDetector(),  # type: ignore[arg-type]
            tracks,
            config.resources.decode.cpu_seconds,
            int(config.resources.decode.frames_gb * 1e9),
            config.videos.read_options,
        )
        try:
            frame = decoder.next()
            size = size or Size(*decoder.size, decoder.fps)
            boxes = self._boxes(lines, size, name, source) if lines is not None else NONE
            video = _GivenVideo(decoder, boxes)
            while frame is not None:
                video.next_frame(frame)
                frame = decoder.next()
        finally:
            decoder.stop()
        return video, boxes

    def _boxes(self, lines: GivenLines, size: Size, name: str, source: Source) -> Boxes:
        tracks = self._config.tracks
        # The frames of a segment are counted from its start: interpolate in all, and those that are decoded are used.
        stride = 1 if segments_of(source) else tracks.decode_stride
        return boxes_of(lines, size, self._format, name, stride=stride, classes=tracks.classes)

    def _stride(self, lines: GivenLines | None, source: Source) -> int:
        """Return the config's stride; 1 if some boxes are in frames between, and are not interpolated."""
        stride = self._config.tracks.decode_stride
        if lines is None or stride == 1 or self._format.linking != "none":
            return stride
        if segments_of(source):  # they may begin at any frame
            return 1
        frames = lines.table["frame"]
        return 1 if lines.timed or (frames.to_numpy() % stride).any() else stride


class _NoDetector:
    """What the decoder asks of a detector."""

    device = "cpu"

    def letterbox(self, frame: np.ndarray) -> np.ndarray:
        return frame


_NOTHING = np.empty(0, np.int64)
NONE = Boxes(
    _NOTHING, _NOTHING, _NOTHING, np.empty((0, 4), np.float32), np.empty(0, np.float32), _NOTHING, ()
)  # fmt: skip


class _GivenVideo(VideoTracks):
    """The tracks of one video, with given boxes in the place of a detector's and a tracker's."""

    def __init__(self, decoder: Decoder, boxes: Boxes) -> None:
        # Nothing has to be forgotten where a segment begins: the given ids say which boxes are one object.
        super().__init__(decoder, dict(enumerate(boxes.names)), None, None)
        self._boxes = boxes
        self.num_seen = 0

    def next_frame(self, frame: Frame) -> None:
        """Add the next frame, in order."""
        from vtcav_ray.tracks.detect import Detections

        self.num_seen += 1
        first, last = np.searchsorted(self._boxes.frames, (frame.index, frame.index + 1))
        self._now = slice(int(first), int(last))
        boxes = self._boxes
        self.update(frame, Detections(boxes.boxes[self._now], boxes.confidence[self._now], boxes.labels[self._now]))

    def _followed(self, frame: Frame, found: Any) -> np.ndarray:
        places = np.arange(len(found.boxes))
        return np.column_stack(
            (found.boxes, self._boxes.tracks[self._now], found.confidence, found.classes, places)
        ).astype(np.float64)


def _read_file(form: TrackFormat, url: str, storage_options: Mapping[str, Any]) -> Lines:
    """Read the file of one video."""
    file = SourceFile(url, path_of_file(url), storage_options)
    try:
        return patiently(lambda: _lines_of_file(form, file), url)
    except BadFile as error:
        return InputError(KIND, f"{url}, {error}.")
    except (FileNotFoundError, PermissionError) as error:
        return InputError(KIND, f"{url} can't be read: {error.strerror or 'it does not exist'}.")


def _lines_of_file(form: TrackFormat, file: SourceFile) -> GivenLines:
    parts, count = [LINES.empty_table()], 0
    declared = Declared()
    for piece in form.read(file):
        if piece.problems:
            raise BadFile(piece.problems[0].message)
        count += piece.lines.num_rows
        if count > MOST_LINES_OF_A_VIDEO:
            raise BadFile(f"it has more than {MOST_LINES_OF_A_VIDEO:,} lines, which is the limit for one video")
        parts.append(piece.lines)
        declared = next(iter(piece.declared.values()), declared)
    return GivenLines(pa.concat_tables(parts).combine_chunks(), declared, file.name, form.unit)


def _warnings(results: Sequence[_Result]) -> list[str]:
    found = [result.outside for result in results if result.outside is not None]
    if not found:
        return []
    return [
        f"Boxes that lie outside the frame are left out: {sum(count for _, count in found):,} in {len(found):,} "
        f"videos, the first at {found[0][0]}."
    ]
