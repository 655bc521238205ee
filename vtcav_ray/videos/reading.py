"""Read a list of videos or labels from any fsspec URL, in any of its forms."""

from __future__ import annotations

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from vtcav_ray.errors import ConfigError
from vtcav_ray.store.reading import MAX_TABLE_BYTES, read_at_most
from vtcav_ray.text.name_lists import BadNames, decoded, lines_of
from vtcav_ray.videos.published import is_ava, of_charades, read_activitynet, read_ava
from vtcav_ray.videos.tables import (
    JSON_LINES,
    TEXT_LISTS,
    ListTable,
    check_size,
    read_json_lines,
    read_parquet,
    read_text,
)

MAX_HEAD = 65_536  # characters in which the first line is looked for


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
            return ListTable(read_parquet(pq.ParquetFile(pa.BufferReader(data), pre_buffer=False), path), path, None)
        found = _of_text(decoded(data), path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a readable table: {error}") from error
    except BadNames as error:
        raise ConfigError(f"{path} is not a readable table: it {error}.") from error
    check_size(found.table.num_rows, found.table.nbytes, path)
    return found


def _of_text(text: str, path: str) -> ListTable:
    name = path.lower()
    if name.endswith(".json"):
        return read_activitynet(text, path)
    if name.endswith(JSON_LINES):
        return read_json_lines(text, path)
    head = next((line for line in lines_of(text[:MAX_HEAD]) if line.strip()), "")
    if name.endswith(TEXT_LISTS) and is_ava(head):
        return read_ava(text, path)
    found = read_text(text, path)
    return of_charades(found) or found
