"""Stage `cavs`: every CAV of every layer. A shard is a layer: one Gram matrix, all its CAVs in batches."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pyarrow as pa

from vtcav_ray import tables
from vtcav_ray.cavs.gram_matrix import gram
from vtcav_ray.cavs.plan import CavJob, CavPlan, Pool, plan_cavs
from vtcav_ray.cavs.train import Cavs, train_cavs
from vtcav_ray.concepts.accepted import HEAD_COLUMNS, TABLE, AcceptedRows, LeftOut, leave_out
from vtcav_ray.concepts.decisions import Decisions, read_decisions
from vtcav_ray.config import CavsConfig, Config
from vtcav_ray.errors import StageError
from vtcav_ray.stage import Context, Shard, Stage, Work
from vtcav_ray.storage import ShardOutput, StageFolder, vector_array, vectors_of

POOL_COLUMNS = ("set", "name", "kind", "video_id")


def _prepare(context: Context) -> Work:
    config, left_out = context.config, _left_out(context)
    activations = AcceptedRows.of(context.input("activations"), list(left_out.reasons))
    layers = config.activations.layers
    plan = read_plan(activations, layers[0], config)
    return Work(
        shards=[Shard(f"{number:02d}-{layer}", pa.table({"layer": [layer]})) for number, layer in enumerate(layers)],
        make_worker=functools.partial(CavWorker, config, activations),
        resources=config.resources.statistics,
        warnings=[*left_out.warnings, *plan.warnings],
        notes={"cavs_a_layer": len(plan.jobs)},
        finish=functools.partial(_write_left_out, left_out),
    )


def _left_out(context: Context) -> LeftOut:
    """Clips that a person rejected, or that repeat another one: the CAVs, and all that follows, go without them."""
    clips = context.input("clips")
    heads = clips.read("clips", columns=HEAD_COLUMNS)
    assert heads is not None, "there are activations"
    repeats = clips.read("duplicates")
    duplicates = {} if repeats is None else dict(zip(*(c.to_pylist() for c in repeats.columns), strict=True))
    return leave_out(
        heads,
        duplicates,
        _decisions(context),
        undecided_count=context.config.review.undecided == "use",
        min_videos=context.config.clips.min_per_concept,
    )


def _decisions(context: Context) -> Decisions:
    """Read once: an edit between the key and the work must not get into the work."""
    if "decisions" not in context.memo:
        context.memo["decisions"] = read_decisions(context.run)
    found = context.memo["decisions"]
    assert isinstance(found, Decisions)
    return found


def _write_left_out(left_out: LeftOut, output: StageFolder) -> ShardOutput:
    table = left_out.table()
    return ShardOutput({TABLE: table} if table.num_rows else {}, metrics={"clips_left_out": table.num_rows})


def read_plan(activations: StageFolder, layer: str, config: Config) -> CavPlan:
    """The plan of a layer's CAVs, from the names of its clips.

    Raises:
        StageError: there is nothing to train.
    """
    rows = activations.read("activations", columns=POOL_COLUMNS, layer=layer)
    if rows is None:
        raise StageError("No activations to learn from: every clip failed. See `vtcav table RUN failures`.")
    plan = plan_cavs(pool_of(rows), config.cavs.random_sets, config.cavs.relative, config.seed)
    if not plan.jobs:
        raise StageError(
            "No concept has enough clips for a CAV. "
            + " ".join(plan.warnings)
            + " Add videos, name other concepts, or "
            "lower clips.per_class so that fewer videos are kept for the classes."
        )
    return plan


def pool_of(rows: pa.Table) -> Pool:
    """The pool's metadata. A concept is known by `<name>/<kind>`, random clips by `random/<kind>`."""
    role, name, kind, video = (rows[column].to_pylist() for column in POOL_COLUMNS)
    full = [f"{n}/{k}" if s == "concept" else n for s, n, k in zip(role, name, kind, strict=True)]
    return Pool(role, full, kind, video)


def _ingredients(context: Context) -> dict[str, Any]:
    review = context.config.review
    return {
        "cavs": context.config.cavs.model_dump(mode="json"),
        "seed": context.config.seed,
        "review": _decisions(context).effective(undecided_count=review.undecided == "use"),
        "undecided": review.undecided,
        "min_per_concept": context.config.clips.min_per_concept,
    }


STAGE = Stage("cavs", inputs=("clips", "activations"), version=2, ingredients=_ingredients, prepare=_prepare)


class CavWorker:
    """Trains all CAVs of one layer."""

    def __init__(self, config: Config, activations: StageFolder) -> None:
        self.config = config
        self.activations = activations

    def __call__(self, rows: pa.Table) -> ShardOutput:
        layer = rows["layer"][0].as_py()
        pool = self.activations.read("activations", columns=(*POOL_COLUMNS, "model", "vector"), layer=layer)
        assert pool is not None, "the plan was made from this table"
        jobs = read_plan(self.activations, layer, self.config).jobs
        trained = train_jobs(vectors_of(pool), pool["video_id"].to_pylist(), jobs, self.config.cavs, self.config.seed)
        tag = pool["model"][0].as_py()
        table = _table(layer, jobs, trained, self.config.cavs, self.config.seed, tag)
        untrained = sum(not np.isfinite(part.bias).all() for part in trained)
        return ShardOutput({f"cavs/layer={layer}": table}, metrics={"cavs": len(jobs), "cavs_not_trained": untrained})


def train_jobs(
    vectors_Nd: np.ndarray, videos_N: list[str], jobs: list[CavJob], config: CavsConfig, seed: int
) -> list[Cavs]:
    """Train `jobs`, ordered by split, as one batch a split. The Gram matrix is shared by all of them."""
    matrix = gram(vectors_Nd)
    batches = [(split, list(part)) for split, part in itertools.groupby(jobs, key=lambda job: job.split)]
    return [
        train_cavs(
            matrix,
            [job.positive_rows for job in batch],
            [job.negative_rows for job in batch],
            groups=videos_N,
            solver=config.solver,
            regularization=config.regularization,
            held_out=config.held_out,
            seed=seed + split,
        )
        for split, batch in batches
    ]


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
        },
        schema=tables.cavs(vectors.shape[1]),
    )
