"""Text in CSV files that a spreadsheet would read as a formula, written so that it does not.

A cell that starts with `= + - @`, a tab or a line break is a formula to spreadsheets, and may run programs or send data
away. As OWASP advises, such a cell starts with a single quote here, which spreadsheets hide. Numbers stay as they are.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

import pyarrow as pa

_FORMULA = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_QUOTED_FORMULA = re.compile(r"'+[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(inf|nan)", re.ASCII)


def as_text(cell: str) -> str:
    """A cell that no spreadsheet reads as a formula; `from_text` gives the original back."""
    if _QUOTED_FORMULA.match(cell) or (_FORMULA.match(cell) and not _NUMBER.fullmatch(cell)):
        return f"'{cell}"
    return cell


def from_text(cell: str) -> str:
    """What `as_text` was given."""
    return cell[1:] if _QUOTED_FORMULA.match(cell) else cell


def csv_line(cells: Sequence[str]) -> str:
    """One line of a CSV file. Python's writer leaves a lone carriage return bare, which no reader takes back."""
    sink = io.StringIO(newline="")
    bare = any("\r" in cell for cell in cells)
    csv.writer(sink, lineterminator="\n", quoting=csv.QUOTE_ALL if bare else csv.QUOTE_MINIMAL).writerow(cells)
    return sink.getvalue()


def without_formulas(rows: pa.Table) -> pa.Table:
    """A table whose text columns, and their names, are safe in a CSV file. Other columns are numbers, and stay."""
    columns = []
    for column in rows.columns:
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            cells = [None if cell is None else as_text(cell) for cell in column.to_pylist()]
            column = pa.chunked_array([pa.array(cells, column.type)])
        columns.append(column)
    return pa.table(columns, names=[as_text(name) for name in rows.column_names])
