"""Tables of video names and labels (CSV, Parquet), and how labels are matched to videos.

A label matches a video by id, with or without the extension. Otherwise it matches by file name alone, but only if
exactly one video and one line of the table have that name: `lift/001.mp4` does not label `push/001.mp4`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from vtcav_ray.errors import ConfigError
from vtcav_ray.store.reading import MAX_TABLE_BYTES, read_at_most

logger = logging.getLogger(__name__)

ID_COLUMNS = ("video_id", "id")
URI_COLUMNS = ("uri", "url", "path", "file", "filename", "video")
LABEL_COLUMNS = ("label", "class", "class_name")
SPLIT_COLUMNS = ("split",)
MAX_TABLE_ROWS = 10_000_000
_ROWS_AT_ONCE = 65_536


def read_table(fs: fsspec.AbstractFileSystem, path: str) -> pa.Table:
    """Read a CSV file as text, or the known columns of a Parquet file.

    Raises:
        ConfigError: the file is neither CSV nor Parquet, is not UTF-8, or has more than MAX_TABLE_BYTES or
            MAX_TABLE_ROWS.
        OSError: permission is missing, or the network failed.
    """
    with fs.open(path, "rb") as file:
        data = read_at_most(file, MAX_TABLE_BYTES, path)
    try:
        if path.lower().endswith(".parquet"):
            return _read_parquet(pq.ParquetFile(pa.BufferReader(data), pre_buffer=False), path)
        # Read as text: ids such as 007 must not become numbers.
        head = pyarrow.csv.read_csv(pa.BufferReader(data)).column_names
        as_text = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(head, pa.string()), strings_can_be_null=True)
        table = pyarrow.csv.read_csv(pa.BufferReader(data), convert_options=as_text)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a readable table: {error}") from error
    _check_size(table.num_rows, table.nbytes, path)
    return table


def _read_parquet(parquet: pq.ParquetFile, path: str) -> pa.Table:
    """Read in pieces and count their size: a few kilobytes of Parquet may expand to a billion rows."""
    known = {*ID_COLUMNS, *URI_COLUMNS, *LABEL_COLUMNS, *SPLIT_COLUMNS}
    wanted = list({n: None for n in parquet.schema_arrow.names if n.lower().strip() in known})
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


def column(table: pa.Table, names: Iterable[str], where: str) -> list[str | None] | None:
    """Return the values of the first of these columns that the table has, or None.

    Raises:
        ConfigError: the table has two columns of that name.
    """
    found = [n.lower().strip() for n in table.column_names]
    for name in names:
        if found.count(name) > 1:
            raise ConfigError(f"{where} has {found.count(name)} columns `{name}`. Keep one, and rename the others.")
        if name in found:
            values = table.column(found.index(name)).to_pylist()
            return [str(v).strip() or None if v is not None else None for v in values]
    return None


def put_labels(rows: list[dict[str, Any]], table: pa.Table, where: str) -> None:
    """Set labels (and splits) on the rows, matched as described at the top of this module.

    Raises:
        ConfigError: the columns are missing, a column occurs twice, or no video matches.
    """
    names = column(table, ID_COLUMNS, where)
    if names is None:
        names = column(table, URI_COLUMNS, where)
    labels = column(table, LABEL_COLUMNS, where)
    if names is None or labels is None:
        raise ConfigError(f"{where} needs the columns `video_id` (or `uri`) and `label`; it has {table.column_names}.")
    splits = column(table, SPLIT_COLUMNS, where) or [None] * len(names)
    given: dict[str, tuple[str | None, str | None]] = {}
    for name, label, split in zip(names, labels, splits, strict=True):
        if name:
            given.setdefault(name, (label, split))
    named = _by_key(given)
    sharing = _by_key(row["video_id"] for row in rows)
    matched, unclear = 0, []
    for row in rows:
        name = row["video_id"]
        if name not in given:
            key = next((key for key in _keys(name) if key in named), None)
            if key is None:
                continue
            if len(named[key]) > 1 or len(sharing[key]) > 1:
                unclear.append(name)
                continue
            (name,) = named[key]
        row["label"], row["split"] = given[name][0] or None, given[name][1] or row["split"]
        matched += 1
    if unclear:
        logger.warning(
            "%s gives no label to %d videos, such as %s: several videos, or lines of the table, share that file name. "
            "Name them there with their folder.",
            where,
            len(unclear),
            unclear[0],
        )
    if not matched:
        hint = f" {unclear[0]} is one of several with that file name: give the folder, too." if unclear else ""
        raise ConfigError(
            f"{where} has labels for none of the {len(rows)} videos; its first name is {names[:1]}.{hint}"
        )


def _by_key(names: Iterable[str]) -> dict[str, set[str]]:
    """Map each key to the names that have it."""
    found: dict[str, set[str]] = {}
    for name in names:
        for key in _keys(name):
            found.setdefault(key, set()).add(name)
    return found


def _keys(name: str) -> tuple[str, ...]:
    """Return the keys of a name, most specific first: the name, without extension, and both without the folder."""
    file = name.rsplit("/", 1)[-1]
    stem = file.rsplit(".", 1)[0]
    return name, name[: len(name) - len(file)] + stem, file, stem
