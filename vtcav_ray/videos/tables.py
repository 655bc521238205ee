"""Read lists of videos and labels as tables: CSV, TSV, JSON Lines, Parquet, and lists of lines `PATH LABEL`.

All cells are text; several labels of a row are one text (`vtcav_ray.text.label_sets`). Kinetics' own lists name a video
by `youtube_id`, `time_start` and `time_end`: such a row means a file that was cut to these times, named
`-0dlk_2SXC0_000010_000020`, or else the segment of a whole file named by the `youtube_id` alone. `published` reads the
files of other data sets.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from vtcav_ray.errors import ConfigError
from vtcav_ray.store.reading import MAX_TABLE_BYTES
from vtcav_ray.text.bounded_text import UnreadableText, read_json
from vtcav_ray.text.label_sets import SEPARATOR, join_labels
from vtcav_ray.text.name_lists import as_numbers, lines_of

ID_COLUMNS = ("video_id", "id")
URI_COLUMNS = ("uri", "url", "path", "file", "filename", "video")
LABEL_COLUMNS = ("label", "class", "class_name")
SPLIT_COLUMNS = ("split",)
LABELS_COLUMNS = ("labels",)  # several, with `;` between them, or a list
START_COLUMNS, END_COLUMNS = ("start",), ("end",)  # of a segment, seconds or hh:mm:ss
SOURCE_COLUMNS = ("source",)  # the source video that a file is a part of
KINETICS = ("youtube_id", "time_start", "time_end")
KNOWN = frozenset({
    *ID_COLUMNS, *URI_COLUMNS, *LABEL_COLUMNS, *SPLIT_COLUMNS, *KINETICS,
    *LABELS_COLUMNS, *START_COLUMNS, *END_COLUMNS, *SOURCE_COLUMNS,
})  # fmt: skip
JSON_LINES = (".jsonl", ".ndjson")
TEXT_LISTS = (".csv", ".tsv", ".txt", ".lst", ".list")
MANIFESTS = (*TEXT_LISTS, *JSON_LINES, ".json", ".parquet")
WHAT_A_MANIFEST_IS = (
    "A manifest is a .csv, .tsv, .jsonl or .parquet table with a column `uri` (and, if you have them, `video_id`, "
    "`label` or `labels`, `split`, `start`, `end`, `source`), a text file with a line `PATH` or `PATH LABEL` per "
    "video, or the label file of Kinetics, ActivityNet, Charades or AVA."
)
MAX_TABLE_ROWS = 10_000_000
_ROWS_AT_ONCE = 65_536
_DELIMITERS = (",", ";", "\t", "|")
_EXTENSION = r"\.(?:[A-Za-z][A-Za-z0-9]{1,4}|3gp|3gpp|3g2|264|265)"
_FILE_AND_LABEL = re.compile(rf"(.+{_EXTENSION})\"?\s*[\s,;|]\s*(\S.*)")
_FILE = re.compile(rf"\S.*{_EXTENSION}\"?")
_NAME_AND_NUMBER = re.compile(r"(.*\S)\s*[\s,;|]\s*(\d{1,9})")
_NUMBERS = re.compile(r"\d+(?:[\s,;|]+\d+)+")


@dataclass(frozen=True)
class Candidate:
    """A name that a row's file may have. `cut`: a file of this name holds the row's segment and nothing else."""

    name: str
    cut: bool = False


@dataclass(frozen=True)
class ListTable:
    """A list of videos or labels.

    Attributes:
        table: text; at least one row.
        where: its path.
        first_line: of the first row in the file, from 1; None if it has no lines.
        headless: the columns are `uri` and `label` by the form of its lines; the file does not name them.
        lines: of each row in the file, from 1, where rows are not consecutive lines.
        by_name: its `video_id` names a file by the end of its path; the list has no paths.
        prefix: files may have it before their name.
    """

    table: pa.Table
    where: str
    first_line: int | None
    headless: bool = False
    lines: Sequence[int] | None = None
    by_name: bool = False
    prefix: str = ""

    def place(self, row: int) -> str:
        """Return where a row (from 0) is, for messages."""
        if self.lines is not None:
            return f"line {self.lines[row]}"
        return f"row {row + 1}" if self.first_line is None else f"line {row + self.first_line}"

    def column(self, names: Iterable[str]) -> list[str | None] | None:
        """Return the values of the first of these columns that the table has, or None.

        Raises:
            ConfigError: the table has two columns of that name.
        """
        found = [n.lower().strip() for n in self.table.column_names]
        for name in names:
            if found.count(name) > 1:
                raise ConfigError(
                    f"{self.where} has {found.count(name)} columns `{name}`. Keep one, and rename the others."
                )
            if name in found:
                values = self.table.column(found.index(name)).to_pylist()
                return [str(v).strip() or None if v is not None else None for v in values]
        return None

    def labels(self) -> list[str | None] | None:
        """Return the text of each row's labels, with pandas' `3.0` as `3`; None if there is no column of labels.

        A column `labels` holds several per row. A row without any takes the one of the column `label`.
        """
        found = self.column(LABEL_COLUMNS)
        one = as_numbers(found) if found is not None else None
        if (several := self.column(LABELS_COLUMNS)) is None:
            return one
        return [
            join_labels((text or "").split(SEPARATOR)) or label
            for text, label in zip(several, one or [None] * len(several), strict=True)
        ]

    def splits(self) -> list[str | None] | None:
        """Return the column of splits, or None."""
        return self.column(SPLIT_COLUMNS)

    def sources(self) -> list[str | None] | None:
        """Return the column of source videos, or None."""
        return self.column(SOURCE_COLUMNS)

    def times(self) -> tuple[list[str | None] | None, list[str | None] | None]:
        """Return the columns of starts and ends as they are written, or None.

        Kinetics' times count only if the list has no paths: a path may lead to a file that was cut already.
        """
        if self.of_kinetics:
            return self.column(("time_start",)), self.column(("time_end",))
        return self.column(START_COLUMNS), self.column(END_COLUMNS)

    @property
    def of_kinetics(self) -> bool:
        """Whether the list names videos by `youtube_id` alone."""
        names = {name.lower().strip() for name in self.table.column_names}
        return "youtube_id" in names and not names & {*ID_COLUMNS, *URI_COLUMNS}

    def candidates(self) -> list[tuple[Candidate, ...]] | None:
        """Return the possible names of each row's file, most likely first; None: the list has none but paths.

        A row without a name has no candidates.
        """
        if self.of_kinetics and (ids := self.column(("youtube_id",))) is not None:
            starts, ends = self.column(("time_start",)), self.column(("time_end",))
            if starts is None or ends is None:
                return [(Candidate(name),) if name else () for name in ids]
            return [_of_kinetics(*row) for row in zip(ids, starts, ends, strict=True)]
        if (ids := self.column(ID_COLUMNS)) is None:
            return None
        extra = (self.prefix,) if self.prefix else ()
        return [tuple(Candidate(p + name) for p in ("", *extra)) if name else () for name in ids]


def read_text(text: str, path: str) -> ListTable:
    """Read CSV with any delimiter if its header has a known column, else lines `PATH LABEL`."""
    head = next((line for line in lines_of(text[:_ROWS_AT_ONCE]) if line.strip()), "")
    delimiter = next((d for d in _DELIMITERS if KNOWN & set(_cells(head, d))), None)
    if delimiter is None:
        if (lines := _read_lines(text, path)) is not None:
            return lines
        # The caller says which column is missing.
        delimiter = "\t" if path.lower().endswith(".tsv") else ","
    # Read as text: ids such as 007 must not become numbers.
    data, parse = text.encode(), pyarrow.csv.ParseOptions(delimiter=delimiter)
    names = pyarrow.csv.read_csv(pa.BufferReader(data), parse_options=parse).column_names
    as_text = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True)
    table = pyarrow.csv.read_csv(pa.BufferReader(data), parse_options=parse, convert_options=as_text)
    return ListTable(table, path, 2)


def _cells(line: str, delimiter: str) -> list[str]:
    cells = next(csv.reader([line], delimiter=delimiter), [])
    return [cell.strip().lower() for cell in cells]


def _read_lines(text: str, path: str) -> ListTable | None:
    """Read lines `PATH LABEL`, as MMAction2 and others write them; None if the first line is none.

    Raises:
        ConfigError: a later line is none, or a line lists a folder of frames or several labels.
    """
    paths: list[str | None] = []
    labels: list[str | None] = []
    for number, line in enumerate(lines_of(text), start=1):
        line = line.strip()
        pair = _path_and_label(line) if line else (None, None)
        if pair is None:
            if not any(paths):
                return None
            raise ConfigError(f"{path}, line {number}: {line[:200]!r} is neither `PATH` nor `PATH LABEL`.")
        if pair[1] is not None and _NUMBERS.fullmatch(pair[1]):
            raise ConfigError(
                f"{path}, line {number}: {line[:200]!r} has several numbers after the path. A list of folders of "
                "frames or of several labels per video is not read; give one label per video file."
            )
        paths.append(pair[0])
        labels.append(pair[1])
    if not any(paths):
        return None
    while paths and paths[-1] is None:
        paths.pop()
        labels.pop()
    table = pa.table({"uri": pa.array(paths, pa.string()), "label": pa.array(labels, pa.string())})
    return ListTable(table, path, 1, headless=True)


def _path_and_label(line: str) -> tuple[str, str | None] | None:
    if (found := _FILE_AND_LABEL.fullmatch(line)) is not None:
        return found[1].strip('"'), found[2].strip().strip('"')
    if _FILE.fullmatch(line):
        return line.strip('"'), None
    if (found := _NAME_AND_NUMBER.fullmatch(line)) is not None:
        frames = re.fullmatch(r"(.*\S)\s+(\d+)", found[1])
        return (frames[1], f"{frames[2]} {found[2]}") if frames is not None else (found[1].strip('"'), found[2])
    return None


def read_json_lines(text: str, path: str) -> ListTable:
    rows: list[dict[str, str | None]] = []
    for number, line in enumerate(lines_of(text), start=1):
        if not line.strip():
            rows.append({})
            continue
        try:
            row = read_json(line)
        except UnreadableText as error:
            raise ConfigError(f"{path}, line {number}, is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ConfigError(f'{path}, line {number}, is not a JSON object such as {{"uri": ..., "label": ...}}.')
        known = {str(key).lower().strip(): value for key, value in row.items()}
        rows.append({key: _cell(value, f"{path}, line {number}") for key, value in known.items() if key in KNOWN})
    while rows and not rows[-1]:
        rows.pop()
    names = sorted({key for row in rows for key in row})
    return ListTable(pa.table({n: pa.array([row.get(n) for row in rows], pa.string()) for n in names}), path, 1)


def _cell(value: Any, where: str) -> str | None:
    """Return a value as text, a list of labels with `;` between them.

    Raises:
        ConfigError: a label in a list has a `;`.
    """
    if isinstance(value, list):
        labels = [str(one) for one in value if one is not None]
        if bad := [label for label in labels if SEPARATOR in label]:
            raise ConfigError(f"{where}: the label {bad[0]!r} has a `{SEPARATOR}`, which separates labels. Rename it.")
        return join_labels(labels)
    return None if value is None else str(value)


def read_parquet(parquet: pq.ParquetFile, path: str) -> pa.Table:
    """Read in pieces and count their size: a few kilobytes of Parquet may expand to a billion rows."""
    wanted = list({n: None for n in parquet.schema_arrow.names if n.lower().strip() in KNOWN})
    pieces, rows, held = [], 0, 0
    for piece in parquet.iter_batches(_ROWS_AT_ONCE, columns=wanted, use_threads=False):
        rows, held = rows + piece.num_rows, held + piece.nbytes
        check_size(rows, held, path)
        pieces.append(piece)
    schema = pa.schema([field for field in parquet.schema_arrow if field.name in wanted])
    table = pa.Table.from_batches(pieces, pieces[0].schema if pieces else schema)
    table.validate(full=True)  # else invalid UTF-8 would be reported much later
    for place, field in enumerate(table.schema):
        if pa.types.is_list(field.type) or pa.types.is_large_list(field.type):
            texts = [_cell(value, f"{path}, row {row + 1}") for row, value in enumerate(table[place].to_pylist())]
            table = table.set_column(place, field.name, pa.array(texts, pa.string()))
    return table


def check_size(rows: int, held: int, path: str) -> None:
    if rows > MAX_TABLE_ROWS or held > MAX_TABLE_BYTES:
        raise ConfigError(
            f"{path} has more than {MAX_TABLE_ROWS:,} rows or {MAX_TABLE_BYTES:,} bytes in memory, the maximum. "
            "Split it, and run on the parts."
        )


def _of_kinetics(name: str | None, start: str | None, end: str | None) -> tuple[Candidate, ...]:
    if not (name and start and end):
        return (Candidate(name),) if name else ()
    return Candidate(f"{name}_{_seconds(start)}_{_seconds(end)}", cut=True), Candidate(name)


def _seconds(text: str) -> str:
    """Return a time in seconds as Kinetics' file names have it."""
    whole = text.partition(".")[0]
    return f"{int(whole):06d}" if whole.isdecimal() and len(whole) < 10 else text
