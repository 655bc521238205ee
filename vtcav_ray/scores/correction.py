"""The last step of the stage `scores`: correct p for all cells of the run, and add what follows from it.

Legend: N cells, T tested cells.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vtcav_ray.cavs.plan import RANDOM
from vtcav_ray.config import Config
from vtcav_ray.config.statistics import ScoresConfig
from vtcav_ray.rows import EffectTestRow, ScoreRow, read_rows, table_of
from vtcav_ray.stages import ANSWER
from vtcav_ray.store.commits import ShardOutput, StageFolder
from vtcav_ray.tables import CELL_KEY
from vtcav_ray.tcav.diagnostics import needed
from vtcav_ray.tcav.min_effect import calls
from vtcav_ray.tcav.significance import adjust, holm_over_families, minimum_p, resolution_warning

MOST_PERMUTATIONS = 1_000_000  # maximum that a warning suggests: ten times the default, and ten times its seconds
_ROWS_AT_A_TIME = 1 << 14
_UNTESTED = EffectTestRow(
    class_="",
    layer="",
    concept="",
    against="",
    p=np.nan,
    p_symmetric=np.nan,
    p_adjusted=np.nan,
    p_needed=np.nan,
    spread_ratio=np.nan,
    effect_within=np.nan,
    p_within=np.nan,
    p_within_adjusted=np.nan,
    between_share=np.nan,
    effect_unit=np.nan,
    effect_counts=(),
    note="",
)
_OUT_OF_REACH = "No p that this test can give passes the correction's strictest step: see the warnings of the run."
_FIGURES = ("p", "p_symmetric", "spread_ratio", "effect_within", "p_within", "between_share")
Figures = dict[str, NDArray[np.float64]]


def correct(config: Config, output: StageFolder) -> ShardOutput:
    """Make the tables `scores` and `nulls` from the layers' cells and the families' tests."""
    cells, nulls, tests = (output.read(table) for table in ("cells", "score_nulls", "effect_tests"))
    assert cells is not None, "every layer has cells"
    assert nulls is not None, "every cell has a null"
    return corrected_tables(
        cells,
        nulls,
        table_of([], EffectTestRow) if tests is None else tests,
        layers=config.activations.layers,
        settings=config.scores,
        random_sets=config.cavs.random_sets,
        by_class=config.clips.concept_labels == "other",
    )


def corrected_tables(
    cells: pa.Table,
    nulls: pa.Table,
    tests: pa.Table,
    *,
    layers: Sequence[str],
    settings: ScoresConfig,
    random_sets: int,
    by_class: bool = False,
) -> ShardOutput:
    """Make the tables `scores` and `nulls`.

    Args:
        cells, nulls, tests: the tables `cells`, `score_nulls` and `effect_tests` of all layers and families.
        layers: in the order of the results; `answer` comes last.
        settings: of the statistics.
        random_sets: R.
        by_class: each class has videos of its own, so it is a family of its own.
    """
    cells, nulls = (in_order(table, (*layers, ANSWER)) for table in (cells, nulls))
    figures: Figures = {name: np.asarray(tests[name], np.float64) for name in _FIGURES}
    # Cells of a family share arrangements: all classes of a concept, unless each has videos of its own.
    family = tests.select(("concept", "against", *["class"] * by_class))
    family_T = _codes(family, family)[0]
    for q, p_T, adjusted in (
        ("q", figures["p"], "p_adjusted"),
        ("q_within", figures["p_within"], "p_within_adjusted"),
    ):
        figures[q] = corrected(p_T, np.asarray(tests[adjusted], np.float64), family_T, settings.correction)
    p = np.asarray(cells["tcav_p"], np.float64)
    tested_T = np.isfinite(figures["p"])
    num_tests, m = int(np.isfinite(p).sum()), int(tested_T.sum())
    num_families = len(np.unique(family_T[tested_T]))
    asked_T = np.asarray(tests["p_needed"], np.float64)
    unreached = _unreached(tests, family_T, (asked_T == 0) & tested_T)
    tests = pa.concat_tables([tests, table_of([_UNTESTED], EffectTestRow)])
    place_N = places(cells, tests)
    taken = {name: np.append(values, np.nan)[place_N] for name, values in figures.items()}
    taken["tcav_q"] = adjust(p, settings.per_cell_correction)
    taken["min_effect"] = settings.min_effect * np.asarray(cells["class_margin"], np.float64)
    low, high = (np.asarray(cells[name], np.float64) for name in ("ci_low", "ci_high"))
    called = calls(taken["q"], low, high, taken["min_effect"], alpha=settings.alpha)
    notes = tests["note"].take(pa.array(place_N))
    of_family_N = np.append(asked_T, np.nan)[place_N]
    needed_N = p_needed(settings, of_family_N, taken["q"])
    out_of_reach_N = (of_family_N == 0) & (settings.correction == "step_down")
    rows = _Finished(settings, num_tests)
    parts = []
    for start in range(0, cells.num_rows, _ROWS_AT_A_TIME):
        some = slice(start, start + _ROWS_AT_A_TIME)
        part = read_rows(cells.slice(start, _ROWS_AT_A_TIME), ScoreRow)
        texts = notes.slice(start, _ROWS_AT_A_TIME).to_pylist()
        found = {name: v[some] for name, v in {**taken, **called._asdict()}.items()}
        parts.append(table_of(rows.of(part, found, texts, needed_N[some], out_of_reach_N[some]), ScoreRow))
    return ShardOutput(
        {"scores": pa.concat_tables(parts), "nulls": _with_tests(nulls, tests)},
        metrics={"m": m},
        warnings=_resolution_warnings(settings, random_sets, num_tests, m, num_families)
        + _out_of_reach_warnings(settings, num_families, unreached)
        + _no_margin(settings, taken["min_effect"]),
    )


def p_needed(settings: ScoresConfig, of_family_N: NDArray[np.float64], q_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the largest p at which the correction would reject each cell that it does not reject now, [N].

    - `step_down`: that of the strictest step of the cell's family (`EffectFamily.p_needed`). Where too few permutations
      leave none, Bonferroni's bound alpha / m.
    - `holm`: next after the rejected cells, alpha / (m - rejected).
    - `bh`: as one more rejected cell, alpha (rejected + 1) / m.
    - `none`: alpha.

    Args:
        settings: alpha and the correction.
        of_family_N: p of each cell's family; NaN: it has no test.
        q_N: corrected p; NaN: not tested.
    """
    alpha, m = settings.alpha, max(1, int(np.isfinite(q_N).sum()))
    rejected = int((q_N < alpha).sum())
    if settings.correction == "step_down":
        return np.where(of_family_N > 0, of_family_N, alpha / m)
    by_rank = {"holm": alpha / max(1, m - rejected), "bh": alpha * min(1.0, (rejected + 1) / m)}
    return np.full(len(q_N), by_rank.get(settings.correction, alpha))


def _no_margin(settings: ScoresConfig, min_effect_N: NDArray[np.float64]) -> list[str]:
    without = int(np.isnan(min_effect_N).sum())
    if not settings.min_effect or not without:
        return []
    return [
        f"scores.min_effect is not applied to {without} of {len(min_effect_N)} comparisons: their class has no "
        "margin, since no other class has clips. They are called by q alone."
    ]


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


def in_order(table: pa.Table, layers: Sequence[str]) -> pa.Table:
    """Return rows in the order of their layers. Rows of one layer keep theirs."""
    place = {layer: i for i, layer in enumerate(layers)}
    at_N = np.array([place[layer] for layer in table["layer"].to_pylist()], np.int64)
    return table.take(pa.array(np.argsort(at_N, kind="stable")))


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
    """Completes cells. `num_tests`: cells with a p of the sign count."""

    settings: ScoresConfig
    num_tests: int

    def of(
        self,
        rows: Sequence[ScoreRow],
        figures: Mapping[str, NDArray[Any]],
        notes: Sequence[str],
        needed_p: NDArray[np.float64],
        out_of_reach: NDArray[np.bool_],
    ) -> list[ScoreRow]:
        names = list(figures)
        values = zip(*(figures[name].tolist() for name in names), strict=True)
        return [
            self._row(dataclasses.replace(row, **dict(zip(names, one, strict=True))), note, p, beyond)
            for row, one, note, p, beyond in zip(
                rows, values, notes, needed_p.tolist(), out_of_reach.tolist(), strict=True
            )
        ]

    def _row(self, row: ScoreRow, test_note: str, needed_p: float, out_of_reach: bool) -> ScoreRow:
        why, more_clips = self._why_not_called(row, needed_p, out_of_reach)
        notes = (row.note, test_note, *why)
        decided_by, note = self._decided_by(row), " ".join(filter(None, notes))
        tcav_q = None if row.layer == ANSWER else row.tcav_q
        return dataclasses.replace(row, decided_by=decided_by, tcav_q=tcav_q, more_clips=more_clips, note=note)

    def _why_not_called(self, row: ScoreRow, needed_p: float, out_of_reach: bool) -> tuple[list[str], float | None]:
        """Return sentences, and the number of clips to add that would decide the cell; None: unknown."""
        assert row.q is not None, "it was set just now"
        assert row.min_effect is not None, "it was set just now"
        size = row.min_effect if np.isfinite(row.min_effect) else 0.0
        if row.significant:
            return [], None
        if row.negligible:
            return [f"No effect of interest: the interval lies within ±{size:.3g} logits."], None
        if out_of_reach and row.q >= self.settings.alpha:
            return [_OUT_OF_REACH], None
        notes, more_clips = [], None
        if row.q < self.settings.alpha:
            notes.append(
                f"The effect differs from 0 (q {row.q:.2g}), but its interval does not lie beyond the smallest "
                f"effect of interest, ±{size:.3g} logits."
            )
        if np.isfinite(row.effect) and row.null_sd:
            half = (row.ci_high - row.ci_low) / 2
            found = needed(
                row.effect,
                row.null_sd,
                row.n_concept,
                row.R,
                num_cells=max(1, self.num_tests) if row.R else None,
                alpha=self.settings.alpha,
                p_needed=needed_p,
                min_effect=size,
                half_width=half if np.isfinite(half) else 0.0,
            )
            notes.append(found.sentence)
            more_clips = found.more_clips if np.isfinite(found.more_clips) else None
        return notes, more_clips

    def _decided_by(self, row: ScoreRow) -> str:
        if row.p is None or not np.isfinite(row.p):
            return "none"
        can_decide = (
            row.tcav_p is not None
            and np.isfinite(row.tcav_p)
            and _smallest_p(row) * self.num_tests <= self.settings.alpha
        )
        return "effect and score" if can_decide else "effect"


def _smallest_p(row: ScoreRow) -> float:
    """Return the smallest p of a cell's sign count. The null: all R sets against random, else R // 2 disjoint pairs."""
    return minimum_p(row.R if row.against == RANDOM else row.R // 2)


def _resolution_warnings(
    settings: ScoresConfig, random_sets: int, num_tests: int, m: int, num_families: int
) -> list[str]:
    """Warn if the random sets or the permutations are too few for any cell to pass the correction."""
    warnings = []
    if num_tests and (sentence := resolution_warning(random_sets, num_tests, settings.alpha)):
        warnings.append(sentence + ".")
    steps, of_what = (num_families, "families") if settings.correction == "step_down" else (m, "comparisons")
    if settings.correction in ("step_down", "holm") and (sentence := permutations_warning(settings, steps, of_what)):
        warnings.append(sentence)
    return warnings


def permutations_warning(settings: ScoresConfig, steps: int, of_what: str) -> str | None:
    """Return a warning if the permutations are too few for any p to pass Holm's strictest step; None: they suffice.

    Args:
        settings: of the statistics.
        steps: number of tests that Holm's correction covers.
        of_what: what these are, for the text.
    """
    smallest = 2 / (settings.permutations + 1)  # twice the smaller tail
    if steps * smallest <= settings.alpha:
        return None
    needed = round(2 * steps / settings.alpha)
    advice = (
        f"set scores.permutations to {needed} or more, or scores.correction to bh."
        if needed <= MOST_PERMUTATIONS
        else f"set scores.correction to bh ({needed} permutations per comparison take too long), "
        "or ask for fewer classes, concepts or layers."
    )
    return (
        f"{settings.permutations} permutations can't give a p below {smallest:.2g}, "
        f"and the strictest of {steps} {of_what} asks for {settings.alpha / steps:.2g}: {advice}"
    )


class _Unreached(NamedTuple):
    """A family of which no p passes the correction's strictest step."""

    arrangements: int  # that its tests used: all, or as many as were drawn
    cells: int


def _unreached(tests: pa.Table, family_T: NDArray[np.int64], is_unreached_T: NDArray[np.bool_]) -> list[_Unreached]:
    """Return the families whose cells are out of reach."""
    found = []
    for family in np.unique(family_T[is_unreached_T]):
        rows = np.flatnonzero((family_T == family) & is_unreached_T)
        counts = tests["effect_counts"].take(pa.array(rows)).to_pylist()
        found.append(_Unreached(max(map(sum, counts)), len(rows)))
    return found


def _out_of_reach_warnings(settings: ScoresConfig, num_families: int, unreached: Sequence[_Unreached]) -> list[str]:
    """Warn of families of which no p passes the correction's strictest step, and say why.

    Either their source videos have too few arrangements, or too few of these were drawn: with many classes and layers,
    one of a family's cells has a p as small as any in too large a share of the permutations.

    Args:
        settings: of the statistics.
        num_families: of the run.
        unreached: families of which no p passes.
    """
    too_few_permutations = num_families * 2 / (settings.permutations + 1) > settings.alpha  # another warning says so
    if settings.correction != "step_down" or not unreached or too_few_permutations:
        return []
    step = f"the strictest step, {settings.alpha / num_families:.2g} per family, accepts"
    listed = [family for family in unreached if family.arrangements < settings.permutations]
    drawn = [family for family in unreached if family.arrangements >= settings.permutations]
    warnings = []
    if listed:
        warnings.append(
            f"{len(listed)} of {num_families} families (a concept and its other side) have too few source videos: none "
            f"of their arrangements gives a p that {step}. Their comparisons can be called only after others. Use more "
            "videos per concept, ask for fewer concepts and controls, or set scores.correction to bh."
        )
    if drawn:
        enough = math.ceil(2 * max(family.cells for family in drawn) * num_families / settings.alpha)
        remedy = (
            f"Set scores.permutations to {enough} (enough unless values tie), a" if enough <= MOST_PERMUTATIONS else "A"
        )
        warnings.append(
            f"{len(drawn)} of {num_families} families (a concept and its other side) have too few permutations for "
            f"their classes and layers: none of {settings.permutations} gives a p that {step}. Their comparisons can "
            f"be called only after others. {remedy}sk for fewer concepts and controls, or set scores.correction to bh."
        )
    return warnings
