"""Names of columns: a clear error for one that a table does not have, that was renamed, or that an old run has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa

from vtcav_ray import stages, tables
from vtcav_ray.errors import ConfigError


def schema_of_table(table: str) -> pa.Schema:
    """Return the columns of a table, or of a side table that can be printed."""
    schema: pa.Schema = tables.SIDE_SCHEMAS[table] if table in stages.PRINTED else tables.EMPTY_SCHEMAS[table]
    return schema


def check_columns(table: str, columns: Sequence[str] | None) -> None:
    """Check that a table has the wanted columns.

    Raises:
        ConfigError: it does not have one of them. If the column was renamed, the message gives its name today.
    """
    known = schema_of_table(table).names
    for name in columns or ():
        if name in known:
            continue
        if name in tables.RENAMED.get(table, {}):
            raise ConfigError(
                f"The table `{table}` has no column `{name}`: it is now called `{tables.RENAMED[table][name]}`."
            )
        raise ConfigError(f"The table `{table}` has no column `{name}`. It has: {', '.join(known)}.")


def with_marker(table: str, columns: Sequence[str] | None) -> Sequence[str] | None:
    """Add a column that shows whether a stored table has today's columns; old ones had other figures under its names.

    Without it, an old table would be taken for a new one if all wanted columns exist in both.
    """
    if columns is None or table not in tables.MARKER:
        return columns
    return list(dict.fromkeys([*columns, tables.MARKER[table]]))


def check_stored(found: pa.Table, table: str, url: str) -> None:
    """Check that a stored table has today's columns.

    Args:
        found: all columns of the table, or those of `with_marker`.
        table: its name.
        url: of the run.

    Raises:
        ConfigError: an older version of vtcav-ray wrote it.
    """
    if table in tables.MARKER and tables.MARKER[table] not in found.column_names:
        raise _old(table, url)


@contextmanager
def old_tables_reported(table: str, url: str) -> Iterator[None]:
    """Report a stored table that lacks a wanted column, all of which `check_columns` knows.

    Raises:
        ConfigError: an older version of vtcav-ray wrote it.
    """
    try:
        yield
    except KeyError as error:  # from Arrow's selection of columns
        raise _old(table, url) from error


def _old(table: str, url: str) -> ConfigError:
    return ConfigError(
        f"The table `{table}` of {url} is from an older version of vtcav-ray and has other columns. Repeat `vtcav "
        f"run` with its config and `--out {url}`: it recomputes what changed and reuses the rest."
    )
