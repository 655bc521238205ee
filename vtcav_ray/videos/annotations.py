"""What the lines of a list say about a video: labels, a split, a segment and a source video.

A file may have several lines, one for each of its segments. Lines with the same times are one segment with several
labels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from vtcav_ray.tables import VIDEO_OPTIONS, VIDEOS
from vtcav_ray.text.label_sets import join_labels, split_labels
from vtcav_ray.video.segments import WHOLE, Segment, seconds_of
from vtcav_ray.videos.tables import ListTable

ROWS_AT_ONCE = 16_384


@dataclass(frozen=True)
class Annotation:
    """One line of a list.

    Attributes:
        label: its label, or the text of several (`vtcav_ray.text.label_sets`).
        segment: None: the line has no times.
        source: the source video that the file is a part of.
        fault: why the line can't be used; empty: it can.
    """

    label: str | None = None
    split: str | None = None
    segment: Segment | None = None
    source: str | None = None
    fault: str = ""

    def untimed(self) -> Annotation:
        """Return what the line says about a file that was cut to its times already."""
        return dataclasses.replace(self, segment=None)


def annotations_of(listed: ListTable) -> list[Annotation]:
    """Return what each row of a list says.

    Raises:
        ConfigError: a column occurs twice.
    """
    nothing: Sequence[str | None] = [None] * listed.table.num_rows
    starts, ends = listed.times()
    columns = (listed.labels(), listed.splits(), starts, ends, listed.sources())
    return [
        _annotation(label or None, split or None, start, end, source)
        for label, split, start, end, source in zip(*(column or nothing for column in columns), strict=True)
    ]


def put(row: dict[str, Any], lines: Sequence[Annotation]) -> None:
    """Set the columns of a row of `videos` from the usable lines of its file."""
    row["label"] = lines[0].label if len({line.label for line in lines}) == 1 else _joined(lines)
    row["split"] = next((line.split for line in lines if line.split), row["split"])
    if source := next((line.source for line in lines if line.source), None):
        row["source"] = source
    if any(line.segment is not None for line in lines):
        by_segment: dict[Segment, list[Annotation]] = {}
        for line in lines:
            by_segment.setdefault(line.segment or WHOLE, []).append(line)
        row["segments"] = [
            {
                "start": segment.start,
                "end": segment.end,
                "label": some[0].label if len({line.label for line in some}) == 1 else _joined(some),
            }
            for segment, some in sorted(by_segment.items(), key=lambda item: _order(item[0]))
        ]


def videos_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Return the table `videos` of these rows. It has an optional column only if a row has a value for it.

    The list is empty afterwards: a large corpus would be in memory twice otherwise.
    """
    options = [field for field in VIDEO_OPTIONS if any(row.get(field.name) is not None for row in rows)]
    schema = pa.schema([*VIDEOS, *options])
    parts = []
    while rows:
        parts.append(pa.Table.from_pylist(rows[-ROWS_AT_ONCE:], schema=schema))
        del rows[-ROWS_AT_ONCE:]
    return pa.concat_tables(parts[::-1]).combine_chunks() if parts else schema.empty_table()


def _joined(lines: Iterable[Annotation]) -> str | None:
    return join_labels(label for line in lines for label in split_labels(line.label))


def _order(segment: Segment) -> tuple[float, float]:
    return segment.start, float("inf") if segment.end is None else segment.end


def _annotation(
    label: str | None, split: str | None, start: str | None, end: str | None, source: str | None
) -> Annotation:
    found = Annotation(label, split, source=source or None)
    if source and (source != source.strip() or not source.isprintable() or ".." in source.split("/")):
        return dataclasses.replace(found, fault=f"{source!r} can't be a `source`.")
    if not start and not end:
        return found
    try:
        segment = Segment(seconds_of(start) if start else 0.0, seconds_of(end) if end else None)
    except ValueError as error:
        return dataclasses.replace(found, fault=f"{error}.")
    if segment.end is not None and segment.end <= segment.start:
        return dataclasses.replace(found, fault=f"its segment ends at {end}, which is not after its start {start}.")
    return dataclasses.replace(found, segment=segment)
