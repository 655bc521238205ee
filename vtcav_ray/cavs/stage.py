"""Stage `cavs`: every CAV of every layer.

A shard is a layer and a block of its CAVs, of its concepts' accuracy curves, or of the accuracies that chance gives, so
that layers and blocks run in parallel. A worker keeps the activations of its current layer. After the last shard, the
stage computes the cosines between concepts from all CAVs.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from vtcav_ray import stages, tables
from vtcav_ray.cavs.chance import CAVS
from vtcav_ray.cavs.mix import NO_LABEL, Matching
from vtcav_ray.cavs.plan import RANDOM, CavPlan
from vtcav_ray.cavs.pool import (
    CURVE_REPEATS,
    CURVE_SIZES,
    POOL_COLUMNS,
    against_random,
    labels_of_rows,
    plan_of,
    pool_of,
)
from vtcav_ray.clips.decisions import Decisions, read_decisions
from vtcav_ray.clips.usable import TABLE, AcceptedRows, LeftOut, left_out_of
from vtcav_ray.config import Config
from vtcav_ray.errors import StageError
from vtcav_ray.registry import SOLVERS, added_code
from vtcav_ray.runs.devices import device_for
from vtcav_ray.runs.stage import Context, Shard, Stage, Work
from vtcav_ray.store.commits import ShardOutput, StageFolder
from vtcav_ray.store.vectors import vectors_of
from vtcav_ray.text.label_sets import join_labels, split_labels

if TYPE_CHECKING:
    from vtcav_ray.cavs.layer_cavs import LayerCavs

# CAVs per shard: about a second of work, so that opening a layer (once per worker) and a Gram matrix take less than the
# training, and 24,000 CAVs still give shards for more cores than layers. Long vectors: smaller shards, as a shard's
# vectors are one table.
BLOCK_CAVS = 4096
BLOCK_NUMBERS = 1 << 26  # of a shard's vectors: 268 MB
BLOCK_CURVES = BLOCK_CAVS // (CURVE_SIZES * CURVE_REPEATS)  # concepts per shard
BLOCK_CHANCE = BLOCK_CAVS // CAVS  # comparisons per shard


def _prepare(context: Context) -> Work:
    config, left_out = context.config, _left_out(context)
    activations = AcceptedRows.of(context.input("activations"), list(left_out.reasons))
    layers = config.activations.layers
    matching = matching_of(context.input("clips"), config)
    plan = read_plan(activations, layers[0], config, matching)
    return Work(
        shards=cav_shards(activations, layers, plan),
        make_worker=functools.partial(CavWorker, config, activations, matching),
        resources=config.resources.statistics,
        warnings=[*left_out.warnings, *plan.warnings],
        notes={"cavs_a_layer": len(plan.jobs)},
        finish=functools.partial(_finish, layers, left_out),
    )


def cav_shards(activations: StageFolder, layers: Sequence[str], plan: CavPlan) -> list[Shard]:
    """Return the shards of every layer's CAVs, curves and accuracies by chance, in blocks."""
    curves = len(against_random(plan.jobs))
    compared = len({(job.concept, job.against) for job in plan.jobs if not job.is_null})
    shards = []
    for number, layer in enumerate(layers):
        block = max(1, min(BLOCK_CAVS, BLOCK_NUMBERS // _length_of_vectors(activations, layer)))
        shards += _blocks(number, layer, "cavs", len(plan.jobs), block)
        shards += _blocks(number, layer, "curves", curves, BLOCK_CURVES)
        shards += _blocks(number, layer, "chance", compared, BLOCK_CHANCE)
    return shards


def _blocks(number: int, layer: str, what: str, count: int, size: int) -> list[Shard]:
    """Split `count` items of a layer into shards of `size`."""
    return [
        Shard(
            f"{number:02d}-{layer}-{what}-{begin // size:05d}", block_of(layer, what, begin, min(count, begin + size))
        )
        for begin in range(0, count, size)
    ]


def block_of(layer: str, what: str, begin: int, end: int) -> pa.Table:
    """Return a shard's row: what to compute of a layer, from `begin` up to `end`.

    Args:
        what: `cavs`, `curves` of concepts, or the accuracies by `chance` of (concept, against).
    """
    return pa.table({"layer": [layer], "what": [what], "begin": [begin], "end": [end]})


def _length_of_vectors(activations: StageFolder, layer: str) -> int:
    for _, part in activations.iter_tables("activations", columns=("vector",), layer=layer):
        return int(part["vector"].type.list_size)
    raise StageError(f"There are no activations of layer `{layer}`: every clip failed. See `vtcav table RUN failures`.")


def _left_out(context: Context) -> LeftOut:
    """Return the clips that a person rejected or that repeat another one. CAVs and all later stages leave them out."""
    return left_out_of(context.input("clips"), _decisions(context), context.config)


def _decisions(context: Context) -> Decisions:
    """Read the decisions once: an edit between computing the key and the work must not affect the work."""
    if "decisions" not in context.memo:
        context.memo["decisions"] = read_decisions(context.input("clips").run)
    found = context.memo["decisions"]
    assert isinstance(found, Decisions)
    return found


def _finish(layers: tuple[str, ...], left_out: LeftOut, output: StageFolder) -> ShardOutput:
    table = left_out.table()
    found = entangle(layers, output) | ({TABLE: table} if table.num_rows else {})
    return ShardOutput(found, metrics={"clips_left_out": table.num_rows})


def matching_of(clips: StageFolder, config: Config) -> Matching | None:
    """Return how random sets match labels; None: they don't (`clips.random_labels: any`)."""
    return Matching(labels_of(clips), config.seed) if config.clips.random_labels == "matched" else None


def labels_of(clips: StageFolder) -> dict[str, str]:
    """Return the labels of each source video, those of all its clips; `NO_LABEL`: it has none.

    Of a video with several labels, or with clips from segments with different ones, it is the text of all of them
    (`vtcav_ray.text.label_sets`): videos are alike in their labels only if they have the same ones.
    """
    found = clips.read("clips", columns=("video_id", "label"))
    assert found is not None, "the stage is complete and has clips"
    of: dict[str, set[str]] = {}
    for video, label in zip(found["video_id"].to_pylist(), found["label"].to_pylist(), strict=True):
        of.setdefault(video, set()).update({label} - {None, ""})
    return {video: _label_of(some) for video, some in of.items()}


def _label_of(texts: Collection[str]) -> str:
    if len(texts) == 1:
        return next(iter(texts))
    return join_labels(label for text in texts for label in split_labels(text)) or NO_LABEL


def left_out_labels(clips: StageFolder, videos: Sequence[str], config: Config) -> np.ndarray | None:
    """Return the label of each row if the effects on a class leave out its own videos.

    Args:
        clips: the complete stage `clips`.
        videos: source video of each row.
        config: of the run. None is returned for `clips.concept_labels: any`.
    """
    return None if config.clips.concept_labels == "any" else labels_of_rows(labels_of(clips), videos)


def read_plan(activations: StageFolder, layer: str, config: Config, matching: Matching | None) -> CavPlan:
    """Make the plan of a layer's CAVs from the names of its clips.

    Args:
        activations: with the layer's clips.
        layer: its name.
        config: of the run.
        matching: as of `matching_of`.

    Raises:
        StageError: there are no activations, or no concept has enough clips.
    """
    rows = activations.read("activations", columns=POOL_COLUMNS, layer=layer)
    if rows is None:
        raise StageError("No activations to learn from: every clip failed. See `vtcav table RUN failures`.")
    plan = plan_of(pool_of(rows, matching), config.cavs, config.seed)
    if not plan.jobs:
        raise StageError(
            "No concept has enough clips for a CAV. "
            + " ".join(plan.warnings)
            + " Add videos, name other concepts, or "
            "lower clips.per_class so that fewer videos are kept for the classes."
        )
    return plan


def _ingredients(context: Context) -> dict[str, Any]:
    review = context.config.review
    return {
        "cavs": context.config.cavs.model_dump(mode="json"),
        **added_code({SOLVERS: [context.config.cavs.solver]}),
        "seed": context.config.seed,
        "review": _decisions(context).effective(undecided_count=review.undecided == "use"),
        "undecided": review.undecided,
        "min_per_concept": context.config.clips.min_per_concept,
        **_random_labels(context.config),
    }


def _random_labels(config: Config) -> dict[str, str]:
    """Return the ingredient `random_labels`; none at the default, so that keys of runs without it stay the same."""
    return {"random_labels": config.clips.random_labels} if config.clips.random_labels != "any" else {}


STAGE = Stage(stages.CAVS, version=7, ingredients=_ingredients, prepare=_prepare)


class CavWorker:
    """The worker that computes a block of a layer's CAVs, accuracy curves or accuracies by chance; see `block_of`."""

    def __init__(self, config: Config, activations: StageFolder, matching: Matching | None = None) -> None:
        self.config = config
        self.activations = activations
        self._matching = matching
        self._device = device_for(config.resources.statistics)
        self._layer: LayerCavs | None = None

    def __call__(self, rows: pa.Table) -> ShardOutput:
        layer, what, begin, end = (rows[name][0].as_py() for name in ("layer", "what", "begin", "end"))
        of_layer = self._open(layer)
        if what == "curves":
            return ShardOutput({f"curves/layer={layer}": of_layer.curves(begin, end)})
        if what == "chance":
            return ShardOutput({f"chance/layer={layer}": of_layer.chance(begin, end)})
        table = of_layer.cavs(begin, end)
        untrained = int((~np.isfinite(table["bias"].to_numpy())).sum())
        metrics = {"cavs": table.num_rows, "cavs_not_trained": untrained}
        return ShardOutput({f"cavs/layer={layer}": table}, metrics=metrics)

    def _open(self, layer: str) -> LayerCavs:
        if self._layer is not None and self._layer.layer == layer:
            return self._layer
        from vtcav_ray.cavs.layer_cavs import LayerCavs

        plan = None if self._layer is None else self._layer.plan
        self._layer = None  # never hold two layers in memory
        table = self.activations.read("activations", columns=("clip_id", *POOL_COLUMNS, "model", "vector"), layer=layer)
        assert table is not None, "the plan was made from this table"
        settings = (self.config.cavs, self.config.seed, self._matching, self._device)
        self._layer = LayerCavs(layer, table, *settings, plan=plan)
        return self._layer


def entangle(layers: tuple[str, ...], output: StageFolder) -> dict[str, pa.Table]:
    """Compute the cosines between the concepts' mean CAVs (against random sets), layer by layer."""
    found = {}
    for layer in layers:
        sums: dict[str, np.ndarray] = {}
        for _, part in output.iter_tables("cavs", columns=("concept", "against", "is_null", "vector"), layer=layer):
            vectors = vectors_of(part)
            for i, (concept, against, is_null) in enumerate(
                zip(*(part[name].to_pylist() for name in ("concept", "against", "is_null")), strict=True)
            ):
                if against == RANDOM and not is_null and np.isfinite(vectors[i]).all():
                    sums[concept] = sums.get(concept, np.zeros(vectors.shape[1])) + vectors[i]
        names = sorted(name for name, total in sums.items() if total.any())
        if not names:
            continue
        unit = np.stack([sums[name] / np.linalg.norm(sums[name]) for name in names])
        cosine = np.clip(unit @ unit.T, -1.0, 1.0)
        rows = [
            {"layer": layer, "concept": a, "other": b, "cosine": cosine[i, j]}
            for i, a in enumerate(names)
            for j, b in enumerate(names)
        ]
        found[f"entanglement/layer={layer}"] = pa.Table.from_pylist(rows, schema=tables.ENTANGLEMENT)
    return found
