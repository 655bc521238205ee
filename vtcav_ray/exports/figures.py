"""Static figures with Matplotlib: no window, text stays text, colours that colour-blind readers can distinguish."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vtcav_ray.report.score_cells import Column, ScoreCells, Status
from vtcav_ray.tables import EFFECT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# As in the report's page.css.
RAISES, LOWERS, NEUTRAL, BAND = "#cf5a06", "#2362b8", "#5d616b", "#e6e4de"
MARKERS = {
    Status.RAISES: ("^", RAISES),
    Status.LOWERS: ("v", LOWERS),
    Status.NOT_SHOWN: ("o", NEUTRAL),
    Status.NOT_LEARNABLE: ("x", NEUTRAL),
    Status.UNDECIDED: ("D", NEUTRAL),
    Status.NO_EFFECT: ("s", NEUTRAL),
}
READABLE = (Status.RAISES, Status.LOWERS, Status.NOT_SHOWN, Status.NO_EFFECT)
MAX_CONCEPTS = 24  # per figure of a class: those with the largest effects relative to their null
COLUMN_INCHES = 3.4  # column width of a two-column paper


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Apply Matplotlib's settings for these figures inside the context, and restore the previous ones after it."""
    import matplotlib

    with matplotlib.rc_context(
        {
            "font.size": 8,
            "text.parse_math": False,  # show names verbatim: `a$^$b` is not a formula
            "axes.spines.top": False,
            "axes.spines.right": False,
            "svg.fonttype": "none",  # text stays text, which can be searched and edited
            "pdf.fonttype": 42,
            "svg.hashsalt": "vtcav",  # the same data gives the same bytes
            "figure.dpi": 100,
            "savefig.dpi": 300,
        }
    ):
        yield


def save(figure: Figure, path: Path) -> None:
    """Write a figure. The same figure gives the same bytes."""
    metadata: dict[str, Any] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(path.suffix[1:], {})
    figure.savefig(path, bbox_inches="tight", metadata=metadata)


def effects(cells: ScoreCells, class_name: str) -> Figure | None:
    """Draw a class's concept effects against random clips, one panel per layer, over the null's band; None: no cell."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    own = (cells.class_N == list(cells.classes).index(class_name)) & cells.contrast("random")
    columns = _strongest_columns(cells, np.flatnonzero(own))
    if not columns:
        return None
    figure = Figure(figsize=(COLUMN_INCHES * max(1.0, len(cells.layers) / 2), 0.6 + 0.2 * len(columns)))
    panels = np.atleast_1d(figure.subplots(1, len(cells.layers), sharey=True))
    names = [cells.columns[c].concept for c in columns]
    for layer, panel in enumerate(panels):
        rows = np.flatnonzero(own & (cells.layer_N == layer))
        row_of = {int(cells.column_N[i]): int(i) for i in rows}
        for y, column in enumerate(columns):
            if column in row_of:
                _draw_cell(panel, cells, row_of[column], y)
        panel.axvline(0, color=NEUTRAL, linewidth=0.6, zorder=1)
        panel.set_title(cells.layers[layer], fontsize=8)
        panel.set_ylim(len(columns) - 0.4, -0.6)
        panel.tick_params(length=2)
        panel.xaxis.set_major_locator(MaxNLocator(3))
    panels[0].set_yticks(range(len(names)), names)
    # Beyond the panels by a fixed distance: at a share of the figure's height, they lie on the text of a low figure.
    box, height = panels[0].get_position(), figure.get_figheight()
    figure.suptitle(class_name, fontsize=9, fontweight="bold", y=box.y1 + 0.25 / height, va="bottom")
    figure.supxlabel("concept effect, logits", fontsize=8, y=box.y0 - 0.25 / height, va="top")
    return figure


def _strongest_columns(cells: ScoreCells, rows: np.ndarray) -> list[int]:
    """Return the columns of the cells in order; if there are too many, those with the largest |z|."""
    z = np.abs(np.nan_to_num(cells.numbers["z"][rows]))
    best: dict[int, float] = {}
    for column, value in zip(cells.column_N[rows].tolist(), z.tolist(), strict=True):
        best[column] = max(best.get(column, 0.0), value)
    kept = sorted(best, key=lambda c: -best[c])[:MAX_CONCEPTS]
    return sorted(kept, key=lambda c: (cells.columns[c].name, cells.columns[c].kind))


def _draw_cell(panel: Any, cells: ScoreCells, i: int, y: int) -> None:
    number = {name: cells.numbers[name][i] for name in EFFECT}
    half = 1.96 * cells.numbers["null_sd"][i]
    if np.isfinite(half):
        panel.barh(y, 2 * half, left=-half, height=0.8, color=BAND, zorder=0)
    marker, color = MARKERS[Status(cells.status_N[i])]
    if np.isfinite(number["ci_low"]):
        panel.plot([number["ci_low"], number["ci_high"]], [y, y], color=color, linewidth=1, zorder=2)
    face = color if cells.status_N[i] <= Status.LOWERS or marker == "x" else "white"
    edge = {} if marker == "x" else {"edgecolor": color}  # a cross has no edge
    panel.scatter(number["effect"], y, marker=marker, s=16, facecolor=face, zorder=3, **edge)


def controls(cells: ScoreCells) -> list[str]:
    """Return the kinds of motion control that concepts are compared with, `given_reversed` or `reversed`, sorted."""
    names = {c.against.rpartition("/")[2] for c in cells.columns if c.contrast == "pair" and _is_twin(c)}
    return sorted(names)


def _is_twin(column: Column) -> bool:
    """Return whether a column compares a concept with its own clips in another kind."""
    return column.against.rpartition("/")[0] == column.name


def matrix(cells: ScoreCells, layer: str, control: str = "") -> Figure | None:
    """Draw classes x concepts at a layer. Dots mark significant cells.

    Args:
        cells: of a run.
        layer: one of its layers.
        control: the kind of the twins that the concepts are compared with, of `controls`; empty: random clips.

    Returns:
        None: there is no such cell.
    """
    from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm
    from matplotlib.figure import Figure

    asked = [c.contrast == "pair" and _is_twin(c) and c.against.endswith(f"/{control}") for c in cells.columns]
    compared = np.array(asked, bool)[cells.column_N] if control else cells.contrast("random")
    rows = np.flatnonzero(compared & (cells.layer_N == list(cells.layers).index(layer)))
    if not len(rows):
        return None
    order = sorted(set(cells.column_N[rows].tolist()), key=lambda c: (cells.columns[c].name, cells.columns[c].kind))
    place = {column: j for j, column in enumerate(order)}
    value = np.full((len(cells.classes), len(order)), np.nan)
    found = np.zeros_like(value, bool)
    for i in rows:
        at = (cells.class_N[i], place[int(cells.column_N[i])])
        if cells.status_N[i] in READABLE:
            value[at] = cells.numbers["effect"][i]
        found[at] = cells.status_N[i] <= Status.LOWERS
    top = float(np.nanmax(np.abs(value))) if np.isfinite(value).any() else 1.0
    figure = Figure(figsize=(1.4 + 0.24 * len(order), 1.3 + 0.24 * len(cells.classes)))
    panel = figure.subplots()
    colors = LinearSegmentedColormap.from_list("effect", [LOWERS, "#ffffff", RAISES]).with_extremes(bad=BAND)
    image = panel.imshow(value, cmap=colors, norm=TwoSlopeNorm(0, -(top or 1.0), top or 1.0), aspect="equal")
    ys, xs = np.nonzero(found)
    panel.scatter(xs, ys, s=7, color="black")
    panel.set_xticks(range(len(order)), [cells.columns[c].concept for c in order], rotation=90)
    panel.set_yticks(range(len(cells.classes)), cells.classes)
    panel.tick_params(length=0)
    against = f", against {control.replace('_', ' ')}" if control else ""
    panel.set_title(f"{layer}{against}\ndot: significant, grey: not learnable", fontsize=8, loc="left")
    figure.colorbar(image, ax=panel, shrink=0.8, label="concept effect, logits")
    return figure
