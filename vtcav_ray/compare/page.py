"""The comparison as one HTML file: what moved, in sentences, a table that filters and sorts, cells over the runs."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any

import pyarrow as pa

from vtcav_ray.report.html import LIBRARIES, asset, json_script, policy
from vtcav_ray.report.words import count, probability, signed

MAX_SENTENCES = 8
SHOWN = ("class", "layer", "concept", "against", "effect_a", "effect_b", "change", "ci_low", "ci_high", "q", "moved",
         "paired", "learnable", "score_a", "score_b", "score_change", "score_ci_low", "score_ci_high")  # fmt: skip


def sentences(comparison: pa.Table) -> list[str]:
    """What moved, the largest changes first; plain text."""
    rows = comparison.to_pylist()
    moved = sorted((r for r in rows if r["moved"]), key=lambda r: -abs(r["change"]))
    paired = sum(r["paired"] for r in rows)
    verb = "effect moved" if len(moved) == 1 else "effects moved"
    lines = [
        f"{len(moved):,} {verb} beyond {'its' if len(moved) == 1 else 'their'} uncertainty, of "
        f"{count(len(rows), 'compared cell')} "
        f"({paired:,} on the same videos, {len(rows) - paired:,} on different ones)."
    ]
    for row in moved[:MAX_SENTENCES]:
        lines.append(
            f"{row['class']}: {row['concept']} against {row['against']} at {row['layer']} went from "
            f"{signed(row['effect_a'])} to {signed(row['effect_b'])} logits: {signed(row['change'])} "
            f"(95 % interval {signed(row['ci_low'])} to {signed(row['ci_high'])}, q {probability(row['q'])})."
        )
    if len(moved) > MAX_SENTENCES:
        lines.append(f"{len(moved) - MAX_SENTENCES:,} more are in the table.")
    return lines


def build_page(comparison: pa.Table, names: Sequence[str]) -> str:
    """The comparison as one HTML file that opens from disk and asks the network for nothing.

    Args:
        comparison: rows of `COMPARISON`.
        names: of the runs, in order, to be read by people.
    """
    scripts = ["\n".join(asset(name) for name in LIBRARIES), f'(() => {{\n"use strict";\n{_script()}\n}})();\n']
    title = " → ".join(names)
    told = "".join(f"<{tag}>{escape(text)}</{tag}>" for tag, text in _tagged(sentences(comparison)))
    return "".join(
        (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            f'<meta http-equiv="Content-Security-Policy" content="{policy(scripts)}">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            f"<title>{escape(title)} · Video-TCAV comparison</title>\n<style>\n{asset('page.css')}</style>\n</head>\n",
            f'<body>\n<main>\n<section id="summary" aria-labelledby="summary-title">\n'
            f'<p class="eyebrow">{escape(title)}</p>\n<h1 id="summary-title">What moved</h1>\n'
            f'<div class="lead">{told}</div>\n</section>\n',
            '<section aria-labelledby="cells-title"><h2 id="cells-title">Cell by cell</h2>\n'
            '<div id="comparison"><p class="muted">This part is drawn by JavaScript.</p></div></section>\n</main>\n',
            "<footer><p>Made by vtcav-ray. Charts: Observable Plot and D3 (ISC licence).</p></footer>\n",
            json_script("facts", _facts(comparison, names)),
            *(f"<script>{script}</script>\n" for script in scripts),
            "</body>\n</html>\n",
        )
    )


def _tagged(lines: Sequence[str]) -> list[tuple[str, str]]:
    return [("p", line) for line in lines]


def _facts(comparison: pa.Table, names: Sequence[str]) -> dict[str, Any]:
    places = {url: i for i, url in reversed(list(enumerate(dict.fromkeys(comparison["run_a"].to_pylist()))))}
    rows = [[places[row["run_a"]], *(_finite(row[name]) for name in SHOWN)] for row in comparison.to_pylist()]
    return {"names": list(names), "columns": ["step", *SHOWN], "rows": rows}


def _finite(value: Any) -> Any:
    """JSON knows no NaN; four digits are shown."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if value == value and abs(value) != float("inf") else None
    return value


def _script() -> str:
    return (files("vtcav_ray.compare") / "assets" / "compare.js").read_text(encoding="utf-8")
