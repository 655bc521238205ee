"""Match the lines of a list of labels to videos.

A label matches a video by id, with or without the extension. Otherwise it matches by file name alone, but only if
exactly one video and one line of the table have that name: `lift/001.mp4` does not label `push/001.mp4`. Names are
compared in Unicode's composed form; `file:///a%20b` and `./a b` are decoded first.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import unquote

from vtcav_ray.errors import ConfigError
from vtcav_ray.videos.annotations import Annotation, annotations_of, put
from vtcav_ray.videos.tables import URI_COLUMNS, Candidate, ListTable

_MOST_SHOWN = 5
_MOST_COMPARED = 5_000  # names among which the nearest is looked for


def put_labels(rows: list[dict[str, Any]], listed: ListTable) -> list[str]:
    """Set labels (and splits) on the rows, matched as described at the top of this module.

    Returns:
        Warnings: lines that match no video, and videos that several lines could mean.

    Raises:
        ConfigError: the columns are missing, a column occurs twice, a video has two labels, or no video matches.
    """
    where = listed.where
    names = listed.candidates()
    if names is None and (paths := listed.column(URI_COLUMNS)) is not None:
        names = [(Candidate(path),) if path else () for path in paths]
    if names is None or listed.labels() is None:
        raise ConfigError(
            f"{where} needs the columns `video_id` (or `uri`) and `label`; it has {listed.table.column_names}."
        )
    given, line_of, warnings = _given(rows, listed, names)
    matched, unclear = _match(rows, given)
    if unclear:
        warnings.append(
            f"{where} gives no label to {len(unclear)} videos, such as {unclear[0]}: several videos, or lines of the "
            "table, share that file name. Name them there with their folder."
        )
    if not matched:
        first = [some[0].name for some in names[:1] if some]
        hint = f" {unclear[0]} is one of several with that file name: give the folder, too." if unclear else ""
        raise ConfigError(
            f"{where} has labels for none of the {len(rows)} videos; its first name is {first[:1]}"
            f"{_nearest(first[0], rows) if first else ''}.{hint}"
        )
    if left := [name for name in given if name not in matched]:
        lines = [f"{listed.place(line_of[n])}: {n!r}{_nearest(n, rows)}" for n in left[:_MOST_SHOWN]]
        more = f"; and {len(left) - _MOST_SHOWN} more" if len(left) > _MOST_SHOWN else ""
        warnings.append(f"{len(left)} names in {where} match no video: {'; '.join(lines)}{more}.")
    return warnings


def _given(
    rows: Sequence[dict[str, Any]], listed: ListTable, names: Sequence[tuple[Candidate, ...]]
) -> tuple[dict[str, list[Annotation]], dict[str, int], list[str]]:
    """Return the lines of each name, the first row of each name, and warnings about lines that can't be used."""
    known = {key for row in rows for name in (row["video_id"], row["uri"]) for key in name_keys(plain_name(name))}
    given: dict[str, list[Annotation]] = {}
    line_of: dict[str, int] = {}
    faults: list[str] = []
    for row, (some, line) in enumerate(zip(names, annotations_of(listed), strict=True)):
        if not some:
            continue
        chosen = next((one for one in some if known & set(name_keys(plain_name(one.name)))), some[0])
        name = plain_name(chosen.name)
        line = line.untimed() if chosen.cut else line
        line_of.setdefault(name, row)
        if line.fault:
            faults.append(f"{listed.place(row)}: {chosen.name!r}: {line.fault}")
            continue
        lines = given.setdefault(name, [])
        if lines and line.segment is None and lines[0].segment is None and lines[0].label != line.label:
            raise ConfigError(
                f"{listed.where} names {chosen.name!r} twice, with the labels {lines[0].label!r} "
                f"({listed.place(line_of[name])}) and {line.label!r} ({listed.place(row)}). Keep one, give each a "
                "`start` and an `end`, or put both in one line, in the column `labels`."
            )
        lines.append(line)
    if not faults:
        return given, line_of, []
    more = f"; and {len(faults) - _MOST_SHOWN} more" if len(faults) > _MOST_SHOWN else ""
    shown = "; ".join(faults[:_MOST_SHOWN])
    return given, line_of, [f"{len(faults)} lines of {listed.where} can't be used: {shown}{more}"]


def plain_name(name: str) -> str:
    """Return a name or URI of a list as ids are compared: decoded, with `/`, in Unicode's composed form."""
    if name.lower().startswith("file:"):
        name = unquote(name[5:])
        name = "/" + name.lstrip("/") if not name.startswith("//localhost/") else name[len("//localhost") :]
    name = name.replace("\\", "/")
    while name.startswith("./"):
        name = name[2:]
    return unicodedata.normalize("NFC", name)


def _match(rows: list[dict[str, Any]], given: dict[str, list[Annotation]]) -> tuple[set[str], list[str]]:
    """Set the labels. Return the names that matched, and the videos for which several names could be meant."""
    named = _by_key(given)
    ids = [plain_name(row["video_id"]) for row in rows]
    sharing = _by_key(ids)
    matched, unclear = set(), []
    for row, name in zip(rows, ids, strict=True):
        full = plain_name(row["uri"])
        if name not in given and full in given:
            name = full
        if name not in given:
            key = next((key for key in name_keys(name) if key in named), None)
            if key is None:
                continue
            if len(named[key]) > 1 or len(sharing[key]) > 1:
                unclear.append(row["video_id"])
                continue
            (name,) = named[key]
        put(row, given[name])
        matched.add(name)
    return matched, unclear


def _nearest(name: str, rows: list[dict[str, Any]]) -> str:
    """Return the nearest video's id as a clause; empty if none looks like it."""
    known = [plain_name(row["video_id"]) for row in rows[:_MOST_COMPARED]]
    near = difflib.get_close_matches(plain_name(name), known, n=1)
    return f" (nearest: {near[0]!r})" if near else ""


def _by_key(names: Iterable[str]) -> dict[str, set[str]]:
    """Map each key to the names that have it."""
    found: dict[str, set[str]] = {}
    for name in names:
        for key in name_keys(name):
            found.setdefault(key, set()).add(name)
    return found


def name_keys(name: str) -> tuple[str, ...]:
    """Return the keys of a name, most specific first: the name, without extension, and both without the folder."""
    file = name.rsplit("/", 1)[-1]
    stem = file.rsplit(".", 1)[0]
    return name, name[: len(name) - len(file)] + stem, file, stem
