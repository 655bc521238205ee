"""The CAVs, accuracy curves and accuracies by chance of one layer, from its table of activations.

The stage `cavs` computes them block by block, and `vtcav_ray.notebook` all at once.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from vtcav_ray import tables
from vtcav_ray.cavs.chance import Comparison, comparisons
from vtcav_ray.cavs.curves import accuracy_curve
from vtcav_ray.cavs.layer_pool import LayerPool
from vtcav_ray.cavs.mix import Matching
from vtcav_ray.cavs.plan import CavJob, Pool, Sides
from vtcav_ray.cavs.pool import CURVE_REPEATS, CURVE_SIZES, against_random, plan_of, pool_of, require_finite
from vtcav_ray.cavs.train import train_cavs
from vtcav_ray.cavs.trained import Cavs
from vtcav_ray.config.statistics import CavsConfig
from vtcav_ray.store.vectors import vector_array, vectors_of


class Plan(NamedTuple):
    """What to train on the clips of a layer: usually the same for all layers."""

    names: Pool
    jobs: list[CavJob]
    compared: list[Comparison]
    warnings: list[str]


class LayerCavs:
    """One layer's activations, and what is trained on them.

    Args:
        layer: its name.
        activations: rows of the table `activations` of this layer, at least with `clip_id`, the columns
            `vtcav_ray.cavs.pool.POOL_COLUMNS`, `model` and `vector`.
        settings: of the CAVs.
        seed: of the run.
        matching: how random sets match labels; None: they don't.
        device: where to train.
        plan: of another layer of the same run, which is reused if it fits.

    Raises:
        StageError: a vector holds NaN or infinity.
    """

    def __init__(
        self,
        layer: str,
        activations: pa.Table,
        settings: CavsConfig,
        seed: int,
        matching: Matching | None = None,
        device: str | torch.device = "cpu",
        *,
        plan: Plan | None = None,
    ) -> None:
        vectors_ND = vectors_of(activations)
        require_finite(vectors_ND, activations["clip_id"].to_pylist(), layer)
        names = pool_of(activations, matching)
        if plan is None or plan.names != names:
            made = plan_of(names, settings, seed)
            plan = Plan(names, made.jobs, comparisons(names, made.jobs), made.warnings)
        self.layer, self.plan = layer, plan
        self._settings, self._seed = settings, seed
        self._tag = activations["model"][0].as_py()
        self._pool = LayerPool(vectors_ND, names.video_id, names.learnable(), device)

    def cavs(self, begin: int = 0, end: int | None = None) -> pa.Table:
        """Train the CAVs from `begin` up to `end` of the plan; rows of the table `cavs`."""
        jobs = self.plan.jobs[begin:end]
        trained = train_jobs(self._pool, jobs, self._settings, self._seed)
        return _table(self.layer, jobs, trained, self._settings, self._seed, self._tag)

    def curves(self, begin: int = 0, end: int | None = None) -> pa.Table:
        """Compute the held-out accuracy of each concept against its own random sets, over n."""
        of = list(against_random(self.plan.jobs).items())[begin:end]
        sides = []
        for _, jobs in of:
            drawn = [job.rows() for job in jobs]
            sides.append([np.unique(np.concatenate(side)) for side in zip(*drawn, strict=True)])
        settings = self._settings
        rows: list[dict[str, Any]] = []
        for piece in self._pool.pieces([np.concatenate(both) for both in sides]):
            for (concept, jobs), (positives, negatives) in zip(of[piece.items], sides[piece.items], strict=True):
                sizes = curve_sizes(jobs[0].size)
                curve = accuracy_curve(
                    piece.gram,
                    piece.place_N[positives],
                    piece.place_N[negatives],
                    sizes,
                    groups=piece.groups,
                    repeats=CURVE_REPEATS,
                    solver=settings.solver,
                    regularization=settings.regularization,
                    held_out=settings.held_out,
                    seed=self._seed,
                )
                for n, accuracy, sd in zip(sizes, curve.accuracy, curve.sd, strict=True):
                    rows.append({"layer": self.layer, "concept": concept, "n": n, "accuracy": accuracy, "sd": sd})
        return pa.Table.from_pylist(rows, schema=tables.CURVES)

    def chance(self, begin: int = 0, end: int | None = None) -> pa.Table:
        """Compute the accuracies of concepts and of their stand-ins (`vtcav_ray.cavs.chance`)."""
        rows: list[dict[str, Any]] = []
        for one in self.plan.compared[begin:end]:
            for draw, accuracy in enumerate(by_chance(self._pool, one, self._settings, self._seed)):
                of = {"layer": self.layer, "concept": one.concept, "against": one.against}
                rows.append({**of, "draw": draw, "accuracy": float(accuracy)})
        return pa.Table.from_pylist(rows, schema=tables.CHANCE)


def curve_sizes(most: int) -> list[int]:
    """Return up to five evenly spaced sizes from 3 (or `most`, if smaller) to `most` source videos per side."""
    return sorted({int(n) for n in np.linspace(min(3, most), most, CURVE_SIZES).round()})


def train_jobs(pool: LayerPool, jobs: list[CavJob], config: CavsConfig, seed: int) -> list[Cavs]:
    """Train `jobs`, sorted by split, in as few batches as their splits and the size of a Gram matrix allow."""
    return train_sides(pool, [job.rows() for job in jobs], [job.split for job in jobs], config, seed)


def train_sides(pool: LayerPool, sides: list[Sides], splits: list[int], config: CavsConfig, seed: int) -> list[Cavs]:
    """Train a CAV for each of `sides`, in order. `splits`: added to the seed of its split."""
    trained = []
    for piece in pool.pieces([np.concatenate(both) for both in sides]):
        batches = itertools.groupby(zip(splits[piece.items], sides[piece.items], strict=True), key=lambda one: one[0])
        for split, batch in batches:
            of_batch = [both for _, both in batch]
            trained.append(
                train_cavs(
                    piece.gram,
                    [piece.place_N[both.positive] for both in of_batch],
                    [piece.place_N[both.negative] for both in of_batch],
                    groups=piece.groups,
                    solver=config.solver,
                    regularization=config.regularization,
                    held_out=config.held_out,
                    seed=seed + split,
                )
            )
    return trained


def by_chance(pool: LayerPool, compared: Comparison, config: CavsConfig, seed: int) -> np.ndarray:
    """Return the mean held-out accuracies of a concept and of its stand-ins, in this order: [DRAWS + 1]."""
    drawn = compared.draws(seed)
    trained = train_sides(pool, drawn.sides, drawn.splits, config, seed)
    return drawn.means(np.concatenate([part.held_out_accuracy for part in trained]))


def _table(layer: str, jobs: list[CavJob], trained: list[Cavs], config: CavsConfig, seed: int, tag: str) -> pa.Table:
    vectors = np.concatenate([part.vectors for part in trained])
    return pa.table(
        {
            "layer": [layer] * len(jobs),
            "concept": [job.concept for job in jobs],
            "against": [job.against for job in jobs],
            "negatives": [job.negatives for job in jobs],
            "is_null": [job.is_null for job in jobs],
            "seed": [seed + job.split for job in jobs],
            "solver": [config.solver] * len(jobs),
            "n_positives": np.concatenate([part.n_positives for part in trained]).astype(np.int32),
            "n_negatives": np.concatenate([part.n_negatives for part in trained]).astype(np.int32),
            "train_accuracy": np.concatenate([part.train_accuracy for part in trained]),
            "held_out_accuracy": np.concatenate([part.held_out_accuracy for part in trained]),
            "model": [tag] * len(jobs),
            "bias": np.concatenate([part.bias for part in trained]),
            "vector": vector_array(vectors.astype(np.float32)),
            "reason": [reason for part in trained for reason in part.reason],
        },
        schema=tables.cavs(vectors.shape[1]),
    )
