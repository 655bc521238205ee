"""The first picture of a class: its clearest findings at every layer, in the order of the layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vtcav_ray.pages.wording import equals, layer_and_places, signed
from vtcav_ray.report.score_cells import STATUS_WORDS, ScoreCells, Status
from vtcav_ray.report.verdicts import Verdict

MAX_ROWS = 4
_MARKS = {Status.RAISES: "▲", Status.LOWERS: "▼"}


@dataclass(frozen=True)
class DepthCell:
    """One concept at one layer.

    Attributes:
        mark: ▲, ▼, or · where nothing was shown; empty: not tested.
        effect: as text, logits.
        strength: of the effect, in percent of the strongest in this picture.
        status: what a screen reader says: status, layer and q.
    """

    mark: str
    effect: str
    strength: int
    status: str


@dataclass(frozen=True)
class Depths:
    """Concepts by layers: the layers' names, and per concept its name, the other side, and one cell per layer."""

    layers: Sequence[str]
    rows: Sequence[tuple[str, str, Sequence[DepthCell]]]


def depths(cells: ScoreCells, verdict: Verdict) -> Depths:
    """Return the clearest findings of a verdict at every layer; without rows if it has none."""
    leads = list(verdict.leads[:MAX_ROWS])
    at: dict[tuple[int, int], int] = {}
    for i in np.flatnonzero(cells.class_N == cells.class_N[leads[0]]).tolist() if leads else ():
        at[int(cells.column_N[i]), int(cells.layer_N[i])] = i
    wanted = [(int(cells.column_N[lead]), layer) for lead in leads for layer in range(len(cells.layers))]
    effects = [abs(cells.numbers["effect"][at[place]]) for place in wanted if place in at]
    top = float(np.nanmax(effects)) if np.isfinite(effects).any() else 0.0
    rows = []
    for lead in leads:
        k = int(cells.column_N[lead])
        column = cells.columns[k]
        against = {"rest": "against the other concepts", "pair": f"against {column.against.rpartition('/')[2]}"}
        line = [_cell(cells, at.get((k, layer)), top) for layer in range(len(cells.layers))]
        rows.append((column.name, against.get(column.contrast, ""), line))
    return Depths([" ".join(filter(None, layer_and_places(layer))) for layer in cells.layers], rows)


def _cell(cells: ScoreCells, i: int | None, top: float) -> DepthCell:
    if i is None:
        return DepthCell("", "", 0, "not tested")
    effect, status = float(cells.numbers["effect"][i]), Status(cells.status_N[i])
    strength = round(100 * abs(effect) / top) if top and np.isfinite(effect) else 0
    q = cells.numbers["q"][i]
    return DepthCell(
        _MARKS.get(status, "·"),
        signed(effect),
        strength,
        STATUS_WORDS[status] + (f", q {equals(float(q))}" if np.isfinite(q) else ""),
    )
