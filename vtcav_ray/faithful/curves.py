"""Deletion and insertion curves: a class's target while its concepts are erased one after the other, or come back.

    deletion area  = mean over k of (target of the whole activation - target after k erased concepts)
    insertion area = mean over k of (target with only the first k concepts left in - target with none)

(Petsiuk et al., RISE, BMVC 2018, for places; here for directions.) Both are in logits, so that they need no baseline
image. An order that starts with what matters has a large area in both. The same areas for directions of chance say what
erasing any directions does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vtcav_ray.heatmaps.intervals import mean_interval
from vtcav_ray.rows import FaithfulnessRow

ORDERS = ("in_order", "reversed", "shuffled")
_WORDS = {"in_order": "in order of effect", "reversed": "in reverse order", "shuffled": "in random order"}


def curve_rows(erasures: pa.Table) -> list[FaithfulnessRow]:
    """Return the areas of every class and layer that has curves."""
    by: dict[tuple[str, str], dict[tuple[str, str], dict[str, list[Any]]]] = {}
    for row in erasures.to_pylist():
        if row["what"] in (*ORDERS, "random_order"):
            of = by.setdefault((row["class"], row["layer"]), {})
            of.setdefault((row["what"], row["name"]), {}).setdefault(row["video_id"], []).append(row["changes"])
    rows: list[FaithfulnessRow] = []
    for (name, layer), curves in by.items():
        changes = {what: _by_video(videos) for (what, _), videos in curves.items() if what in ORDERS}
        chains = [_by_video(videos) for (what, _), videos in curves.items() if what == "random_order"]
        if set(changes) == set(ORDERS) and chains:
            rows += _areas(name, layer, changes, chains)
    return rows


def _areas(
    name: str, layer: str, changes: dict[str, NDArray[np.float64]], chains: list[NDArray[np.float64]]
) -> list[FaithfulnessRow]:
    of: dict[str, Any] = {"class_": name, "layer": layer, "n": len(changes["in_order"])}
    deletion_V = {what: deletion(curve) for what, curve in changes.items()}
    null = np.array([deletion(chain).mean() for chain in chains])
    rows = [
        FaithfulnessRow(
            check="deletion", measure=f"area {_WORDS[what]}", random=float(null.mean()),
            p=float((1 + (null >= area.mean()).sum()) / (1 + len(null))), **_interval(area), **of,
        )
        for what, area in deletion_V.items()
    ]  # fmt: skip
    chance_V = np.mean([deletion(chain) for chain in chains], axis=0)
    for measure, difference in (
        ("area beyond random directions", deletion_V["in_order"] - chance_V),
        ("area beyond the reverse order", deletion_V["in_order"] - deletion_V["reversed"]),
    ):
        rows.append(FaithfulnessRow(check="deletion", measure=measure, **_interval(difference), **of))
    # Concepts come back in order of effect: what is still erased are the last ones, as in the reversed deletion.
    inserted = {"in_order": changes["reversed"], "reversed": changes["in_order"]}
    for what, curve in inserted.items():
        area = insertion(curve)
        rows.append(FaithfulnessRow(check="insertion", measure=f"area {_WORDS[what]}", **_interval(area), **of))
    return rows


def deletion(changes_VK: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the deletion area per source video, [V], from the changes after 1, ..., K erased concepts, [V, K]."""
    return np.asarray(-changes_VK.mean(axis=1))


def insertion(opposite_VK: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the insertion area per source video, [V].

    Args:
        opposite_VK: changes while the concepts are erased in the OPPOSITE order, [V, K]: after K - k of them, only the
            first k of the order are left in.
    """
    none_left, with_first = opposite_VK[:, -1:], opposite_VK[:, -2::-1]
    whole = np.zeros_like(none_left)  # all K left in: no change
    return np.asarray((np.concatenate((with_first, whole), axis=1) - none_left).mean(axis=1))


def _interval(values_V: NDArray[np.float64]) -> dict[str, Any]:
    mean, low, high = (None if np.isnan(v) else float(v) for v in mean_interval(values_V))
    return {"value": mean, "ci_low": low, "ci_high": high}


def _by_video(videos: dict[str, list[list[float]]]) -> NDArray[np.float64]:
    return np.array([np.mean(curves, axis=0) for _, curves in sorted(videos.items())])
