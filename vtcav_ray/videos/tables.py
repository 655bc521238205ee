"""Read lists of videos and labels as tables: CSV, TSV, JSON Lines, Parquet, and lists of lines `PATH LABEL`.

All cells are text. Kinetics' own lists name a video by `youtube_id`, `time_start` and `time_end`; they get a column
`video_id` such as `-0dlk_2SXC0_000010_000020`, as the files are named.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from vtcav_ray.errors import ConfigError
from vtcav_ray.store.reading import MAX_TABLE_BYTES, read_at_most
from vtcav_ray.text.bounded_text import UnreadableText, read_json
from vtcav_ray.text.name_lists import BadNames, as_numbers, decoded, lines_of

ID_COLUMNS = ("video_id", "id")
URI_COLUMNS = ("uri", "url", "path", "file", "filename", "video")
LABEL_COLUMNS = ("label", "class", "class_name")
SPLIT_COLUMNS = ("split",)
SOURCE_COLUMNS = ("source",)  # of a manifest of own clips: the video that a clip is part of
START_COLUMNS, END_COLUMNS = ("start",), ("end",)  # of the part of the file
KINETICS = ("youtube_id", "time_start", "time_end")
KNOWN = frozenset(
    {*ID_COLUMNS, *URI_COLUMNS, *LABEL_COLUMNS, *SPLIT_COLUMNS, *KINETICS}
    | {*SOURCE_COLUMNS, *START_COLUMNS, *END_COLUMNS}
)
JSON_LINES = (".jsonl", ".ndjson")
TEXT_LISTS = (".csv", ".tsv", ".txt", ".lst", ".list")
MANIFESTS = (*TEXT_LISTS, *JSON_LINES, ".parquet")
WHAT_A_MANIFEST_IS = (
    "A manifest is a .csv, .tsv, .jsonl or .parquet table with a column `uri` (and, if you have them, `video_id`, "
    "`label`, `split`), or a text file with a line `PATH` or `PATH LABEL` per video."
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
class ListTable:
    """A list of videos or labels.

    Attributes:
        table: text; at least one row.
        where: its path.
        first_line: of the first row in the file, from 1; None if it has no lines.
        headless: the columns are `uri` and `label` by the form of its lines; the file does not name them.
    """

    table: pa.Table
    where: str
    first_line: int | None
    headless: bool = False

    def place(self, row: int) -> str:
        """Return where a row (from 0) is, for messages."""
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
        """Return the column of labels, with pandas' `3.0` as `3`; None if there is none."""
        found = self.column(LABEL_COLUMNS)
        return as_numbers(found) if found is not None else None

    def clip_names(self) -> list[str | None] | None:
        """Return the names of Kinetics' files, without extension; None if the table is no list of Kinetics."""
        if (ids := self.column(("youtube_id",))) is None:
            return None
        starts, ends = self.column(("time_start",)), self.column(("time_end",))
        if starts is None or ends is None:
            return ids
        return [
            f"{name}_{_seconds(start)}_{_seconds(end)}" if name and start and end else name
            for name, start, end in zip(ids, starts, ends, strict=True)
        ]


def read_table(fs: fsspec.AbstractFileSystem, path: str) -> ListTable:
    """Read a list as text, or the known columns of a Parquet file.

    Raises:
        ConfigError: the file is no such list, is not UTF-8, or has more than MAX_TABLE_BYTES or MAX_TABLE_ROWS.
        OSError: permission is missing, or the network failed.
    """
    with fs.open(path, "rb") as file:
        data = read_at_most(file, MAX_TABLE_BYTES, path)
    try:
        if path.lower().endswith(".parquet"):
            return ListTable(_read_parquet(pq.ParquetFile(pa.BufferReader(data), pre_buffer=False), path), path, None)
        text = decoded(data)
        read = _read_json_lines if path.lower().endswith(JSON_LINES) else _read_text
        found = read(text, path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a readable table: {error}") from error
    except BadNames as error:
        raise ConfigError(f"{path} is not a readable table: it {error}.") from error
    _check_size(found.table.num_rows, found.table.nbytes, path)
    return found


def _read_text(text: str, path: str) -> ListTable:
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


def _read_json_lines(text: str, path: str) -> ListTable:
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
        rows.append({key: None if value is None else str(value) for key, value in known.items() if key in KNOWN})
    while rows and not rows[-1]:
        rows.pop()
    names = sorted({key for row in rows for key in row})
    return ListTable(pa.table({n: pa.array([row.get(n) for row in rows], pa.string()) for n in names}), path, 1)


def _read_parquet(parquet: pq.ParquetFile, path: str) -> pa.Table:
    """Read in pieces and count their size: a few kilobytes of Parquet may expand to a billion rows."""
    wanted = list({n: None for n in parquet.schema_arrow.names if n.lower().strip() in KNOWN})
    pieces, rows, held = [], 0, 0
    for piece in parquet.iter_batches(_ROWS_AT_ONCE, columns=wanted, use_threads=False):
        rows, held = rows + piece.num_rows, held + piece.nbytes
        _check_size(rows, held, path)
        pieces.append(piece)
    schema = pa.schema([field for field in parquet.schema_arrow if field.name in wanted])
    table = pa.Table.from_batches(pieces, pieces[0].schema if pieces else schema)
    table.validate(full=True)  # else invalid UTF-8 would be reported much later
    return table


def _check_size(rows: int, held: int, path: str) -> None:
    if rows > MAX_TABLE_ROWS or held > MAX_TABLE_BYTES:
        raise ConfigError(
            f"{path} has more than {MAX_TABLE_ROWS:,} rows or {MAX_TABLE_BYTES:,} bytes in memory, the maximum. "
            "Split it, and run on the parts."
        )


def _seconds(text: str) -> str:
    """Return a time in seconds as Kinetics' file names have it."""
    whole = text.partition(".")[0]
    return f"{int(whole):06d}" if whole.isdecimal() and len(whole) < 10 else text
