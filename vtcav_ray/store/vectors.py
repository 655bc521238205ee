"""Vectors in Arrow tables: convert columns to arrays and back, and join parts of a table without a second copy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa


def concatenated(parts: Sequence[pa.Table]) -> pa.Table:
    """Concatenate parts of one table, of one or several layers. There is at least one part."""
    if len({part.schema for part in parts}) > 1:
        parts = [_with_variable_vectors(part) for part in parts]
    return pa.concat_tables(parts).combine_chunks()


def joined(parts: Iterator[pa.Table], rows: int) -> pa.Table | None:
    """Join tables of one schema; return None if there are no parts.

    Vectors are written to their final place as each part arrives, so there is never a second copy of all of them.

    Args:
        parts: in order; all their vectors have the same length.
        rows: maximum number of rows in total: parts may be read without some of their rows.
    """
    others: list[pa.Table] = []
    flat: np.ndarray | None = None
    index, at = -1, 0
    schema = None
    for part in parts:
        schema = part.schema
        index = schema.get_field_index("vector")
        if index >= 0:
            numbers = np.asarray(_one_chunk(part["vector"]).flatten())
            if flat is None:
                flat = np.empty(rows * schema.field(index).type.list_size, numbers.dtype)
            flat[at : at + len(numbers)] = numbers
            at += len(numbers)
            part = part.remove_column(index)
        others.append(part)
    if schema is None:
        return None
    table = pa.concat_tables(others).combine_chunks()
    if flat is None:
        return table
    field = schema.field(index)
    column = pa.FixedSizeListArray.from_arrays(pa.array(flat[:at]), field.type.list_size)
    return table.add_column(index, field, column) if table.num_columns else pa.table([column], pa.schema([field]))


def vector_array(vectors_Nd: np.ndarray) -> pa.FixedSizeListArray:
    """Return vectors [N, d], float32 or float16, as a column."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(vectors_Nd).ravel()), vectors_Nd.shape[1])


def vectors_of(table: pa.Table) -> np.ndarray:
    """Return the column `vector` as float32 [N, d], without a copy if it is float32 in one chunk, as from `read`."""
    column = _one_chunk(table["vector"])
    return np.asarray(column.flatten(), np.float32).reshape(table.num_rows, column.type.list_size)


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()  # `combine_chunks` always copies


def _with_variable_vectors(table: pa.Table) -> pa.Table:
    index = table.schema.get_field_index("vector")
    return table.set_column(index, "vector", table["vector"].cast(pa.list_(pa.float32())))
