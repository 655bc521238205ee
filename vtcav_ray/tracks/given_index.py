"""Which file has the tracks of which video. The driver finds out once, so that a worker reads only its videos' lines.

A format with one file per video needs only the list of its files. Files that many videos share are read once, from
start to end. Their lines are sorted by shard into a bounded number of Parquet files beside the run. Memory does not
grow with the number of lines, and a worker reads one such file.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vtcav_ray.config import TracksConfig
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.store.access import patiently
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.records import canonical_digest
from vtcav_ray.tracks.formats.base import LINES, MOST_LINES_OF_A_VIDEO, BadFile, Declared, Piece, TrackFormat
from vtcav_ray.tracks.given_files import SourceFile, SourceFiles, list_files, reader_of
from vtcav_ray.tracks.given_names import MOST_SHOWN, VideoNames, without_lines

FOLDER = "given_tracks"  # below the run folder
FILE, PROBLEM, WHERE = "tracks_file", "tracks_problem", "tracks_where"  # columns that are added to a shard's rows
DECLARED = {"declared_width": "width", "declared_height": "height", "declared_fps": "fps",
            "declared_frames": "num_frames"}  # fmt: skip
COLUMNS = pa.schema(
    [
        (FILE, pa.string()),  # to read; null: the video has no lines
        (WHERE, pa.string()),  # the file that a person knows, for messages
        (PROBLEM, pa.string()),  # why the video's lines can't be used
        ("declared_width", pa.int64()),
        ("declared_height", pa.int64()),
        ("declared_fps", pa.float64()),
        ("declared_frames", pa.int64()),
    ]
)
_DONE, _FOUND = "done.json", "found.parquet"
_MOST_BUCKETS = 256
_HELD_LINES = 8_192  # per bucket, before they are written
_MOST_LOOKED_INTO = 1_000  # files whose path names no video


@dataclass
class _Found:
    """What is known about the tracks of the run's videos, by video_id."""

    file: dict[str, str] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)
    problem: dict[str, str] = field(default_factory=dict)
    declared: dict[str, Declared] = field(default_factory=dict)
    unmatched: dict[str, str] = field(default_factory=dict)  # name -> where: the first few that match no video
    unmatched_count: int = 0

    def no_video(self, name: str, where: str) -> None:
        """Note a name that matches no video."""
        self.unmatched_count += 1
        if len(self.unmatched) < MOST_SHOWN:
            self.unmatched[name] = where


@dataclass(frozen=True)
class GivenTracks:
    """The result of `find_tracks`.

    Attributes:
        videos: the VIDEOS table with `COLUMNS`.
        folder: of the sorted lines; None: each video has its own file.
        warnings: sentences for the user.
    """

    videos: pa.Table
    folder: Folder | None
    warnings: Sequence[str]


def find_tracks(config: TracksConfig, videos: pa.Table, shard_size: int, run: Folder) -> GivenTracks:
    """Find the lines of each video. Reads files that many videos share.

    Args:
        videos: VIDEOS table, in the order of the shards.
        shard_size: videos per shard.
        run: the run folder, where sorted lines are kept.

    Raises:
        ConfigError: the source does not exist, or a file can't be read; the message names the file and the line.
        StageError: no name in it matches a video.
    """
    form = reader_of(config)
    files = list_files(config, form)
    ids = videos["video_id"].to_pylist()
    names = VideoNames(ids)
    folder = None
    if form.one_video:
        found = _by_file(form, files, names)
    else:
        key = canonical_digest([files.digest, config.format, config.names, form.names, shard_size, ids])[:16]
        folder = run.below(FOLDER, key)
        found = _sorted_lines(form, files, names, _buckets(ids, shard_size), folder)
    warnings = []
    if found.unmatched:
        warnings.append(names.without_video(found.unmatched, found.unmatched_count, files.source))
    if not found.where and not found.problem:
        raise StageError(
            f"No video of this run has tracks in {files.source}. {' '.join([*warnings, ''])}Name the files, or the "
            "videos in them, as the table `videos` does (`vtcav table RUN videos`)."
        )
    if missing := [video for video in ids if video not in found.where and video not in found.problem]:
        warnings.append(without_lines(missing, len(ids), files.source))
    return GivenTracks(_with_columns(videos, found), folder, warnings)


def _with_columns(videos: pa.Table, found: _Found) -> pa.Table:
    ids = videos["video_id"].to_pylist()
    columns: dict[str, list[object]] = {FILE: [], WHERE: [], PROBLEM: [], **{name: [] for name in DECLARED}}
    for video in ids:
        declared = found.declared.get(video, Declared())
        columns[FILE].append(found.file.get(video))
        columns[WHERE].append(found.where.get(video))
        columns[PROBLEM].append(found.problem.get(video))
        for name, attribute in DECLARED.items():
            columns[name].append(getattr(declared, attribute))
    for column in COLUMNS:
        videos = videos.append_column(column, pa.array(columns[column.name], column.type))
    return videos


def _by_file(form: TrackFormat, files: SourceFiles, names: VideoNames) -> _Found:
    """Match files with one video each, by their paths, or by what is written in them.

    Raises:
        ConfigError: two files have the tracks of one video.
    """
    found = _Found()
    chosen: dict[str, SourceFile] = {}
    looked = 0
    for path, file in files.files.items():
        name = files.video_of(form, path)
        video = names.match(name)
        if video is None and looked < _MOST_LOOKED_INTO:
            looked += 1
            video = next(filter(None, map(names.match, _names_inside(form, file))), None)
        if video is None:
            found.no_video(name, file.name)
            continue
        if (other := chosen.get(video)) is not None:
            ranks = form.rank(other.path), form.rank(path)
            if ranks[0] == ranks[1]:
                raise ConfigError(
                    f"`tracks.source`: {other.name} and {file.name} both have tracks of the video {video!r}. Keep one."
                )
            file = other if ranks[0] < ranks[1] else file
        chosen[video] = file
    for video, file in chosen.items():
        found.file[video] = found.where[video] = file.name
    return found


def _names_inside(form: TrackFormat, file: SourceFile) -> Sequence[str]:
    try:
        return patiently(lambda: form.names_inside(file), file.name)
    except BadFile:
        return ()  # it is reported as a file without a video


def _buckets(ids: Sequence[str], shard_size: int) -> dict[str, int]:
    """Map each video to the number of the file that its lines go to; the videos of a shard have the same one."""
    shards = -(-len(ids) // shard_size)
    together = -(-shards // _MOST_BUCKETS)
    return {video: place // shard_size // together for place, video in enumerate(ids)}


def _sorted_lines(
    form: TrackFormat, files: SourceFiles, names: VideoNames, buckets: Mapping[str, int], folder: Folder
) -> _Found:
    """Sort the lines of all files into Parquet files in a folder, unless that was done."""
    if folder.exists(_DONE):
        return _read_done(folder)
    with tempfile.TemporaryDirectory(prefix="vtcav-tracks-") as place:
        # If the storage fails for a while, all files are read again from the start.
        found = patiently(lambda: _sort_files(form, files, names, buckets, place), files.source)
        for name in sorted(os.listdir(place)):
            with open(os.path.join(place, name), "rb") as file:
                folder.write_bytes(name, file.read())
    _write_done(folder, found)
    return found


def _write_done(folder: Folder, found: _Found) -> None:
    """Write what was found, and last the mark that all of it is there."""
    ids = list(dict.fromkeys((*found.where, *found.problem, *found.declared)))
    sink = pa.BufferOutputStream()
    pq.write_table(_with_columns(pa.table({"video_id": pa.array(ids, pa.string())}), found), sink)
    folder.write_bytes(_FOUND, sink.getvalue().to_pybytes())
    folder.write_json(_DONE, {"unmatched": found.unmatched, "count": found.unmatched_count})


def _read_done(folder: Folder) -> _Found:
    done = folder.read_json(_DONE)
    found = _Found(unmatched=dict(done["unmatched"]), unmatched_count=int(done["count"]))
    for row in folder.reading(_FOUND, pq.read_table).to_pylist():
        video = row["video_id"]
        found.declared[video] = declared_of(row)
        for column, values in ((FILE, found.file), (WHERE, found.where), (PROBLEM, found.problem)):
            if row[column] is not None:
                values[video] = row[column]
    return found


def declared_of(row: Mapping[str, Any]) -> Declared:
    """Return what a row with `COLUMNS` says about its video."""
    return Declared(**{attribute: row[name] for name, attribute in DECLARED.items()})


def _sort_files(
    form: TrackFormat, files: SourceFiles, names: VideoNames, buckets: Mapping[str, int], place: str
) -> _Found:
    """Sort the lines of all files into Parquet files in an empty local folder.

    Raises:
        ConfigError: a file can't be read.
    """
    for name in os.listdir(place):
        os.remove(os.path.join(place, name))
    found = _Found()
    matched: dict[str, str | None] = {}
    with _Sorter(place) as sorter:
        for file in files.files.values():
            try:
                for piece in form.read(file):
                    _note(piece, file.name, names, matched, found)
                    sorter.add(piece.lines, matched, buckets)
            except BadFile as error:
                raise ConfigError(f"`tracks.source`: {file.name}, {error}.") from error
    for video, count in sorter.counts.items():
        found.file[video] = sorter.name_of(buckets[video])
        if count > MOST_LINES_OF_A_VIDEO:
            found.problem.setdefault(video, f"it has {count:,} lines, more than {MOST_LINES_OF_A_VIDEO:,}")
    return found


def _note(piece: Piece, where: str, names: VideoNames, matched: dict[str, str | None], found: _Found) -> None:
    """Match the names in a piece to videos, and keep what it says about them."""
    said = pc.unique(piece.lines["video"]).to_pylist()
    for name in dict.fromkeys((*said, *(problem.video for problem in piece.problems), *piece.declared)):
        if name not in matched:
            matched[name] = names.match(name)
            if matched[name] is None:
                found.no_video(name, where)
        # A video that a file only lists has no line, but its annotators have looked at it.
        if (video := matched[name]) is not None:
            found.where.setdefault(video, where)
    for problem in piece.problems:
        if (video := matched[problem.video]) is not None:
            found.problem.setdefault(video, f"{where}, {problem.message}")
    for name, declared in piece.declared.items():
        if (video := matched[name]) is not None:
            found.declared[video] = declared


class _Sorter:
    """Open Parquet files, one per bucket, and the lines that are not written yet."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._held: dict[int, list[pa.Table]] = {}
        self._held_lines: dict[int, int] = {}
        self._writers: dict[int, pq.ParquetWriter] = {}
        self._open = ExitStack()
        self.counts: Counter[str] = Counter()  # lines, by video_id

    def __enter__(self) -> _Sorter:
        self._open.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            if error[0] is None:
                for bucket in list(self._held):
                    self._write(bucket)
        finally:
            self._open.__exit__(*error)

    @staticmethod
    def name_of(bucket: int) -> str:
        return f"lines-{bucket:03d}.parquet"

    def add(self, lines: pa.Table, matched: Mapping[str, str | None], buckets: Mapping[str, int]) -> None:
        """Add lines under the ids of their videos; lines of other videos are dropped."""
        coded = lines["video"].combine_chunks().dictionary_encode()
        videos = [matched[name] for name in coded.dictionary.to_pylist()]
        codes = coded.indices.to_numpy()
        bucket_of = np.array([-1 if video is None else buckets[video] for video in videos], np.int64)[codes]
        ids = pa.DictionaryArray.from_arrays(coded.indices, pa.array(videos, pa.string())).cast(pa.string())
        lines = lines.set_column(lines.column_names.index("video"), "video", ids)
        for entry in ids.value_counts().to_pylist():
            if entry["values"] is not None:
                self.counts[entry["values"]] += entry["counts"]
        order = np.argsort(bucket_of, kind="stable")
        found, starts = np.unique(bucket_of[order], return_index=True)
        for bucket, part in zip(found.tolist(), np.split(order, starts[1:]), strict=True):
            if bucket >= 0:
                self._held.setdefault(bucket, []).append(lines.take(pa.array(part)))
                self._held_lines[bucket] = self._held_lines.get(bucket, 0) + len(part)
                if self._held_lines[bucket] >= _HELD_LINES:
                    self._write(bucket)

    def _write(self, bucket: int) -> None:
        if bucket not in self._writers:
            writer = pq.ParquetWriter(os.path.join(self._place, self.name_of(bucket)), LINES)
            self._writers[bucket] = self._open.enter_context(writer)
        self._writers[bucket].write_table(pa.concat_tables(self._held.pop(bucket)))
        self._held_lines[bucket] = 0
