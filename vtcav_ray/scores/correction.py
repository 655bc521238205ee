"""The last step of the stage `scores`: correct p for all cells of the run, and add what follows from it.

Legend: N cells, T tested cells.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vtcav_ray.cavs.plan import RANDOM
from vtcav_ray.config import Config
from vtcav_ray.config.schema import ScoresConfig
from vtcav_ray.rows import EffectTestRow, ScoreRow, read_rows, table_of
from vtcav_ray.store.commits import ShardOutput, StageFolder
from vtcav_ray.tables import CELL_KEY
from vtcav_ray.tcav.diagnostics import needed
from vtcav_ray.tcav.significance import adjust, holm_over_families, minimum_p, resolution_warning

MOST_PERMUTATIONS = 1_000_000  # maximum that a warning suggests: ten times the default, and ten times its seconds
_ROWS_AT_A_TIME = 1 << 14
_UNTESTED = EffectTestRow(
    class_="",
    layer="",
    concept="",
    against="",
    effect_p=np.nan,
    effect_p_symmetric=np.nan,
    p_adjusted=np.nan,
    spread_ratio=np.nan,
    effect_within=np.nan,
    p_within=np.nan,
    p_within_adjusted=np.nan,
    between_share=np.nan,
    effect_unit=np.nan,
    effect_counts=(),
    note="",
)
_FIGURES = ("effect_p", "effect_p_symmetric", "spread_ratio", "effect_within", "p_within", "between_share")
Figures = dict[str, NDArray[np.float64]]


def correct(config: Config, output: StageFolder) -> ShardOutput:
    """Make the tables `scores` and `nulls` from the layers' cells and the families' tests."""
    settings = config.scores
    cells, nulls, tests = (output.read(table) for table in ("cells", "score_nulls", "effect_tests"))
    assert cells is not None, "every layer has cells"
    assert nulls is not None, "every cell has a null"
    if tests is None:
        tests = table_of([], EffectTestRow)
    figures: Figures = {name: np.asarray(tests[name], np.float64) for name in _FIGURES}
    # Cells of a family share arrangements: all classes of a concept, unless each has videos of its own.
    family = tests.select(("concept", "against", *["class"] * (config.clips.concept_labels == "other")))
    family_T = _codes(family, family)[0]
    for q, p_T, adjusted in (
        ("effect_q", figures["effect_p"], "p_adjusted"),
        ("q_within", figures["p_within"], "p_within_adjusted"),
    ):
        figures[q] = corrected(p_T, np.asarray(tests[adjusted], np.float64), family_T, settings.correction)
    p = np.asarray(cells["p"], np.float64)
    num_tests, m = int(np.isfinite(p).sum()), int(np.isfinite(figures["effect_p"]).sum())
    num_families = len(np.unique(family_T[np.isfinite(figures["effect_p"])]))
    tests = pa.concat_tables([tests, table_of([_UNTESTED], EffectTestRow)])
    place_N = places(cells, tests)
    taken = {name: np.append(values, np.nan)[place_N] for name, values in figures.items()}
    taken["q"] = adjust(p, settings.per_cell_correction)
    notes = tests["note"].take(pa.array(place_N))
    rows = _Finished(settings, num_tests, m)
    parts = []
    for start in range(0, cells.num_rows, _ROWS_AT_A_TIME):
        some = slice(start, start + _ROWS_AT_A_TIME)
        part = read_rows(cells.slice(start, _ROWS_AT_A_TIME), ScoreRow)
        texts = notes.slice(start, _ROWS_AT_A_TIME).to_pylist()
        parts.append(table_of(rows.of(part, {name: v[some] for name, v in taken.items()}, texts), ScoreRow))
    return ShardOutput(
        {"scores": pa.concat_tables(parts), "nulls": _with_tests(nulls, tests)},
        metrics={"m": m},
        warnings=_resolution_warnings(config, num_tests, m, num_families),
    )


def corrected(
    p_T: NDArray[np.float64], adjusted_T: NDArray[np.float64], family_T: NDArray[np.int64], correction: str
) -> NDArray[np.float64]:
    """Return q of each tested cell.

    Args:
        p_T: of each cell alone.
        adjusted_T: corrected within its family.
        family_T: number of its family.
        correction: as in `scores.correction`.
    """
    if correction != "step_down":
        return adjust(p_T, correction)  # type: ignore[arg-type]  # the config knows the others only
    order = np.argsort(family_T, kind="stable")
    rows = np.split(order, np.flatnonzero(np.diff(family_T[order])) + 1)
    q_T = np.full(len(p_T), np.nan)
    for some, q in zip(rows, holm_over_families([adjusted_T[some] for some in rows], claim="cells"), strict=True):
        q_T[some] = q
    return q_T


def places(cells: pa.Table, tests: pa.Table) -> NDArray[np.int64]:
    """Return the row of `tests` that belongs to each cell, [N]; its last row stands for cells without a test."""
    cell_N, test_T = _codes(cells.select(CELL_KEY), tests.select(CELL_KEY))
    order = np.argsort(test_T[:-1], kind="stable")
    found_N = np.searchsorted(test_T[order], cell_N)
    inside = found_N < len(order)
    place_N = np.full(len(cell_N), len(order))
    place_N[inside] = order[found_N[inside]]
    place_N[test_T[place_N] != cell_N] = len(order)
    return place_N


def _codes(one: pa.Table, other: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return a number for each row of two tables of text; equal rows have equal numbers."""
    code = np.zeros(one.num_rows + other.num_rows, np.int64)
    for name in one.column_names:
        both = pa.chunked_array([*one[name].chunks, *other[name].chunks], pa.string()).combine_chunks()
        coded = both.dictionary_encode()
        code = code * max(1, len(coded.dictionary)) + coded.indices.to_numpy()
    return code[: one.num_rows], code[one.num_rows :]


def _with_tests(nulls: pa.Table, tests: pa.Table) -> pa.Table:
    """Put the nulls of the effects beside those of the scores."""
    taken = tests.select(("effect_unit", "effect_counts")).take(pa.array(places(nulls, tests)))
    for name in taken.column_names:
        nulls = nulls.set_column(nulls.column_names.index(name), nulls.schema.field(name), taken[name])
    return nulls


@dataclasses.dataclass(frozen=True)
class _Finished:
    """Completes cells. `num_tests`: cells with a p of the sign count; `m`: with a p of the effect."""

    settings: ScoresConfig
    num_tests: int
    m: int

    def of(self, rows: Sequence[ScoreRow], figures: Figures, notes: Sequence[str]) -> list[ScoreRow]:
        names = list(figures)
        values = zip(*(figures[name].tolist() for name in names), strict=True)
        return [
            self._row(dataclasses.replace(row, **dict(zip(names, one, strict=True))), note)
            for row, one, note in zip(rows, values, notes, strict=True)
        ]

    def _row(self, row: ScoreRow, test_note: str) -> ScoreRow:
        assert row.effect_q is not None, "it was set just now"
        significant = row.effect_q < self.settings.alpha
        notes = [row.note, test_note]
        if not significant and np.isfinite(row.effect_logits) and row.effect_null_sd:
            size, sd, alpha = row.effect_logits, row.effect_null_sd, self.settings.alpha
            notes.append(needed(size, sd, row.n_concept, row.R, num_cells=max(1, self.m), alpha=alpha).sentence)
        return dataclasses.replace(
            row, significant=significant, decided_by=self._decided_by(row), note=" ".join(filter(None, notes))
        )

    def _decided_by(self, row: ScoreRow) -> str:
        if row.effect_p is None or not np.isfinite(row.effect_p):
            return "none"
        can_decide = np.isfinite(row.p) and _smallest_p(row) * self.num_tests <= self.settings.alpha
        return "effect and score" if can_decide else "effect"


def _smallest_p(row: ScoreRow) -> float:
    """Return the smallest p of a cell's sign count. The null: all R sets against random, else R // 2 disjoint pairs."""
    return minimum_p(row.R if row.against == RANDOM else row.R // 2)


def _resolution_warnings(config: Config, num_tests: int, m: int, num_families: int) -> list[str]:
    """Warn if the random sets or the permutations are too few for any cell to pass the correction."""
    settings = config.scores
    warnings = []
    if num_tests and (sentence := resolution_warning(config.cavs.random_sets, num_tests, settings.alpha)):
        warnings.append(sentence + ".")
    steps, of_what = (num_families, "families") if settings.correction == "step_down" else (m, "cells")
    smallest = 2 / (settings.permutations + 1)  # twice the smaller tail
    if settings.correction in ("step_down", "holm") and steps * smallest > settings.alpha:
        needed_permutations = round(2 * steps / settings.alpha)
        advice = (
            f"set scores.permutations to {needed_permutations} or more, or scores.correction to bh."
            if needed_permutations <= MOST_PERMUTATIONS
            else f"set scores.correction to bh ({needed_permutations} permutations a cell would take too long), or ask "
            "for fewer classes, concepts or layers."
        )
        warnings.append(
            f"{settings.permutations} permutations can't give an effect_p below {smallest:.2g}, "
            f"and the strictest of {steps} {of_what} asks for {settings.alpha / steps:.2g}: {advice}"
        )
    return warnings
