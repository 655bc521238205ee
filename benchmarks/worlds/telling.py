"""Which figures of the checks tell true concepts from false ones: areas under ROC, by world.

An item is what a figure is about: a cell (layer, class, concept), a pair (class, concept), a concept, or a curve
(layer, class, factor). It is true if the verdict of the world (`scoring.VERDICTS`) is not `none`. Most figures have no
sign (erasing what a class uses lowers it, whether the concept raises or lowers the class), so all are compared without
one.

The area is that of one network's items, averaged over the networks of a world, since a reader ranks the items of one
run. Its interval resamples networks, and in each its concepts (or factors), with all their layers and classes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worlds.clips import FACTOR_OF, FACTORS
from worlds.scoring import CONCEPTS, NULLS, VERDICTS, moves_as_planted

# The bar, written before any result. A figure tells true concepts from false if, on average over the trained worlds,
# its area is at least `LEAST_AUC` with an interval above 1/2, and no world's area is below `LEAST_IN_A_WORLD`.
LEAST_AUC, LEAST_IN_A_WORLD = 0.75, 0.6
TRAINED = tuple(world for world in VERDICTS if world != "untrained")
RESAMPLES = 1000
ITEMS = ("cells", "curves", "pairs", "concepts")
Items = Sequence[dict[str, Any]]


def is_true(world: str, subject: str) -> bool:
    """Return whether a concept, or a factor, is what the world's label is made from."""
    names = FACTORS.get(subject, (subject,))
    return any(name in VERDICTS[world] for name in names)


def surest(columns: Items) -> dict[str, Any]:
    """Return the figure of a layer from those of its columns: the smallest p, then the largest size."""
    return max(columns, key=key)


def key(figure: dict[str, Any]) -> tuple[float, float]:
    """Return what a figure is ranked by. A figure that is not known ranks last."""
    p, size = figure.get("p"), figure.get("size")
    return (-2.0 if size is None else -(p or 0.0), 0.0 if size is None else size)


def summary(runs: Sequence[dict[str, Any]], only: Collection[str] = ()) -> dict[str, Any]:
    """Return figure -> world, or `all` -> area and interval, and whether the figure `tells`.

    Args:
        only: names of figures; empty: all.
    """
    scored = [run for run in runs if "cells" in run]
    out: dict[str, Any] = {}
    for items in ITEMS:
        for name in dict.fromkeys(n for run in scored for item in run[items] for n in item["figures"]):
            if not only or name in only:
                out[name] = _figure(scored, items, name)
    return out


def _figure(runs: Sequence[dict[str, Any]], items: str, name: str) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {"of": items}
    drawn: list[NDArray[np.float64]] = []
    for world in TRAINED:
        networks = [_Ranked(run, items, name) for run in runs if run["world"] == world]
        networks = [one for one in networks if one.usable]
        if not networks:
            continue
        each = [one.area() for one in networks]
        resampled = np.array([
            np.mean([networks[i].area(rng) for i in rng.integers(len(networks), size=len(networks))])
            for _ in range(RESAMPLES)
        ])  # fmt: skip
        drawn.append(resampled)
        found[world] = _interval(float(np.mean(each)), resampled)
        if items == "cells":
            moved = [area for one in networks if (area := one.area(moved=True)) is not None]
            found[world]["moved"] = round(float(np.mean(moved)), 4) if moved else None
    if drawn:
        mean = float(np.mean([found[world]["auc"] for world in TRAINED if world in found]))
        found["all"] = _interval(mean, np.mean(drawn, axis=0))
        found["tells"] = tells(found)
    return found


def tells(found: dict[str, Any]) -> bool:
    """Return whether a figure passes the bar."""
    worlds = [found[world]["auc"] for world in TRAINED if world in found]
    return found["all"]["auc"] >= LEAST_AUC and found["all"]["low"] > 0.5 and min(worlds) >= LEAST_IN_A_WORLD


class _Ranked:
    """One network's items under one figure: which true item ranks above which false one."""

    def __init__(self, run: dict[str, Any], items: str, name: str) -> None:
        of = [item for item in run[items] if name in item["figures"]]
        self.true = [item for item in of if item["true"]]
        self.false = [item for item in of if not item["true"]]
        own, other = ([key(item["figures"][name]) for item in side] for side in (self.true, self.false))
        self.wins = np.array([[(a > b) + 0.5 * (a == b) for b in other] for a in own], np.float64)

    @property
    def usable(self) -> bool:
        return bool(self.true and self.false)

    def area(self, rng: np.random.Generator | None = None, *, moved: bool = False) -> float | None:
        """Return the area; with `rng`, of resampled concepts; `moved`: only of true cells that their layer moves."""
        left = np.array([float(not moved or item.get("moved", False)) for item in self.true])
        right = np.ones(len(self.false))
        if rng is not None:
            left, right = left * _drawn(self.true, rng), _drawn(self.false, rng)
        if not left.sum():
            return None
        return float(left @ self.wins @ right / (left.sum() * right.sum()))


def _drawn(items: Items, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return how often each item is drawn if its subjects are drawn with replacement."""
    subjects = list(dict.fromkeys(item["subject"] for item in items))
    times = np.bincount(rng.integers(len(subjects), size=len(subjects)), minlength=len(subjects))
    return np.array([times[subjects.index(item["subject"])] for item in items], np.float64)


def _interval(value: float, resampled: NDArray[np.float64]) -> dict[str, float]:
    low, high = np.quantile(resampled, (0.025, 0.975))
    return {"auc": round(value, 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def layer_moves(run: dict[str, Any], layer: str, k: int, concept: str) -> bool:
    """Return whether the layer's direction of the concept's factor moves the class's logit as planted."""
    if concept in NULLS:
        return False
    factor = FACTOR_OF[concept]
    one = run["moves"][layer][factor][k]
    sign = 1 if FACTORS[factor][0] == concept else -1
    verdict = VERDICTS[run["world"]].get(concept, ("none", "none"))[k]
    return moves_as_planted({"verdict": verdict, "move_z": sign * one["mean"] / max(one["error"], 1e-12)})


def markdown(result: dict[str, Any]) -> str:
    """Return the areas of every figure by world, and the areas of curves by order."""
    worlds = [world for world in TRAINED if any(world in one for one in result["summary"].values())]
    lines = [
        f"| figure | of | {' | '.join(worlds)} | all | tells |",
        f"| --- | --- | {' | '.join('---' for _ in worlds)} | --- | --- |",
    ]
    for name, one in result["summary"].items():
        cells = [_text(one.get(world)) for world in worlds]
        told = "yes" if one.get("tells") else "no"
        lines.append(f"| {name} | {one['of']} | {' | '.join(cells)} | {_text(one.get('all'), True)} | {told} |")
    lines += ["", "| order of the curve | true among the first | beyond random directions | beyond the reverse |"]
    lines += ["| --- | --- | --- | --- |"]
    for name, one in result["orders"].items():
        shown = " | ".join(f"{one[m]['mean']:+.2f} ({one[m]['clear']:.2f})" for m in MEASURES)
        lines.append(f"| {name} | {one['true_first']:.2f} | {shown} |")
    lines += ["", "| weights shuffled | called | r with the run's |", "| --- | --- | --- |"]
    for level, one in result["levels"].items():
        r = f"{one['r'][0]:.2f} to {one['r'][-1]:.2f}"
        lines.append(f"| {level} | {one['called']} of {one['cells']} | {r} |")
    return "\n".join(lines)


MEASURES = ("area beyond random directions", "area beyond the reverse order")


def orders(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return order -> share of true concepts among the first half, and the mean area (share of intervals above 0)."""
    out: dict[str, Any] = {}
    rows = [row for run in runs for row in run.get("orders", ())]
    for name in dict.fromkeys(row["order"] for row in rows):
        of = [row for row in rows if row["order"] == name]
        out[name] = {"true_first": round(float(np.mean([row["true_first"] for row in of])), 4)}
        for measure in MEASURES:
            values = [row["areas"][measure] for row in of]
            clear = float(np.mean([low is not None and low > 0 for _, low in values]))
            out[name][measure] = {"mean": round(float(np.mean([v for v, _ in values])), 4), "clear": round(clear, 4)}
    return out


def levels(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return level of shuffled weights -> called cells and the correlations of all networks, ascending."""
    rows = [row for run in runs if run["world"] != "untrained" for row in run.get("levels", ())]
    out = {}
    for name in dict.fromkeys(row["level"] for row in rows):
        of = [row for row in rows if row["level"] == name]
        out[name] = {
            "called": int(sum(row["called"] for row in of)),
            "cells": sum(row["cells"] for row in of),
            "r": sorted(row["r"] for row in of),
        }
    return out


def _text(found: dict[str, Any] | None, interval: bool = False) -> str:
    if found is None:
        return ""
    moved_only = f" ({found['moved']:.2f})" if found.get("moved") is not None else ""
    return f"{found['auc']:.2f}{moved_only}" + (f" [{found['low']:.2f}, {found['high']:.2f}]" if interval else "")


assert set(CONCEPTS) == {*FACTOR_OF, *NULLS}
