"""Schemas and tables from dataclasses of rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import pyarrow as pa

Float32 = Annotated[float, pa.float32()]
Counts = Annotated[Sequence[int], pa.list_(pa.int32())]
Floats = Annotated[Sequence[float], pa.list_(pa.float32())]
_TYPES = {str: pa.string(), bool: pa.bool_(), int: pa.int32(), float: pa.float64()}
Row = TypeVar("Row")


def schema_of(row_type: type) -> pa.Schema:
    """Return the schema of a table whose rows are of this dataclass."""
    hints = get_type_hints(row_type, include_extras=True)
    return pa.schema([(_column(name), _arrow_type(hints[name])) for name in _field_names(row_type)])


def table_of(rows: Sequence[Row], row_type: type[Row]) -> pa.Table:
    """Return rows as a table, with the schema of their dataclass also where there are none. None becomes null."""
    columns = {_column(name): [getattr(row, name) for row in rows] for name in _field_names(row_type)}
    return pa.table(columns, schema=schema_of(row_type))


def read_rows(table: pa.Table, row_type: type[Row]) -> list[Row]:
    """Return a table's rows as dataclasses.

    Raises:
        KeyError: the table lacks a column.
    """
    names = _field_names(row_type)
    columns = [table[_column(name)].to_pylist() for name in names]
    return [row_type(**dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)]


def _field_names(row_type: type) -> list[str]:
    return [field.name for field in dataclasses.fields(row_type)]


def _column(field_name: str) -> str:
    return field_name.removesuffix("_")


def _arrow_type(hint: Any) -> pa.DataType:
    if get_origin(hint) is UnionType:  # `str | None`: every column may hold nulls
        (hint,) = (part for part in get_args(hint) if part is not NoneType)
    return get_args(hint)[1] if get_origin(hint) is Annotated else _TYPES[hint]
