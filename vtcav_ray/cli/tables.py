"""Print a table of a run as text, CSV, JSON, JSON lines or Parquet.

Cells hold names from outside: markup in them is not interpreted, and formulas are escaped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vtcav_ray import stages
from vtcav_ray.cli.terminal import printable
from vtcav_ray.runs.run import Run
from vtcav_ray.store.commits import parquet_bytes
from vtcav_ray.tables import CELL_KEY
from vtcav_ray.text.csv_text import without_formulas

FORMATS = ("table", "csv", "json", "jsonl", "parquet")
CELL_WIDTH = 28
WHOLE = ("message", "verdict")  # columns of sentences, which are never shortened


def print_table(rows: pa.Table, form: str, console: Console, stream: BinaryIO) -> None:
    """Write `rows` in one of FORMATS: `table` to the console, with shortened cells; the others in full, to `stream`."""
    if form == "parquet":
        stream.write(parquet_bytes(rows))
    elif form == "csv":
        pyarrow.csv.write_csv(without_formulas(_flat(rows)), stream)
    elif form == "json":
        separator = b"[\n"
        for line in _json_lines(rows):
            stream.write(separator + line)
            separator = b",\n"
        stream.write(b"\n]\n" if rows.num_rows else b"[]\n")
    elif form == "jsonl":
        for line in _json_lines(rows):
            stream.write(line + b"\n")
    else:
        print_wide(_rich_table(rows), console)
    stream.flush()


def _json_lines(rows: pa.Table) -> Iterator[bytes]:
    """Iterate over the rows as JSON objects, a batch of rows in memory at a time."""
    for batch in rows.to_batches(max_chunksize=1024):
        for row in batch.to_pylist():
            yield json.dumps(_without_nan(row), default=_shown_bytes, ensure_ascii=False, allow_nan=False).encode()


def print_list_of_tables(run: Run, console: Console) -> None:
    """Print every table with its stage, and the number of its rows if the stage is complete."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name, side in (("table", "left"), ("stage", "left"), ("rows", "right")):
        shown.add_column(name, justify=side)  # type: ignore[arg-type]
    for table in stages.ALL_TABLES:
        stage = stages.STAGE_OF_TABLE.get(table, "")
        rows = ""
        if stage in run.keys and (output := run.stage(stage)).complete:
            rows = f"{output.manifest()['rows'].get(table, 0):,}"
        elif table in ("failures", "interventions"):
            rows = f"{run.table(table).num_rows:,}"
        shown.add_row(table, stage or "every stage" if table == "failures" else stage or "intervene", rows)
    console.print(shown)
    console.print(f"vtcav table {run.url} NAME prints one of them.", soft_wrap=True, highlight=False, markup=False)


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
        shown.add_row(*(as_cell(value, whole=name in WHOLE) for name, value in row.items()))
    return shown


def as_cell(value: Any, *, whole: bool = False) -> Text:
    """Return a value as the text of a table's cell, shortened unless `whole`."""
    if value is None:
        return Text()
    if isinstance(value, bytes):
        return Text(_shown_bytes(value))
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return Text(printable(text if whole or len(text) <= CELL_WIDTH else text[: CELL_WIDTH - 1] + "…"))
