"""Print a table of a run as text, CSV, JSON lines or Parquet.

Cells hold names from outside: markup in them is not interpreted, and formulas are escaped.
"""

from __future__ import annotations

import json
import math
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vtcav_ray.cli.terminal import printable
from vtcav_ray.store.commits import parquet_bytes
from vtcav_ray.tables import CELL_KEY
from vtcav_ray.text.csv_text import without_formulas

FORMATS = ("table", "csv", "json", "parquet")
CELL_WIDTH = 28


def print_table(rows: pa.Table, form: str, console: Console, stream: BinaryIO) -> None:
    """Write `rows` in one of FORMATS: `table` to the console, with shortened cells; the others in full, to `stream`."""
    if form == "parquet":
        stream.write(parquet_bytes(rows))
    elif form == "csv":
        pyarrow.csv.write_csv(without_formulas(_flat(rows)), stream)
    elif form == "json":
        for batch in rows.to_batches(max_chunksize=1024):
            for row in batch.to_pylist():
                line = json.dumps(_without_nan(row), default=_shown_bytes, ensure_ascii=False, allow_nan=False)
                stream.write(line.encode() + b"\n")
    else:
        print_wide(_rich_table(rows), console)
    stream.flush()


def print_wide(table: Table, console: Console) -> None:
    """Print a table at its full width: a pager can scroll sideways, but squeezed columns are unreadable."""
    width = max(console.width, console.measure(table, options=console.options.update(width=100_000)).maximum)
    Console(file=console.file, width=width, force_terminal=console.is_terminal).print(table)


def _without_nan(row: dict[str, Any]) -> dict[str, Any]:
    """Replace NaN and infinity by null, since JSON has neither."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def _flat(rows: pa.Table) -> pa.Table:
    """Turn lists into JSON, since CSV has no lists."""
    columns = []
    for name in rows.column_names:
        column = rows[name]
        if pa.types.is_nested(column.type):
            column = pa.array([None if v is None else json.dumps(v) for v in column.to_pylist()], pa.string())
        elif pa.types.is_binary(column.type):
            column = pa.array([None if v is None else _shown_bytes(v) for v in column.to_pylist()], pa.string())
        columns.append(column)
    return pa.table(columns, names=rows.column_names)


def _shown_bytes(value: bytes) -> str:
    return f"<{len(value)} bytes>"


def print_interventions(rows: pa.Table, as_json: bool, console: Console) -> None:
    """Print the rows of `interventions` as a table or as one JSON list."""
    if as_json:
        print(json.dumps(rows.to_pylist()))
        return
    shown = Table(
        caption="change of the class's logit when step x (mean concept - mean other side) is added to the layer's "
        "activation, over n class videos",
        caption_justify="left",
    )
    for name in CELL_KEY:
        shown.add_column(name)
    for name in ("step", "predicted", "real", "± sd", "real / predicted", "n"):
        shown.add_column(name, justify="right")
    for row in rows.to_pylist():
        ratio = row["real"] / row["predicted"] if row["predicted"] else float("nan")
        figures = [f"{row['step']:+g}", *(f"{row[k]:+.3f}" for k in ("predicted", "real"))]
        figures += [f"{row['real_sd']:.3f}", f"{ratio:.2f}", str(row["n"])]
        shown.add_row(*(as_cell(row[k]) for k in CELL_KEY), *figures)
    console.print(shown)


def _rich_table(rows: pa.Table) -> Table:
    shown = Table(caption=f"{rows.num_rows:,} rows", caption_justify="left")
    for name in rows.column_names:
        numeric = pa.types.is_floating(rows.schema.field(name).type) or pa.types.is_integer(
            rows.schema.field(name).type
        )
        shown.add_column(name, justify="right" if numeric else "left", no_wrap=True)
    for row in rows.to_pylist():
        shown.add_row(*(as_cell(value) for value in row.values()))
    return shown


def as_cell(value: Any) -> Text:
    """Return a value as the text of a table's cell, shortened."""
    if value is None:
        return Text()
    if isinstance(value, bytes):
        return Text(_shown_bytes(value))
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return Text(printable(text if len(text) <= CELL_WIDTH else text[: CELL_WIDTH - 1] + "…"))
