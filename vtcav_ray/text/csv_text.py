"""Write text to CSV files so that a spreadsheet does not read it as a formula.

Spreadsheets treat a cell that starts with `= + - @`, a tab or a line break as a formula, which may run programs or send
data elsewhere. As OWASP advises, such a cell gets a leading single quote, which spreadsheets hide. Numbers do not
change.
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
    """Escape a cell so that no spreadsheet reads it as a formula; `from_text` restores the original."""
    if _QUOTED_FORMULA.match(cell) or (_FORMULA.match(cell) and not _NUMBER.fullmatch(cell)):
        return f"'{cell}"
    return cell


def from_text(cell: str) -> str:
    """Return the text that `as_text` escaped."""
    return cell[1:] if _QUOTED_FORMULA.match(cell) else cell


def csv_line(cells: Sequence[str]) -> str:
    """Return one line of a CSV file. Quote all cells if one has a carriage return, which Python leaves unquoted."""
    sink = io.StringIO(newline="")
    has_return = any("\r" in cell for cell in cells)
    csv.writer(sink, lineterminator="\n", quoting=csv.QUOTE_ALL if has_return else csv.QUOTE_MINIMAL).writerow(cells)
    return sink.getvalue()


def without_formulas(rows: pa.Table) -> pa.Table:
    """Escape a table's text columns and all column names for a CSV file. Other columns are numbers and stay as is."""
    columns = []
    for column in rows.columns:
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            cells = [None if cell is None else as_text(cell) for cell in column.to_pylist()]
            column = pa.chunked_array([pa.array(cells, column.type)])
        columns.append(column)
    return pa.table(columns, names=[as_text(name) for name in rows.column_names])
