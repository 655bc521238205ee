"""From raw rows to the table `faithfulness`: each check's figures, beside those of random sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vtcav_ray.config import Config
from vtcav_ray.errors import StageError
from vtcav_ray.faithful.across import across_layers
from vtcav_ray.faithful.curves import curve_rows
from vtcav_ray.faithful.plan import Chosen
from vtcav_ray.faithful.randomised import WHOLE
from vtcav_ray.heatmaps.intervals import mean_interval
from vtcav_ray.rows import FaithfulnessRow, table_of
from vtcav_ray.scores.choose import CellKey
from vtcav_ray.store.commits import ShardOutput, StageFolder
from vtcav_ray.tables import CELL_KEY

MUCH = 0.5  # correlation with the effects of whole shuffled weights from which the run warns
NOTHING = "No shard has a result: every clip failed. See `vtcav table RUN failures`."
Rows = list[FaithfulnessRow]


def finished(chosen: Chosen, config: Config, scores: StageFolder, output: StageFolder) -> ShardOutput:
    """Return the stage's last shard: the table `faithfulness`."""
    erasures = output.read("erasures")
    if erasures is None:
        raise StageError(NOTHING)
    table = scores.read("scores")
    assert table is not None, "the stage is complete"
    known = {CellKey(*(row[name] for name in CELL_KEY)): row for row in table.to_pylist()}
    rows = [
        *necessity(erasures),
        *curve_rows(erasures),
        *randomised(output.read("randomised"), known, config.scores.alpha),
        *stability(output.read("halves")),
        *first_order(output.read("finite_changes")),
        *across_layers(chosen, known, config.scores.alpha),
    ]
    warnings = [row.note for row in rows if row.check == "randomised weights" and row.note]
    return ShardOutput({"faithfulness": table_of(rows, FaithfulnessRow)}, warnings=warnings)


def necessity(erasures: pa.Table) -> Rows:
    """Return how far erasing each concept lowers its class's target, among directions of chance.

    p is the share of random directions, with the concept's own, whose mean change is at most the concept's: (1 + those)
    / (1 + R), one-sided, since erasing what a class uses lowers it whether the concept raises or lowers the class.
    """
    rows: Rows = []
    for (name, layer), part in _groups(erasures, ("class", "layer")):
        by: dict[tuple[str, str], dict[str, list[tuple[float, int]]]] = {}
        for row in part:
            if row["what"] in ("pattern", "filter", "random"):
                one = by.setdefault((row["what"], row["name"]), {})
                one.setdefault(row["video_id"], []).append((row["changes"][0], row["predicted"][0]))
        for (what, concept), videos in by.items():
            if what == "random":
                continue
            kind = concept.rpartition("/")[2]
            null = np.array([_means(v, 0).mean() for (w, n), v in by.items() if w == "random" and _is_of(n, kind)])
            change_V, right_V = _means(videos, 0), _means(videos, 1)
            mean, low, high = mean_interval(change_V)
            measure = "change" if what == "pattern" else "change along the CAV"
            of: dict[str, Any] = {"class_": name, "layer": layer, "concept": concept, "n": len(change_V)}
            rows.append(
                FaithfulnessRow(
                    check="necessity",
                    measure=measure,
                    value=mean,
                    ci_low=_known(low),
                    ci_high=_known(high),
                    random=float(null.mean()) if len(null) else None,
                    p=float((1 + (null <= mean).sum()) / (1 + len(null))) if len(null) else None,
                    **of,
                )
            )
            if what == "pattern":
                share = float(right_V.mean())
                rows.append(FaithfulnessRow(check="necessity", measure="still answered", value=share, **of))
    return rows


def randomised(table: pa.Table | None, scores: dict[CellKey, dict[str, Any]], alpha: float) -> Rows:
    """Return, per level of shuffled weights, the called effects and the correlation of z with the run's.

    A note warns about calls, and about a correlation of `MUCH`, with all weights shuffled. With only the top shuffled,
    concepts still differ below it, and a random top turns that into effects of either sign: with two classes, whose
    effects mirror each other, |r| is often above 0.5 (docs/faithful.md).
    """
    rows: Rows = []
    if table is None:
        return rows
    for (level,), part in _groups(table, ("level",)):
        pairs, called = [], 0
        families = len({row["concept"] for row in part})
        for row in part:
            own = scores.get(CellKey(row["class"], row["layer"], row["concept"], "random"))
            if own is None or own["z"] is None or row["z"] is None or not np.isfinite([own["z"], row["z"]]).all():
                continue
            pairs.append((own["z"], row["z"]))
            # Bonferroni over the families: simpler than Holm, and at most as often called.
            called += row["p_adjusted"] * families <= alpha
        if len(pairs) < 3:
            continue
        r = _correlation(np.array(pairs))
        notes = []
        if called and level == WHOLE:
            notes.append(f"{called} of {len(pairs)} effects are called although all weights are shuffled.")
        if abs(r) >= MUCH and level == WHOLE:
            notes.append(f"The effects with all weights shuffled go along with the run's: r {r:.2f}.")
        of: dict[str, Any] = {"check": "randomised weights", "layer": level, "n": len(pairs)}
        rows.append(FaithfulnessRow(measure="called", value=float(called), note=" ".join(notes), **of))
        rows.append(FaithfulnessRow(measure="correlation", value=r, **of))
    return rows


def stability(table: pa.Table | None) -> Rows:
    """Return, per concept, the correlation of effects between halves and the agreement of their verdicts.

    Both are means over the splits; the interval is over splits, which share videos, so it describes the splits only.
    """
    rows: Rows = []
    if table is None:
        return rows
    for (concept,), part in _groups(table, ("concept",)):
        correlations, agreements = [], []
        for split in sorted({row["split"] for row in part}):
            here = [row for row in part if row["split"] == split]
            pairs = np.array([(row["first"], row["second"]) for row in here])
            if len(pairs) >= 3 and np.isfinite(r := _scaled_correlation(here, pairs)):
                correlations.append(r)
            agreements.append(np.mean([row["first_called"] == row["second_called"] for row in here]))
        called = [row for row in part if row["first_called"] or row["second_called"]]
        same = [row["first_called"] == row["second_called"] for row in called]
        for measure, values in (("correlation of halves", correlations), ("same verdict", agreements)):
            if values:
                array = np.array(values)
                low, high = float(array.min()), float(array.max())
                rows.append(
                    FaithfulnessRow(
                        check="stability", measure=measure, concept=concept, value=float(array.mean()),
                        ci_low=low, ci_high=high, n=len(values),
                    )
                )  # fmt: skip
        if same:
            rows.append(
                FaithfulnessRow(
                    check="stability", measure="same verdict where one half calls", concept=concept,
                    value=float(np.mean(same)), n=len(same),
                )
            )  # fmt: skip
    return rows


def first_order(table: pa.Table | None) -> Rows:
    """Return, per layer, slope, correlation and agreement in sign of real changes with first-order ones."""
    rows: Rows = []
    if table is None:
        return rows
    for (layer,), part in _groups(table, ("layer",)):
        cells = []
        for (name, concept), here in _grouped(part, ("class", "concept")):
            videos: dict[str, list[tuple[float, float]]] = {}
            for row in here:
                videos.setdefault(row["video_id"], []).append((row["predicted"], row["real"]))
            predicted, real = _means(videos, 0), _means(videos, 1)
            mean, low, high = mean_interval(real)
            differs = bool(predicted.mean() * mean < 0 and (low > 0 or high < 0))
            note = "The real change has the other sign: read the patch effect (`vtcav patch`)." if differs else ""
            cells.append((float(predicted.mean()), mean))
            rows.append(
                FaithfulnessRow(
                    check="first order", measure="real change", class_=name, layer=layer, concept=concept, value=mean,
                    ci_low=_known(low), ci_high=_known(high), n=len(real), note=note,
                )
            )  # fmt: skip
            rows.append(
                FaithfulnessRow(
                    check="first order", measure="first-order change", class_=name, layer=layer, concept=concept,
                    value=float(predicted.mean()), n=len(real),
                )
            )  # fmt: skip
        array = np.array(cells)
        of: dict[str, Any] = {"check": "first order", "layer": layer, "n": len(cells)}
        square = float(array[:, 0] @ array[:, 0])
        if len(cells) >= 3 and square > 0:
            rows.append(FaithfulnessRow(measure="slope", value=float(array[:, 0] @ array[:, 1]) / square, **of))
            rows.append(FaithfulnessRow(measure="correlation", value=_correlation(array), **of))
            same = float((np.sign(array[:, 0]) == np.sign(array[:, 1])).mean())
            rows.append(FaithfulnessRow(measure="same sign", value=same, **of))
    return rows


def _scaled_correlation(rows: Sequence[dict[str, Any]], pairs: NDArray[np.float64]) -> float:
    """Correlate effects after dividing each layer's by their root mean square: layers differ in the size of effects."""
    scaled = pairs.copy()
    for layer in {row["layer"] for row in rows}:
        at = np.array([row["layer"] == layer for row in rows])
        size = np.sqrt(np.square(pairs[at]).mean())
        scaled[at] = pairs[at] / size if size > 0 else 0.0
    return _correlation(scaled)


def _correlation(pairs_N2: NDArray[np.float64]) -> float:
    if bool(np.any(pairs_N2.std(axis=0) == 0)):
        return float("nan")
    return float(np.corrcoef(pairs_N2[:, 0], pairs_N2[:, 1])[0, 1])


def _is_of(name: str, kind: str) -> bool:
    return name.rpartition("#")[0] == kind


def _means(videos: dict[str, list[tuple[float, Any]]], place: int) -> NDArray[np.float64]:
    return np.array([np.mean([one[place] for one in values]) for _, values in sorted(videos.items())])


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def _groups(table: pa.Table, names: Sequence[str]) -> Iterator[tuple[tuple[str, ...], list[dict[str, Any]]]]:
    return _grouped(table.to_pylist(), names)


def _grouped(
    rows: Sequence[dict[str, Any]], names: Sequence[str]
) -> Iterator[tuple[tuple[str, ...], list[dict[str, Any]]]]:
    """Yield the rows by their values of some columns, in the order of the first of each."""
    found: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    yield from found.items()
