"""The clips to review, grouped by concept, class and kind of random clip, and their animated previews.

Only the clips' metadata is read at the start. A preview is made on request, from one row group of the stored, lossless
clips, and kept in a cache of bounded size.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow.parquet as pq

from vtcav_ray.clips.usable import full_name
from vtcav_ray.errors import ConfigError
from vtcav_ray.report.previews import MAX_FRAMES, Preview, make_preview
from vtcav_ray.runs.run import Run
from vtcav_ray.store.commits import StageFolder
from vtcav_ray.video.codec import decode_clip

HEADS = ("clip_id", "set", "name", "kind", "video_id", "object", "motion", "track_id", "frames", "control_of",
         "height", "width")  # fmt: skip
STORED = ("video_id", "num_frames", "encoding", "encoded")
SET_ORDER = ("concept", "class", "random")
MAX_SIDE = 176  # pixels, of a preview on the page
KEPT_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Clip:
    """One clip. `first`, `last`: source frames; `height`, `width`: of the stored frames, pixels."""

    clip_id: str
    video_id: str
    object: str | None
    motion: str | None
    track_id: int | None
    first: int
    last: int
    height: int
    width: int


@dataclass(frozen=True)
class Group:
    """Clips that are reviewed together: one concept and kind, one class, or one kind of random clip."""

    set: str
    name: str
    kind: str
    clips: tuple[Clip, ...]


@dataclass(frozen=True)
class _Place:
    path: str
    row_group: int
    row: int  # index in the row group


class ClipGroups:
    """The clips of a run, without motion controls: the decision on a clip also covers the controls made from it.

    Raises:
        ConfigError: the run's clips are not complete.
    """

    def __init__(self, run: Run) -> None:
        self.folder = run.stage("clips")
        if not self.folder.complete:
            raise ConfigError(
                f"The clips of {run.url} are not all cut yet. Run `vtcav run CONFIG --until clips` first."
            )
        self.home = self.folder.run  # decisions are stored with the clips: runs that share clips share a review
        self.title = run.config.name
        self.key = self.folder.key
        self.groups, self._places = _read(self.folder)
        self._kept: OrderedDict[tuple[str, int], Preview] = OrderedDict()
        self._kept_bytes = 0
        self._lock = threading.Lock()

    def preview(self, clip_id: str, max_side: int = MAX_SIDE) -> Preview:
        """Return the animated preview of a clip. Safe to call from several threads.

        Raises:
            KeyError: no such clip.
            InputError: its stored frames don't decode.
        """
        place, key = self._places[clip_id], (clip_id, max_side)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        part = self.folder.reading(
            place.path,
            lambda file: pq.ParquetFile(file, pre_buffer=False).read_row_group(
                place.row_group, columns=list(STORED), use_threads=False
            ),
        )
        row = part.slice(place.row, 1).to_pylist()[0]
        shown = np.linspace(0, row["num_frames"] - 1, min(MAX_FRAMES, row["num_frames"])).round().astype(int)
        frames = decode_clip(row["encoding"], row["encoded"], shown.tolist())
        made = make_preview(clip_id, row["video_id"], frames, max_side)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = made
                self._kept_bytes += len(made.image)
            while self._kept_bytes > KEPT_BYTES:
                _, old = self._kept.popitem(last=False)
                self._kept_bytes -= len(old.image)
        return made


def _heads(file: IO[bytes]) -> tuple[list[int], list[dict[str, Any]]]:
    """Return the number of rows of each row group, and all rows without their frames."""
    parquet = pq.ParquetFile(file, pre_buffer=False)
    sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
    return sizes, parquet.read(columns=list(HEADS), use_threads=False).to_pylist()


def _read(folder: StageFolder) -> tuple[list[Group], dict[str, _Place]]:
    by_group: dict[tuple[str, str, str], list[Clip]] = {}
    places: dict[str, _Place] = {}
    for path in folder.files("clips"):
        sizes, rows = folder.reading(path, _heads)
        found = [_Place(path, group, row) for group, size in enumerate(sizes) for row in range(size)]
        for row, place in zip(rows, found, strict=True):
            if row["control_of"] is not None:
                continue
            key = (row["set"], full_name(row["set"], row["name"], row["kind"]), row["kind"])
            by_group.setdefault(key, []).append(_clip(row))
            places[row["clip_id"]] = place
    order = sorted(by_group, key=lambda k: (SET_ORDER.index(k[0]), k[1].lower(), k[2]))
    return [Group(*key, tuple(by_group[key])) for key in order], places


def _clip(row: dict[str, Any]) -> Clip:
    same = ("clip_id", "video_id", "object", "motion", "track_id", "height", "width")
    frames = row["frames"] or [0]
    return Clip(**{name: row[name] for name in same}, first=min(frames), last=max(frames))


def siblings(groups: Sequence[Group]) -> dict[str, list[str]]:
    """Return clip_id -> clips of the same track and frames in other kinds of the same concept."""
    by_source: dict[tuple[object, ...], list[str]] = {}
    source_of: dict[str, tuple[object, ...]] = {}
    for group in groups:
        base = group.name.rpartition("/")[0] if group.set == "concept" else group.name
        for clip in group.clips:
            if clip.track_id is not None and group.set == "concept":
                source = (base, clip.video_id, clip.track_id, clip.clip_id.rpartition("@")[2])
                by_source.setdefault(source, []).append(clip.clip_id)
                source_of[clip.clip_id] = source
    return {c: [o for o in by_source[s] if o != c] for c, s in source_of.items()}
