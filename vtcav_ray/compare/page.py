"""The comparison as one HTML file: the changes in sentences, a table to filter and sort, effects over the runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from vtcav_ray.pages import Shell, asset, render
from vtcav_ray.pages.render import CHARTS, HERE, SAVING, function
from vtcav_ray.pages.wording import count, probability, signed

ROOM = "vtcav_ray.compare"
MAX_SENTENCES = 8
SHOWN = ("class", "layer", "concept", "against", "effect_a", "effect_b", "change", "ci_low", "ci_high", "q", "moved",
         "paired", "learnable", "tcav_score_a", "tcav_score_b", "tcav_score_change", "tcav_ci_low",
         "tcav_ci_high")  # fmt: skip


def sentences(comparison: pa.Table) -> list[str]:
    """Describe the changes in plain text, largest first."""
    rows = comparison.to_pylist()
    moved = sorted((r for r in rows if r["moved"]), key=lambda r: -abs(r["change"]))
    paired = sum(r["paired"] for r in rows)
    verb = "effect moved" if len(moved) == 1 else "effects moved"
    lines = [
        f"{len(moved):,} {verb} beyond {'its' if len(moved) == 1 else 'their'} uncertainty, of "
        f"{count(len(rows), 'comparison')} "
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


def build_page(comparison: pa.Table, names: Sequence[str], warning: str | None = None) -> str:
    """Build the comparison as one HTML file that opens from disk and loads nothing from the network.

    Args:
        comparison: rows of `COMPARISON`.
        names: display names of the runs, in order.
        warning: shown below the changes in sentences; None: nothing to warn of.
    """
    title = " → ".join(names)
    told = [*sentences(comparison), *([] if warning is None else [warning])]
    shell = Shell(
        title=f"{title} · Video-TCAV comparison",
        styles=[asset(HERE, "page.css")],
        scripts=[
            asset(HERE, *CHARTS),
            function(asset(HERE, "theme.js", "tips.js", *SAVING), asset(ROOM, "compare.js")),
        ],
        data={"facts": _facts(comparison, names)},
        images=True,
        inline_styles=True,
    )
    return render(ROOM, "compare.html", shell=shell, title=title, sentences=told)


def _facts(comparison: pa.Table, names: Sequence[str]) -> dict[str, Any]:
    places = {url: i for i, url in reversed(list(enumerate(dict.fromkeys(comparison["run_a"].to_pylist()))))}
    rows = [[places[row["run_a"]], *(_finite(row[name]) for name in SHOWN)] for row in comparison.to_pylist()]
    return {"names": list(names), "columns": ["step", *SHOWN], "rows": rows}


def _finite(value: Any) -> Any:
    """Round a float for display and replace NaN and infinity, which JSON does not have, by None."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if value == value and abs(value) != float("inf") else None
    return value
