"""The label files of data sets, as they are published: ActivityNet's JSON, and the CSV files of Charades and AVA.

Each becomes a list with one row per segment and label. Kinetics' CSV needs no conversion
(`vtcav_ray.videos.tables.ListTable.candidates`). These lists name a video without its folder and extension.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from vtcav_ray.errors import ConfigError
from vtcav_ray.text.bounded_text import UnreadableText, read_json
from vtcav_ray.text.label_sets import SEPARATOR, join_labels
from vtcav_ray.text.name_lists import lines_of
from vtcav_ray.videos.tables import ListTable

MOST_CHARACTERS = 1 << 28
MOST_VALUES = 20_000_000
ACTIVITYNET_PREFIX = "v_"  # of ActivityNet's files, before the id
AVA_SECONDS = 3.0  # an action of AVA is labelled at a keyframe, for the clip of 3 s around it
_AVA = re.compile(r"[\w-]{1,64},\d{1,6}(?:\.\d*)?(?:,[-+.\deE]*){4},\d*,\d*")
_ACTION = re.compile(r"(\S+)\s+(\S+)\s+(\S+)")
_SCHEMA = pa.schema([(name, pa.string()) for name in ("video_id", "labels", "split", "start", "end")])
Row = dict[str, str | None]


def is_ava(line: str) -> bool:
    """Return whether a line is one of AVA's: `video,middle second,x1,y1,x2,y2,action,person`, without a header."""
    return _AVA.fullmatch(line.strip()) is not None


def read_ava(text: str, where: str) -> ListTable:
    """Read AVA's CSV: one row per keyframe, with the actions of all persons in it as labels.

    Raises:
        ConfigError: a line has another form.
    """
    actions: dict[tuple[str, str], list[str]] = {}
    first: dict[tuple[str, str], int] = {}
    for number, line in enumerate(lines_of(text), start=1):
        if not line.strip():
            continue
        cells = line.strip().split(",")
        if not is_ava(line):
            raise ConfigError(f"{where}, line {number}: {line[:200]!r} is no line of AVA, as the first one is.")
        key = (cells[0], cells[1])
        first.setdefault(key, number)
        actions.setdefault(key, []).append(cells[6])
    rows: list[Row] = []
    for (video, second), labels in actions.items():
        middle = float(second)
        rows.append(
            {
                "video_id": video,
                "labels": join_labels(labels),
                "start": str(max(middle - AVA_SECONDS / 2, 0.0)),
                "end": str(middle + AVA_SECONDS / 2),
            }
        )
    return _list(rows, where, lines=list(first.values()))


def of_charades(listed: ListTable) -> ListTable | None:
    """Convert Charades' CSV, whose column `actions` has `c092 11.90 21.20;c147 0.00 12.60`; None if it is no such list.

    A video without actions becomes a row without a label.

    Raises:
        ConfigError: an action has another form.
    """
    names, actions = listed.column(("id",)), listed.column(("actions",))
    if names is None or actions is None:
        return None
    rows: list[Row] = []
    lines: list[int] = []
    for number, (name, text) in enumerate(zip(names, actions, strict=True)):
        parts = [part for part in (text or "").split(SEPARATOR) if part.strip()]
        for part in parts:
            action = _ACTION.fullmatch(part.strip())
            if action is None:
                raise ConfigError(
                    f"{listed.where}, {listed.place(number)}: the action {part[:80]!r} is not `CLASS START END`."
                )
            rows.append({"video_id": name, "labels": action[1], "start": action[2], "end": action[3]})
        if not parts:
            rows.append({"video_id": name})
        lines += [number + (listed.first_line or 1)] * max(len(parts), 1)
    return _list(rows, listed.where, lines=lines)


def read_activitynet(text: str, where: str) -> ListTable:
    """Read ActivityNet's JSON: `{"database": {id: {"subset": ..., "annotations": [{"segment": ..., "label": ...}]}}}`.

    A video without annotations (the test subset) becomes a row without a label.

    Raises:
        ConfigError: the file has another form.
    """
    try:
        data = read_json(text, most_characters=MOST_CHARACTERS, most_values=MOST_VALUES)
    except UnreadableText as error:
        raise ConfigError(f"{where} is not JSON: {error}") from error
    database = data.get("database") if isinstance(data, dict) else None
    if not isinstance(database, dict) or not database:
        raise ConfigError(
            f"{where} is not ActivityNet's JSON: it has no `database` of videos. Give other lists as JSON Lines "
            "(.jsonl), CSV or Parquet."
        )
    rows: list[Row] = []
    for name, video in database.items():
        rows += _of_activitynet(name, video, where)
    return _list(rows, where, prefix=ACTIVITYNET_PREFIX)


def _of_activitynet(name: str, video: Any, where: str) -> list[Row]:
    annotations = video.get("annotations", []) if isinstance(video, dict) else None
    if not isinstance(annotations, list):
        raise ConfigError(f"{where}: the video {name!r} has no list `annotations`.")
    split = None if video.get("subset") is None else str(video["subset"])
    rows: list[Row] = []
    for one in annotations:
        segment = one.get("segment") if isinstance(one, dict) else None
        if not (isinstance(segment, list) and len(segment) == 2 and one.get("label") is not None):
            raise ConfigError(f"{where}: an annotation of the video {name!r} lacks `label` or `segment: [start, end]`.")
        start, end = (str(second) for second in segment)
        rows.append({"video_id": name, "labels": str(one["label"]), "split": split, "start": start, "end": end})
    return rows or [{"video_id": name, "split": split}]


def _list(rows: Sequence[Row], where: str, *, lines: list[int] | None = None, prefix: str = "") -> ListTable:
    table = pa.Table.from_pylist(list(rows), schema=_SCHEMA)
    return ListTable(table, where, None, lines=lines, by_name=True, prefix=prefix)
