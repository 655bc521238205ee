"""CSV as AVA and ActivityNet publish it: keyframes, with boxes as shares of the frame.

Without a header, the columns are AVA's: video, time (seconds), x1, y1, x2, y2, class[, person]. A class is a number
(`tracks.names` has the names) or a name. A line with empty box cells says that the video has nobody there.

With a header, in any order: `video_id`; `frame` (index, from 0) or `time` (seconds); `x1`, `y1`, `x2`, `y2`; `label`;
and, optionally, `track_id` and `confidence`.

A person with several classes at a time gives a track for each class. Boxes of neighbouring keyframes are linked by the
person, or by their overlap where the file names none, and are interpolated in between.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence

from vtcav_ray.registry import TRACK_FORMATS
from vtcav_ray.tracks.formats.base import (
    BadFile,
    Lines,
    Piece,
    Problem,
    TrackFile,
    TrackFormat,
    real_number,
    whole_number,
)
from vtcav_ray.tracks.formats.text_lines import lines_of

_SIDES = ("x1", "y1", "x2", "y2")
_AVA = ("video_id", "time", *_SIDES, "label", "track_id")
_ALSO = {"video": "video_id", "timestamp": "time", "frame_timestamp": "time", "middle_frame_timestamp": "time",
         "person_id": "track_id", "entity_id": "track_id", "action_id": "label", "class": "label",
         "score": "confidence", "entity_box_x1": "x1", "entity_box_y1": "y1",
         "entity_box_x2": "x2", "entity_box_y2": "y2"}  # fmt: skip
_OUTSIDE = 0.5  # share of the frame by which a box may extend beyond it


@TRACK_FORMATS.register("csv")
class Csv(TrackFormat):
    """Lines of any number of videos."""

    relative = True
    by_label = True
    linking = "keyframes"

    def video_of(self, path: str) -> str | None:
        return path if path.lower().endswith((".csv", ".tsv")) else None

    def read(self, file: TrackFile) -> Iterator[Piece]:
        delimiter = "\t" if file.path.lower().endswith(".tsv") else ","
        lines = Lines()
        columns: Sequence[str] | None = None
        for number, text in lines_of(file):
            if not text.strip():
                continue
            try:
                cells = [cell.strip() for cell in next(csv.reader([text], delimiter=delimiter, strict=True))]
            except csv.Error as error:
                raise BadFile(f"line {number}: it is not CSV: {error}") from error
            if columns is None:
                columns = _columns(cells)
                if columns is not _AVA:
                    continue
            self._add(lines, dict(zip(columns, cells, strict=False)), number)
            if lines.full:
                yield lines.take()
        yield lines.take()

    def _add(self, lines: Lines, row: dict[str, str], number: int) -> None:
        video = row.get("video_id", "")
        if not video:
            raise BadFile(f"line {number}: it names no video")
        if all(not row.get(side) for side in _SIDES):
            return
        try:
            box = [real_number(row.get(side, ""), side) for side in _SIDES]
            if min(box) < -_OUTSIDE or max(box) > 1 + _OUTSIDE:
                raise BadFile(
                    f"the box {', '.join(row[side] for side in _SIDES)} is not in shares of the frame, from 0 to 1. "
                    "For pixels, use the format `parquet`"
                )
            label = row.get("label", "")
            lines.add(
                video=video,
                track=row.get("track_id") or None,
                label=self.class_name(int(label)) if label.isdecimal() and len(label) < 10 else label,
                frame=whole_number(row["frame"], "frame") if "frame" in row else None,
                time=real_number(row["time"], "time") if "time" in row else None,
                box=box,
                confidence=real_number(row["confidence"], "confidence") if row.get("confidence") else None,
                line=number,
            )
        except BadFile as error:
            lines.problems.append(Problem(video, f"line {number}: {error}"))


def _columns(cells: Sequence[str]) -> Sequence[str]:
    """Return the columns' names, from the header, or AVA's if the first line is no header."""
    names = [_ALSO.get(cell.lower(), cell.lower()) for cell in cells]
    if "x1" not in names and "video_id" not in names:
        if len(cells) not in (7, 8):
            raise BadFile(
                f"line 1: it has {len(cells)} cells. Without a header there are 7 or 8: video, time, x1, y1, x2, y2, "
                "class and, perhaps, person"
            )
        return _AVA
    if missing := [name for name in ("video_id", *_SIDES, "label") if name not in names]:
        raise BadFile(f"line 1: its header has no column `{missing[0]}`")
    if ("frame" in names) == ("time" in names):
        raise BadFile("line 1: its header needs one of the columns `frame` and `time`, not both or neither")
    if len(set(names)) != len(names):
        raise BadFile("line 1: its header has a column twice")
    return names
