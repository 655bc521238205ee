"""The figures of the checks on one network, by what they are about: cells, curves, pairs, concepts, orders, levels.

A layer has several columns; its figure is the surest of them (`telling.surest`).

Legend: K classes, J concepts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vtcav_ray.faithful.across import across_layers
from vtcav_ray.faithful.curves import curve_rows
from vtcav_ray.faithful.effects import Tested
from vtcav_ray.faithful.plan import Chosen
from vtcav_ray.faithful.summary import first_order, necessity, randomised, stability
from vtcav_ray.rows import FaithfulnessRow, RandomisedRow, table_of
from vtcav_ray.scores.choose import CellKey
from vtcav_ray.tcav import holm_over_families
from worlds.checks import ALL_COLUMNS, ALPHA, CLASSES, KIND, Erased
from worlds.clips import FACTORS
from worlds.recipes import Answers
from worlds.recogniser import COLUMNS, LAYERS
from worlds.scoring import CONCEPTS, NULLS
from worlds.telling import MEASURES, is_true, layer_moves, surest

GROUPS: dict[str, tuple[str, str]] = {**FACTORS, "random": (NULLS[0], NULLS[1])}
COLUMN_OF = {name: layer for layer, names in COLUMNS.items() for name in names}
IN_CURVES = 4
SAME_SIGN = "same sign at columns"
Orders = Mapping[str, Mapping[tuple[str, str], Sequence[str]]]  # name -> (class, column) -> concepts
Figures = dict[tuple[str, str, str], dict[str, dict[str, float | None]]]  # (class, column, concept) -> figures


def cell_figures(
    erased: Erased, counts: tuple[NDArray[Any], NDArray[Any]], shuffled: Mapping[str, Sequence[Tested]]
) -> Figures:
    """Return the figures of every column."""
    out: Figures = {}

    def put(at: tuple[Any, Any, Any], name: str, size: float | None, p: float | None = None) -> None:
        known = None if size is None or not np.isfinite(size) else float(size)
        out.setdefault(at, {})[name] = {"size": known} | ({} if p is None else {"p": float(p)})

    spread = random_spread(erased.erasures)
    for row in necessity(erased.erasures):
        name = {"change": "necessity", "change along the CAV": "CAV"}.get(row.measure)
        if name is None or row.value is None or row.random is None:
            continue
        at = (row.class_, row.layer, str(row.concept).rpartition("/")[0])
        z = (row.random - row.value) / spread[str(row.class_), str(row.layer)]
        put(at, f"{name} p", z, row.p)
        put(at, f"{name} z", z)
        put(at, f"{name} fall", -row.value)
    for at, figures in _real_changes(first_order(erased.finite)).items():
        for name, size in figures.items():
            put(at, name, size)
    scores, ps = counts
    for c, column in enumerate(ALL_COLUMNS):
        for k, class_ in enumerate(CLASSES):
            for j, concept in enumerate(CONCEPTS):
                put((class_, column, concept), "sign count", abs(scores[c, k, j] - 0.5), ps[c, k, j])
    for level, tested in shuffled.items():
        for one in tested:
            put((one.class_, one.layer, one.concept.rpartition("/")[0]), f"shuffled {level}", abs(one.z))
    return out


def random_spread(erasures: pa.Table) -> dict[tuple[str, str], float]:
    """Return the standard deviation of the mean changes over random directions, by class and column."""
    by: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in erasures.to_pylist():
        if row["what"] == "random":
            by.setdefault((row["class"], row["layer"]), {}).setdefault(row["name"], []).append(row["changes"][0])
    return {at: float(np.std([np.mean(values) for values in of.values()], ddof=1)) for at, of in by.items()}


def _real_changes(rows: Sequence[FaithfulnessRow]) -> dict[tuple[Any, Any, Any], dict[str, float]]:
    real = {(r.class_, r.layer, r.concept): r for r in rows if r.measure == "real change"}
    out = {}
    for row in rows:
        if row.measure != "first-order change":
            continue
        one = real[row.class_, row.layer, row.concept]
        if one.value is None or row.value is None or one.ci_low is None or one.ci_high is None:
            continue
        half = max((one.ci_high - one.ci_low) / 2, 1e-12)
        at = (row.class_, row.layer, str(row.concept).rpartition("/")[0])
        out[at] = {
            "real change": abs(one.value),
            "real change clear": abs(one.value) / half,
            "same sign": float(one.value * row.value > 0),
            SAME_SIGN: float(one.value * row.value > 0),
        }
    return out


def cells(report: dict[str, Any], answers: Mapping[str, Answers], by_column: Figures) -> list[dict[str, Any]]:
    """Return every layer, class and concept with its figures; of a check, those of its surest column."""
    out = []
    for i, layer in enumerate(LAYERS):
        for k, class_ in enumerate(CLASSES):
            for j, concept in enumerate(CONCEPTS):
                figures: dict[str, Any] = {
                    name: {"size": digits(abs(one.z[i, k, j])), "p": digits(one.p[i, k, j])}
                    for name, one in answers.items()
                }
                columns = [by_column[class_, column, concept] for column in COLUMNS[layer]]
                for name in dict.fromkeys(name for one in columns for name in one):
                    of = [one[name] for one in columns if name in one]
                    # The surest column agrees as soon as one of three does.
                    best = {"size": float(np.mean([one["size"] for one in of]))} if name == SAME_SIGN else surest(of)
                    figures[name] = {n: None if v is None else digits(v) for n, v in best.items()}
                moved = layer_moves(report, layer, k, concept)
                about = {"layer": layer, "class": class_, "subject": concept, "moved": moved}
                out.append({**about, "true": is_true(report["world"], concept), "figures": figures})
    return out


def curves(world: str, erased: Erased) -> list[dict[str, Any]]:
    """Return every layer, class and factor with the figures of the curve that erases the factor's two concepts."""
    by: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for group in GROUPS:
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for row in curve_rows(erased.curves[group]):
            of = found.setdefault((str(row.class_), str(row.layer)), {})
            if row.measure == MEASURES[0] and row.value is not None:
                of["area beyond random"] = {"size": digits(row.value)}
            elif (row.check, row.measure) == ("deletion", "area in order of effect") and row.value is not None:
                of["area p"] = {"size": digits(row.value), "p": digits(row.p or 1.0)}
            elif (row.check, row.measure) == ("insertion", "area in order of effect") and row.value is not None:
                of["insertion area"] = {"size": digits(row.value)}
        for (class_, column), figures in found.items():
            by.setdefault((COLUMN_OF[column], class_, group), []).append(figures)
    return [
        {
            "layer": layer,
            "class": class_,
            "subject": group,
            "true": is_true(world, group),
            "figures": {name: surest([one[name] for one in columns]) for name in columns[0]},
        }
        for (layer, class_, group), columns in by.items()
    ]


def pairs(world: str, effects: Sequence[Tested]) -> list[dict[str, Any]]:
    """Return every class and concept with how early, and at how many columns, its effect is significant."""
    chosen = Chosen(ALL_COLUMNS, CLASSES, tuple(f"{one}/{KIND}" for one in CONCEPTS), 0, 0, {})
    first = {(row.class_, row.concept): row for row in across_layers(chosen, scores_of(effects), ALPHA)}
    out = []
    for class_ in CLASSES:
        for concept in CONCEPTS:
            row = first.get((class_, f"{concept}/{KIND}"))
            early = -float(len(ALL_COLUMNS)) if row is None or row.value is None else -row.value
            figures = {
                "first decisive": {"size": early},
                "decisive layers": {"size": float(0 if row is None else row.n or 0)},
            }
            true = is_true(world, concept)
            out.append({"class": class_, "subject": concept, "true": true, "figures": figures})
    return out


def scores_of(effects: Sequence[Tested]) -> dict[CellKey, dict[str, Any]]:
    """Return the columns of `scores` that the checks read. Without labels, `q_within` is the effect's own q."""
    families: dict[str, list[Tested]] = {}
    for one in effects:
        families.setdefault(one.concept, []).append(one)
    q = holm_over_families([[one.p_adjusted for one in of] for of in families.values()])
    return {
        CellKey(one.class_, one.layer, one.concept, "random"): {
            "z": one.z,
            "significant": bool(value <= ALPHA),
            "q_within": float(value),
        }
        for of, values in zip(families.values(), q, strict=True)
        for one, value in zip(of, values, strict=True)
    }


def concepts(world: str, split: pa.Table) -> list[dict[str, Any]]:
    """Return every concept with its stability."""
    names = {
        "correlation of halves": "halves r",
        "same verdict": "halves verdict",
        "same verdict where one half calls": "halves verdict, called",
    }
    figures: dict[str, dict[str, Any]] = {name: {n: {"size": None} for n in names.values()} for name in CONCEPTS}
    for row in stability(split):
        if row.value is not None:
            figures[str(row.concept).rpartition("/")[0]][names[row.measure]] = {"size": digits(row.value)}
    return [{"subject": n, "true": is_true(world, n), "figures": of} for n, of in figures.items()]


def order_rows(world: str, erased: Erased, orders: Orders) -> list[dict[str, Any]]:
    """Return every column and class with the areas of its curve, by way of ordering the concepts."""
    out = []
    for name, of in orders.items():
        if not name.startswith("by "):
            continue
        areas: dict[tuple[str, str], dict[str, Any]] = {}
        for row in curve_rows(erased.curves[name]):
            if row.measure in MEASURES and row.value is not None:
                low = None if row.ci_low is None else digits(row.ci_low)
                areas.setdefault((str(row.class_), str(row.layer)), {})[row.measure] = [digits(row.value), low]
        for at, found in areas.items():
            first = [one.rpartition("/")[0] for one in of[at][: IN_CURVES // 2]]
            share = float(np.mean([is_true(world, one) for one in first]))
            out.append({"order": name, "class": at[0], "layer": at[1], "true_first": share, "areas": found})
    return out


def level_rows(effects: Sequence[Tested], shuffled: Mapping[str, Sequence[Tested]]) -> list[dict[str, Any]]:
    """Return the called effects and the correlation with the run's of each level of shuffled weights."""
    rows = [
        RandomisedRow(level=level, class_=one.class_, layer=one.layer, concept=one.concept, z=one.z,
                      p_adjusted=one.p_adjusted)
        for level, tested in shuffled.items()
        for one in tested
    ]  # fmt: skip
    found = randomised(table_of(rows, RandomisedRow), scores_of(effects), ALPHA)
    by: dict[str, dict[str, Any]] = {}
    for row in found:
        of = by.setdefault(str(row.layer), {"level": row.layer, "cells": row.n})
        of["called" if row.measure == "called" else "r"] = None if row.value is None else digits(row.value)
    return list(by.values())


def digits(value: float) -> float:
    return float(f"{value:.4g}")
