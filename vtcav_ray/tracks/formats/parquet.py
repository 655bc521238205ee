"""Our own minimal Parquet: a row per box, in one file or several.

Columns: `video_id`, `track_id`, `label`, `frame` (index, from 0) or `time` (seconds), `x1`, `y1`, `x2`, `y2` (pixels,
as in the table `tracks`) and, optionally, `confidence`. Other columns are not read.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vtcav_ray.registry import TRACK_FORMATS
from vtcav_ray.tracks.formats.base import LINES, BadFile, Piece, Problem, TrackFile, TrackFormat, shown

NEEDED = ("video_id", "track_id", "label", "x1", "y1", "x2", "y2")
_SIDES = ("x1", "y1", "x2", "y2")
_ROWS_AT_ONCE = 65_536
_MOST_PIECE_BYTES = 1 << 28
_TYPES = {
    "video_id": pa.string(),
    "track_id": pa.string(),
    "label": pa.string(),
    "frame": pa.int64(),
    "time": pa.float64(),
    **dict.fromkeys((*_SIDES, "confidence"), pa.float64()),
}


@TRACK_FORMATS.register("parquet")
class Parquet(TrackFormat):
    """Rows of any number of videos."""

    unit = "row"

    def video_of(self, path: str) -> str | None:
        return path if path.lower().endswith(".parquet") else None

    def read(self, file: TrackFile) -> Iterator[Piece]:
        with file.open() as stream:
            try:
                parquet = pq.ParquetFile(stream, pre_buffer=False)
                columns = _columns(parquet.schema_arrow.names)
                before = 0
                for batch in parquet.iter_batches(_ROWS_AT_ONCE, columns=columns, use_threads=False):
                    if batch.nbytes > _MOST_PIECE_BYTES:  # a few kilobytes may expand to gigabytes
                        raise BadFile(f"{_ROWS_AT_ONCE:,} rows have more than {_MOST_PIECE_BYTES:,} bytes")
                    yield _piece(_cast(pa.Table.from_batches([batch])), before)
                    before += batch.num_rows
            except pa.ArrowException as error:
                raise BadFile(f"it is not a readable Parquet file: {error}") from error


def _columns(found: list[str]) -> list[str]:
    if missing := [name for name in NEEDED if name not in found]:
        raise BadFile(f"it has no column `{missing[0]}`. It needs {', '.join(NEEDED)}, and `frame` or `time`")
    if ("frame" in found) == ("time" in found):
        raise BadFile("it needs one of the columns `frame` (index from 0) and `time` (seconds), not both or neither")
    return [name for name in _TYPES if name in found]


def _cast(table: pa.Table) -> pa.Table:
    columns = {}
    for name in table.column_names:
        try:
            columns[name] = table[name].cast(_TYPES[name])
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise BadFile(f"its column `{name}` can't be read as {_TYPES[name]}: {error}") from error
    return pa.table(columns)


def _piece(table: pa.Table, before: int) -> Piece:
    """Return the rows as lines, without those of videos that have a row that can't be used."""
    count = table.num_rows
    nothing = {name: pa.nulls(count, _TYPES[name]) for name in _TYPES}
    columns = {name: table[name] if name in table.column_names else nothing[name] for name in _TYPES}
    numbers = np.arange(before + 1, before + count + 1)
    lines = pa.table(
        {
            **{name: columns[name] for name in _TYPES if name not in ("video_id", "track_id")},
            "video": columns["video_id"],
            "track": columns["track_id"],
            "gone": np.zeros(count, bool),
            "line": numbers,
        }
    )
    bad = _wrong(table)
    if bad["video"].any():
        first = int(bad["video"].argmax())
        raise BadFile(f"row {before + first + 1} has no `video_id`")
    problems = []
    wrong = np.zeros(count, bool)
    for why, rows in bad.items():
        for row in np.flatnonzero(rows & ~wrong).tolist():
            box = [table[side][row].as_py() for side in _SIDES]
            text = why if None in box else why.format(box=shown(box))
            problems.append(Problem(table["video_id"][row].as_py(), f"row {before + row + 1}: {text}"))
        wrong |= rows
    return Piece(lines.select(LINES.names).cast(LINES).filter(pa.array(~wrong)), problems=problems)


def _wrong(table: pa.Table) -> dict[str, np.ndarray]:
    """Map what may be wrong with a row to the rows that have it: bool [rows]."""
    null = {name: pc.is_null(table[name]).to_numpy() for name in table.column_names}
    x1, y1, x2, y2 = (table[side].to_numpy() for side in _SIDES)
    finite = np.isfinite(np.stack([x1, y1, x2, y2]).astype(float)).all(0)
    when = "frame" if "frame" in table.column_names else "time"
    moment = table[when].to_numpy().astype(float)
    empty = np.logical_or.reduce([null[name] for name in ("track_id", "label", when, *_SIDES)])
    confidence = table["confidence"].to_numpy().astype(float) if "confidence" in table.column_names else np.ones(1)
    with np.errstate(invalid="ignore"):
        return {
            "video": null["video_id"],
            "a cell is empty": empty,
            "the box {box} is not finite": ~finite & ~empty,
            "the box {box} (x1, y1, x2, y2) has no area": finite & ((x2 <= x1) | (y2 <= y1)),
            f"`{when}` is not a number from 0 on": ~empty & ~((moment >= 0) & (moment < 2**31)),
            "`confidence` is not between 0 and 1": np.broadcast_to((confidence < 0) | (confidence > 1), empty.shape),
        }
