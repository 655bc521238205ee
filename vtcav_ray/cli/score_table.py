"""What `vtcav run` prints at its end: the verdicts, and the clearest rows of the scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from vtcav_ray.cli.terminal import printable
from vtcav_ray.pages.wording import percent, probability, share, signed, whole
from vtcav_ray.report.score_cells import STATUS_WORDS, ScoreCells, Status, read_cells
from vtcav_ray.runs.run import Run
from vtcav_ray.stages import ANSWER

# Shape and colour carry the same information, so the table is readable without colour.
MARKS = {
    Status.RAISES: ("▲", "bold bright_blue"),
    Status.LOWERS: ("▼", "bold yellow"),
    Status.NOT_SHOWN: ("·", ""),
    Status.NOT_LEARNABLE: ("×", "dim"),
    Status.UNDECIDED: ("?", "dim"),
    Status.NO_EFFECT: ("=", ""),
}
_TEXT_HEADINGS = ("", "class", "concept", "against", "layer")
_GAP = 2


MAX_VERDICTS = 20


def print_answers(console: Console, run: Run) -> None:
    """Print one verdict per class, the clearest first if there are many, and a few rows of the scores."""
    if "report" in run.keys:
        console.print(verdicts_text(run.table("verdicts")))
    console.print(score_table_text(run.table("scores"), width=console.width))


def verdicts_text(verdicts: pa.Table) -> RenderableType:
    """Return the verdicts in sentences.

    Args:
        verdicts: rows of `tables.VERDICTS`.
    """
    rows = verdicts.to_pylist()
    if not any(row["uses"] for row in rows):
        head = "Nothing was shown to raise the logit of any class." if rows else "No class was tested."
        return Text(head + " `vtcav table RUN verdicts` has the details.\n" if rows else head + "\n")
    if len(rows) > MAX_VERDICTS:
        rows = sorted(rows, key=lambda row: -abs(row["z"] or 0.0))[:MAX_VERDICTS]
    lines = [Text.assemble((printable(row["class"]), "bold"), ": ", printable(row["verdict"]), "\n") for row in rows]
    if left := verdicts.num_rows - len(rows):
        lines.append(Text(f"{left:,} more classes: `vtcav table RUN verdicts`.\n", style="dim"))
    return Group(*lines)


def score_table_text(scores: pa.Table, *, width: int, max_rows: int | None = 10) -> RenderableType:
    """Return the most important columns of the scores, with a legend of the marks.

    Args:
        scores: rows of `tables.SCORES`.
        width: of the terminal in characters; below 110, the TCAV score's null and the counts are omitted.
        max_rows: maximum number of rows: significant cells first, and the strongest of every class; None: all rows.
    """
    cells = read_cells(scores, list(dict.fromkeys(scores["layer"].to_pylist())))
    if not len(cells):
        return Text("No scores: no class or no concept has enough clips.")
    shown = _choose(cells, max_rows)
    headings = _headings(cells, width)
    rows = [_row(cells, i, headings) for i in shown]
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    for heading, room in zip(headings, _rooms(headings, rows, width), strict=True):
        justify: Literal["left", "right"] = "left" if heading in _TEXT_HEADINGS else "right"
        table.add_column(heading, justify=justify, width=room, no_wrap=True, overflow="ellipsis")
    for i, row in zip(shown, rows, strict=True):
        table.add_row(*(Text(text) for text in row.values()), style=MARKS[Status(cells.status_N[i])][1] or None)
    return Group(table, Text(), *_legend(cells, shown))


def _headings(cells: ScoreCells, width: int) -> list[str]:
    """Return the columns that fit the width; less important ones are dropped first."""
    optional = {
        "against": len({column.against for column in cells.columns}) > 1,
        "of margin": width >= 100 and bool(np.isfinite(cells.numbers["share_of_margin"]).any()),
        "95 % interval": width >= 80,
        "its null": width >= 110,
        "n": width >= 110,
        "R": width >= 110,
    }
    every = ("", "class", "concept", "against", "layer", "effect", "of margin", "95 % interval", "q", "TCAV",
             "its null", "n", "R")  # fmt: skip
    return [heading for heading in every if optional.get(heading, True)]


def _rooms(headings: list[str], rows: list[dict[str, str]], width: int) -> list[int]:
    """Return the width of each column in characters: figures are never cut, names share the rest."""
    wanted = {h: max([len(h), *(len(row[h]) for row in rows)]) for h in headings}
    names = [h for h in headings if h in _TEXT_HEADINGS and h]
    left = width - _GAP * (len(headings) - 1) - sum(wanted[h] for h in headings if h not in names)
    for place, name in enumerate(sorted(names, key=lambda h: wanted[h])):
        wanted[name] = max(3, min(wanted[name], left // (len(names) - place)))
        left -= wanted[name]
    return list(wanted.values())


def _choose(cells: ScoreCells, count: int | None) -> list[int]:
    """Return the rows to show, by class. In a class: significant first, then by effect against its null, descending.

    If there is no room for all, the first rows of every class are kept.
    """
    z = np.abs(np.nan_to_num(cells.numbers["z"], nan=0.0))
    rank = np.where(cells.significant_N, 0, np.where(cells.of(Status.NOT_SHOWN) | cells.of(Status.NO_EFFECT), 1, 2))
    order = np.lexsort((-z, rank, cells.class_N))
    first = np.searchsorted(cells.class_N[order], cells.class_N[order])
    place = np.arange(len(order)) - first  # position within its class
    chosen = np.lexsort((place, rank[order]))[:count]
    return order[np.sort(chosen)].tolist()


def _row(cells: ScoreCells, i: int, headings: list[str]) -> dict[str, str]:
    """Return heading -> text. Names come from the data, so control characters in them are replaced."""
    column, number = cells.columns[cells.column_N[i]], cells.numbers
    every = {
        "": MARKS[Status(cells.status_N[i])][0],
        "class": printable(cells.classes[cells.class_N[i]]),
        "concept": printable(column.concept),
        "against": printable(column.against),
        "layer": printable(cells.layers[cells.layer_N[i]]),
        "effect": signed(number["effect"][i]),
        "of margin": percent(number["share_of_margin"][i]),
        "95 % interval": f"{signed(number['ci_low'][i])} … {signed(number['ci_high'][i])}",
        "q": probability(number["q"][i]),
        "TCAV": share(number["tcav_score"][i]) + ("°" if cells.degenerate_N[i] else ""),
        "its null": _null(number["tcav_null_mean"][i], number["tcav_null_sd"][i]),
        "n": whole(number["n"][i]),
        "R": whole(number["R"][i]) if number["R"][i] else "–",
    }
    return {heading: every[heading] for heading in headings}


def _null(mean: float, sd: float) -> str:
    """Write the null of a TCAV score; the model's own answer has no gradient, and so neither score nor null."""
    return f"{share(mean)} ± {share(sd)}" if np.isfinite(mean) else "none"


def _legend(cells: ScoreCells, shown: Sequence[int]) -> list[Text]:
    counts = {status: int(cells.of(status).sum()) for status in Status}
    marks = "   ".join(f"{MARKS[s][0]} {STATUS_WORDS[s]} ({counts[s]})" for s in Status if counts[s])
    lines = [Text(marks)]
    lines.append(
        Text(
            "effect: change of the class's logit, from random clips to the concept's; of margin: over "
            "the logit's distance to the runner-up; q is corrected for all comparisons. TCAV: share of class videos "
            "with a positive sensitivity.",
            style="dim",
        )
    )
    if cells.degenerate_N.any():
        lines.append(Text("° the gradient is the same for every clip, so a sign count is meaningless", style="dim"))
    if ANSWER in {cells.layers[cells.layer_N[i]] for i in shown}:
        lines.append(Text(f"{ANSWER}: what the model answers, without a gradient and a TCAV score", style="dim"))
    if len(shown) < len(cells):
        lines.append(
            Text(f"{len(cells) - len(shown)} more rows: `vtcav table RUN scores`, or the report.", style="dim")
        )
    return lines
