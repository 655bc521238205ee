"""The quality of the recipes' answers, compared with verdicts that were written down first.

A run is one network of one world: JSON with `world`, `seed` and, if it is scored, `swaps` (factor -> class ->
`mean`, `error`), `moves` (the same of each layer: layer -> factor -> class) and `answers` (recipe -> `z`, `p` and `q`,
nested lists [layer][class][concept]). The recipes within labels are only in the world `together`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.stats

from worlds.clips import FACTOR_OF, FACTORS
from worlds.recipes import RECIPES
from worlds.recogniser import LAYERS

NULLS = ("random a", "random b", "random c")
CONCEPTS = (*FACTOR_OF, *NULLS)
# World -> concept -> its effect on class 0 and on class 1, at every layer. A missing concept has `none`.
VERDICTS: dict[str, dict[str, tuple[str, str]]] = {
    "motion": {"left": ("positive", "negative"), "right": ("negative", "positive")},
    "kind": {"ball": ("positive", "negative"), "box": ("negative", "positive")},
    "shortcut": {"stripes": ("positive", "negative"), "checks": ("negative", "positive")},
    "both": {
        "ball": ("negative", "positive"),
        "left": ("negative", "positive"),
        "box": ("positive", "negative"),
        "right": ("positive", "negative"),
    },
    # The backdrop only goes along: the videos' label goes with motion and backdrop, the network was trained on motion.
    "together": {"left": ("positive", "negative"), "right": ("negative", "positive")},
    "untrained": {},
}
ALONG = {"together": FACTORS["backdrop"]}
WORLDS = tuple(VERDICTS)
RATES = (0.05, 0.01)
# What `--check` requires of the effect in the smoke run of the world `motion`, at the layers after the first (where,
# also in the committed runs, a first-order effect sees less).
CHECKED, CHECKED_LAYERS = "effect", LAYERS[1:]
LEAST_AUC, LEAST_POWER, MOST_RANDOM_CALLED = 0.9, 0.75, 0.05


def cells_of(run: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one dict per (layer, class, concept): verdict, result of the swap, and each recipe's `z`, `p` and `q`."""
    if "answers" not in run:
        return []
    found = {
        recipe: {name: np.array(answer[name], np.float64) for name in ("z", "p", "q")}
        for recipe, answer in run["answers"].items()
    }
    cells = []
    for at, layer in enumerate(LAYERS):
        for k in (0, 1):
            for j, concept in enumerate(CONCEPTS):
                swap = move = None
                if concept in FACTOR_OF:
                    factor = FACTOR_OF[concept]
                    sign = 1 if FACTORS[factor][0] == concept else -1
                    swap, move = (
                        sign * one["mean"] / max(one["error"], 1e-12)
                        for one in (run["swaps"][factor][k], run["moves"][layer][factor][k])
                    )
                cells.append(
                    {
                        "world": run["world"],
                        "layer": layer,
                        "concept": concept,
                        "verdict": VERDICTS[run["world"]].get(concept, ("none", "none"))[k],
                        "swap_z": swap,
                        "move_z": move,
                        **{r: {name: float(v[at, k, j]) for name, v in one.items()} for r, one in found.items()},
                    }
                )
    return cells


def summary(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Return power, false positives, area under ROC and calibration of each recipe that has answers in all of them."""
    return {recipe: _figures(cells, recipe) for recipe in RECIPES if cells and all(recipe in c for c in cells)}


def _figures(cells: list[dict[str, Any]], recipe: str) -> dict[str, Any]:
    signal = [c for c in cells if c["verdict"] != "none"]
    none = [c for c in cells if c["verdict"] == "none" and c["concept"] not in NULLS]
    nulls = [c for c in cells if c["concept"] in NULLS]
    moved = [c for c in signal if moves_as_planted(c)]
    called = [c for c in none if c[recipe]["q"] <= 0.05]
    along = [c for c in none if c["concept"] in ALONG.get(c["world"], ())]
    confirmed = [c for c in called if abs(c["swap_z"]) > 3 and (c["swap_z"] > 0) == (c[recipe]["z"] > 0)]
    return {
        "power": _rate([_right(c, recipe) and c[recipe]["q"] <= 0.05 for c in signal]),
        "wrong_sign_called": sum(not _right(c, recipe) and c[recipe]["q"] <= 0.05 for c in signal),
        "none_called": _rate([c in called for c in none]),
        "none_called_confirmed_by_swap": len(confirmed),
        "along_called": _rate([c in called for c in along]),
        "along_p": _rate([c[recipe]["p"] <= 0.05 for c in along]),
        "random_called": _rate([c[recipe]["q"] <= 0.05 for c in nulls]),
        "random_p": {str(alpha): _rate([c[recipe]["p"] <= alpha + 1e-12 for c in nulls]) for alpha in RATES},
        "auc": _auc(signal, none + nulls, recipe),
        "auc_random_only": _auc(signal, nulls, recipe),
        "auc_moved": _auc(moved, none + nulls, recipe),
    }


def moves_as_planted(cell: dict[str, Any]) -> bool:
    """Return whether the layer's direction of the factor moves the logit as in the verdict, by 3 standard errors."""
    return cell["verdict"] != "none" and (cell["move_z"] if cell["verdict"] == "positive" else -cell["move_z"]) > 3


def _right(cell: dict[str, Any], recipe: str) -> bool:
    return (cell[recipe]["z"] > 0) == (cell["verdict"] == "positive")


def _auc(signal: list[dict[str, Any]], none: list[dict[str, Any]], recipe: str) -> float | None:
    """Return the chance that a true cell ranks above a `none` cell. A true cell with the wrong sign ranks last."""
    if not signal or not none:
        return None

    def surer(c: dict[str, Any]) -> tuple[float, float]:
        if c["verdict"] != "none" and not _right(c, recipe):
            return (-2.0, 0.0)
        return (-c[recipe]["p"], abs(c[recipe]["z"]))

    own, other = [surer(c) for c in signal], [surer(c) for c in none]
    return float(np.mean([(a > b) + 0.5 * (a == b) for a in own for b in other]))


def _rate(hits: Sequence[bool]) -> dict[str, float | int] | None:
    if not hits:
        return None
    found = scipy.stats.binomtest(int(sum(hits)), len(hits))
    between = found.proportion_ci(0.95)
    rate = {"rate": found.k / found.n, "low": between.low, "high": between.high}
    return {"hits": found.k, "cells": found.n, **{name: round(float(value), 4) for name, value in rate.items()}}


def complaints(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Return what is wrong in runs of the worlds `motion` and `untrained`; empty: all is well.

    This checks ratios and counts of one small run. Their limits are far enough from the committed figures to allow for
    rounding on another machine, which trains another network.
    """
    found = [f"{r['world']}, seed {r['seed']}: {r['not_scored']}" for r in runs if "not_scored" in r]
    cells = [c for r in runs for c in cells_of(r)]
    motion = _figures([c for c in cells if c["world"] == "motion" and c["layer"] in CHECKED_LAYERS], CHECKED)
    if motion["auc"] is None or motion["auc"] < LEAST_AUC:
        found.append(f"motion: area under ROC of `{CHECKED}` {motion['auc']}, under {LEAST_AUC}")
    if motion["power"] is None or motion["power"]["rate"] < LEAST_POWER:
        found.append(f"motion: power of `{CHECKED}` {motion['power']}, under {LEAST_POWER}")
    called = [c[CHECKED]["q"] <= 0.05 for c in cells if c["concept"] in NULLS or c["world"] == "untrained"]
    if not called or np.mean(called) > MOST_RANDOM_CALLED:
        found.append(f"`{CHECKED}` calls {sum(called)} of {len(called)} cells without an effect")
    return found


def markdown(runs: Sequence[dict[str, Any]]) -> str:
    """Return tables of the figures, by world and by layer."""
    lines = ["| world | seeds scored | held-out accuracy |", "| --- | --- | --- |"]
    for world in WORLDS:
        own = [r for r in runs if r["world"] == world]
        right = ", ".join(f"{r['accuracy']:.3f}" for r in own if "accuracy" in r)
        lines.append(f"| {world} | {sum('answers' in r for r in own)} of {len(own)} | {right or 'none asked for'} |")
    cells = [c for r in runs for c in cells_of(r)]
    groups = [(world, [c for c in cells if c["world"] == world]) for world in WORLDS]
    trained = [c for c in cells if c["world"] != "untrained"]
    groups += [(f"trained, {layer}", [c for c in trained if c["layer"] == layer]) for layer in LAYERS]
    lines += [
        "",
        "| cells | recipe | power | wrong sign | `none` called (seen in swaps) | goes along: p <= 0.05, called "
        "| random called | random p <= 0.05 | AUC | AUC, moved |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, own in [group for group in groups if group[1]]:
        for recipe, f in summary(own).items():
            auc = "" if f["auc"] is None else f"{f['auc']:.3f} ({f['auc_random_only']:.3f})"
            moved = "" if f["auc_moved"] is None else f"{f['auc_moved']:.3f}"
            none = f"{_text(f['none_called'])} ({f['none_called_confirmed_by_swap']})"
            nulls = f"{_text(f['random_called'])} | {_text(f['random_p']['0.05'])}"
            lines.append(
                f"| {name} | {recipe} | {_text(f['power'])} | {f['wrong_sign_called']} | {none} | "
                f"{' '.join(filter(None, map(_text, (f['along_p'], f['along_called']))))} | {nulls} | {auc} | {moved} |"
            )
    lines += [
        "",
        "AUC: against all `none` cells (against random clips alone); moved: of the true cells, those alone whose",
    ]
    lines += ["layer's own direction moves the logit as planted:", ""]
    for name, own in groups:
        signal = [c for c in own if c["verdict"] != "none"]
        if signal:
            lines.append(f"- {name}: {sum(map(moves_as_planted, signal))} of {len(signal)}")
    return "\n".join(lines)


def _text(rate: dict[str, Any] | None) -> str:
    return "" if rate is None else f"{rate['hits']}/{rate['cells']} = {rate['rate']:.2f}"
