"""Output of `vtcav compare`: a table and a page."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vtcav_ray.cli.terminal import printable
from vtcav_ray.compare.page import build_page, sentences
from vtcav_ray.compare.runs import compare_runs, comparison_warning
from vtcav_ray.errors import ConfigError
from vtcav_ray.pages.wording import probability, share, signed
from vtcav_ray.runs.run import Run

MAX_ROWS = 40


def compare_and_print(runs: list[Run], *, as_json: bool, page: str | None, console: Console) -> None:
    """Compare runs, print which effects moved, and write a page if requested.

    Args:
        runs: in order (for example of training).
        as_json: print every compared cell as a line of JSON on stdout, and nothing else.
        page: HTML file to write; None: no page.
        console: for people.

    Raises:
        ConfigError: the runs can't be compared, or the page can't be written.
    """
    comparison = compare_runs(runs)
    warning = comparison_warning(runs, comparison)
    if page is not None:
        _write(page, build_page(comparison, run_names([run.url for run in runs]), warning))
    if as_json:
        for row in comparison.to_pylist():
            finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
            sys.stdout.write(json.dumps(finite, ensure_ascii=False) + "\n")
        return
    for line in sentences(comparison)[:1]:
        console.print(Text(printable(line)), soft_wrap=True)
    if warning is not None:
        console.print(Text(printable(f"note: {warning}")), soft_wrap=True)
    console.print(_table(comparison, many=len(runs) > 2))
    if page is not None:
        console.print(f"Page: {page}", soft_wrap=True, highlight=False, markup=False)


def _write(file: str, page: str) -> None:
    try:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The page can't be written to {file}: {error.strerror}. Choose another --html.") from error


def run_names(urls: list[str]) -> list[str]:
    """Return the part of each URL that distinguishes it from the others."""
    parts = [url.rstrip("/").split("/") for url in urls]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-length:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{i + 1}: {url}" for i, url in enumerate(urls)]  # one run named twice


def _table(comparison: pa.Table, *, many: bool) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    left = ("", "class", "concept", "against", "layer", *(("from", "to") if many else ()))
    for name in left:
        table.add_column(name, overflow="ellipsis", no_wrap=True)
    for name in ("before", "after", "change", "95 % interval", "q", "TCAV before", "after"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = sorted(comparison.to_pylist(), key=lambda r: (not r["moved"], _or(r["q"], 2.0), -abs(_or(r["change"], 0.0))))
    for row in rows[:MAX_ROWS]:
        mark = "●" if row["moved"] else "×" if not row["learnable"] else "○"
        names = [row["class"], row["concept"], row["against"], row["layer"]]
        names += run_names([row["run_a"], row["run_b"]]) if many else []
        numbers = [
            signed(_or(row["effect_a"])),
            signed(_or(row["effect_b"])),
            signed(_or(row["change"])),
            f"{signed(_or(row['ci_low']))} … {signed(_or(row['ci_high']))}",
            probability(_or(row["q"])),
            share(_or(row["tcav_score_a"])),
            share(_or(row["tcav_score_b"])),
        ]
        table.add_row(
            *(Text(printable(text)) for text in (mark, *names, *numbers)), style="bold" if row["moved"] else None
        )
    table.caption = f"● moved   ○ not shown to have moved   × not learnable in either   {len(rows)} comparisons"
    table.caption_justify = "left"
    return table


def _or(value: float | None, otherwise: float = math.nan) -> float:
    return otherwise if value is None or not math.isfinite(value) else value
