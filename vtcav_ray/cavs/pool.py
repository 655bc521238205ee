"""The clips of a layer as the CAVs see them: their names, their labels, and the plan made from these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from vtcav_ray.cavs.mix import Matching
from vtcav_ray.cavs.plan import RANDOM, CavJob, CavPlan, Pool, plan_cavs
from vtcav_ray.config.statistics import CavsConfig
from vtcav_ray.errors import StageError

# Of an accuracy curve: numbers of source videos, and draws of each.
CURVE_SIZES, CURVE_REPEATS = 5, 20
POOL_COLUMNS = ("set", "name", "kind", "video_id")


def plan_of(pool: Pool, settings: CavsConfig, seed: int) -> CavPlan:
    """Return the plan of a layer's CAVs."""
    return plan_cavs(pool, settings.random_sets, settings.relative, seed)


def pool_of(rows: pa.Table, matching: Matching | None) -> Pool:
    """Return the pool's metadata. A concept's name is `<name>/<kind>`, that of random clips `random/<kind>`."""
    role, name, kind, video = (rows[column].to_pylist() for column in POOL_COLUMNS)
    full = [f"{n}/{k}" if s == "concept" else n for s, n, k in zip(role, name, kind, strict=True)]
    return Pool(role, full, kind, video, matching)


def labels_of_rows(labels: Mapping[str, str], videos: Sequence[str]) -> np.ndarray:
    """Return the label of each row from those of the source videos."""
    return np.array([labels[video] for video in videos])


def against_random(jobs: Sequence[CavJob]) -> dict[str, list[CavJob]]:
    """Return concept -> its CAVs against random sets."""
    found: dict[str, list[CavJob]] = {}
    for job in jobs:
        if not job.is_null and job.against == RANDOM:
            found.setdefault(job.concept, []).append(job)
    return found


def require_finite(vectors_ND: np.ndarray, clip_ids: list[str], layer: str) -> None:
    """Raise StageError if a stored vector holds NaN: extraction leaves such clips out, so the table is damaged."""
    bad = np.flatnonzero(~np.isfinite(vectors_ND).all(axis=1))
    if bad.size:
        raise StageError(
            f"{bad.size} stored vector(s) of layer `{layer}` hold NaN or infinity, the first that of clip "
            f"{clip_ids[bad[0]]}. Delete the folder of the stage `activations` and run again."
        )
