"""Across layers: where a concept becomes decisive for a class, and how far neighbouring layers agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.stats

from vtcav_ray.faithful.plan import Chosen
from vtcav_ray.rows import FaithfulnessRow
from vtcav_ray.scores.choose import CellKey


def across_layers(chosen: Chosen, scores: Mapping[CellKey, Mapping[str, Any]], alpha: float) -> list[FaithfulnessRow]:
    """Return the first decisive layer of every class and concept, and the agreement of each layer with the next one.

    Decisive: the effect is significant, and so is its part within labels (`q_within`), which the class itself can't
    explain. Agreement: Spearman's rank correlation of the effects' z over classes and concepts, and the share of equal
    signs.
    """
    return [*_first_layers(chosen, scores, alpha), *_neighbours(chosen, scores)]


def _first_layers(chosen: Chosen, scores: Mapping[CellKey, Mapping[str, Any]], alpha: float) -> list[FaithfulnessRow]:
    rows = []
    for name in chosen.classes:
        for concept in chosen.concepts:
            cells = [scores.get(CellKey(name, layer, concept, "random")) for layer in chosen.layers]
            decisive = [
                place
                for place, cell in enumerate(cells)
                if cell is not None
                and cell["significant"]
                and cell["q_within"] is not None
                and cell["q_within"] <= alpha
            ]
            if decisive:
                first = decisive[0]
                rows.append(
                    FaithfulnessRow(
                        check="layers", measure="first decisive", class_=name, concept=concept,
                        layer=chosen.layers[first], value=float(first), n=len(decisive),
                        note=f"Decisive at {len(decisive)} of {len(chosen.layers)} layers, first at "
                        f"{chosen.layers[first]}.",
                    )
                )  # fmt: skip
    return rows


def _neighbours(chosen: Chosen, scores: Mapping[CellKey, Mapping[str, Any]]) -> list[FaithfulnessRow]:
    rows = []
    for one, other in zip(chosen.layers, chosen.layers[1:], strict=False):
        pairs = []
        for name in chosen.classes:
            for concept in chosen.concepts:
                cells = [scores.get(CellKey(name, layer, concept, "random")) for layer in (one, other)]
                values = [np.nan if cell is None or cell["z"] is None else cell["z"] for cell in cells]
                if np.isfinite(values).all():
                    pairs.append(values)
        if len(pairs) < 3:
            continue
        array = np.array(pairs)
        rank = float(scipy.stats.spearmanr(array[:, 0], array[:, 1]).statistic)
        same = float((np.sign(array[:, 0]) == np.sign(array[:, 1])).mean())
        of: dict[str, Any] = {"check": "layers", "layer": one, "n": len(pairs), "note": f"With {other}."}
        rows.append(FaithfulnessRow(measure="rank correlation with the next layer", value=rank, **of))
        rows.append(FaithfulnessRow(measure="same sign as the next layer", value=same, **of))
    return rows
