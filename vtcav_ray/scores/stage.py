"""Stage `scores`: every result cell.

A shard is a layer and some of its classes, so that layers and classes run in parallel. The corrections need all cells
and come last.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from vtcav_ray import stages
from vtcav_ray.cavs.plan import RANDOM
from vtcav_ray.cavs.stage import POOL_COLUMNS, pool_of, read_plan, require_finite
from vtcav_ray.clips.classes import same_class
from vtcav_ray.clips.usable import AcceptedRows, read_left_out
from vtcav_ray.config import Config
from vtcav_ray.errors import StageError
from vtcav_ray.rows import NullRow, ScoreRow, SensitivityRow, read_rows, table_of
from vtcav_ray.runs.devices import device_for
from vtcav_ray.runs.stage import Context, Shard, Stage, Work
from vtcav_ray.store.commits import ShardOutput, StageFolder
from vtcav_ray.store.vectors import vectors_of
from vtcav_ray.tcav.diagnostics import needed
from vtcav_ray.tcav.significance import adjust, minimum_p, resolution_warning

if TYPE_CHECKING:
    from vtcav_ray.scores.layer import ClassGradients, LayerData

# Classes per shard: seconds of work for 500 concepts, to outweigh reading all CAVs of a layer.
BLOCK_CLASSES = 8
MOST_PERMUTATIONS = 100_000  # maximum that a warning suggests: ten times the default, and ten times its seconds
NO_GRADIENTS = (
    "There is nothing to score: no class example has a gradient. Use labels of the model (one folder per class, or "
    "videos.labels); see `vtcav table RUN failures`."
)


NO_REFERENCE = (
    "No clip of the reference set has gradients: all failed or were left out in the review. Set scores.gradients_at to "
    "`own`, or activations.reference to more videos."
)


def _prepare(context: Context) -> Work:
    config = context.config
    cavs = context.input("cavs")
    activations = AcceptedRows.of(context.input("activations"), read_left_out(cavs))
    shards = []
    for number, layer in enumerate(config.activations.layers):
        names = _classes_with_gradients(activations, layer)
        for block, start in enumerate(range(0, len(names), BLOCK_CLASSES)):
            of = pa.table({"layer": [layer], "classes": [names[start : start + BLOCK_CLASSES]]})
            shards.append(Shard(f"{number:02d}-{layer}-{block:04d}", of))
    if not shards:
        raise StageError(NO_GRADIENTS)
    return Work(
        shards=shards,
        make_worker=functools.partial(ScoreWorker, config, activations, cavs),
        resources=config.resources.statistics,
        notes={"gradients_at": config.scores.gradients_at},
        finish=functools.partial(correct, config),
    )


def _classes_with_gradients(activations: StageFolder, layer: str) -> list[str]:
    """Return the classes that have a gradient at one of their own clips."""
    gradients = activations.read("gradients", columns=("clip_id", "class"), layer=layer)
    clips = activations.read("activations", columns=("clip_id", "name"), layer=layer)
    if gradients is None or clips is None:
        return []
    own = dict(zip(clips["clip_id"].to_pylist(), clips["name"].to_pylist(), strict=True))
    pairs = zip(gradients["class"].to_pylist(), gradients["clip_id"].to_pylist(), strict=True)
    return sorted({name for name, clip in pairs if clip in own and same_class(own[clip], name)})


def _ingredients(context: Context) -> dict[str, Any]:
    return {"scores": context.config.scores.model_dump(mode="json"), "seed": context.config.seed}


STAGE = Stage(stages.SCORES, version=6, ingredients=_ingredients, prepare=_prepare)


class ScoreWorker:
    """Scores some classes of one layer, and keeps the layer's activations and CAVs for the next shard."""

    def __init__(self, config: Config, activations: StageFolder, cavs: StageFolder) -> None:
        self.config = config
        self.activations = activations
        self.cavs = cavs
        self._device = device_for(config.resources.statistics)
        self._kept: LayerData | None = None

    def __call__(self, rows: pa.Table) -> ShardOutput:
        from vtcav_ray.scores.layer import ScoreOptions, score_layer

        layer, classes = rows["layer"][0].as_py(), rows["classes"][0].as_py()
        settings = self.config.scores
        if self._kept is None or self._kept.layer != layer:
            self._kept = None  # never hold two layers in memory
            self._kept = self._read(layer)
        data = self._kept
        wanted = dataclasses.replace(data, classes=[one for one in data.classes if one.name in classes])
        options = ScoreOptions(settings.bootstrap, settings.permutations, self.config.seed, self._device)
        scored = score_layer(wanted, options)
        return ShardOutput(
            {
                f"cells/layer={layer}": table_of(scored.cells, ScoreRow),
                f"sensitivities/layer={layer}": table_of(scored.sensitivities, SensitivityRow),
                f"nulls/layer={layer}": table_of(scored.nulls, NullRow),
            },
            metrics={"cells": len(scored.cells)},
        )

    def _read(self, layer: str) -> LayerData:
        from vtcav_ray.scores.layer import LayerData

        columns = ("clip_id", *POOL_COLUMNS, "model", "vector")
        pool = self.activations.read("activations", columns=columns, layer=layer)
        gradients = self.activations.read("gradients", layer=layer)
        cavs = self.cavs.read("cavs", columns=("concept", "held_out_accuracy", "vector", "reason"), layer=layer)
        assert pool is not None, "the CAVs were made from this table"
        assert cavs is not None, "the cavs stage is complete"
        assert gradients is not None, "the shards were made from this table"
        jobs = read_plan(self.activations, layer, self.config).jobs
        assert cavs["concept"].to_pylist() == [job.concept for job in jobs], "the plan is the same each time"
        own = dict(zip(pool["clip_id"].to_pylist(), pool["name"].to_pylist(), strict=True))
        require_finite(vectors_of(gradients), gradients["clip_id"].to_pylist(), layer)
        return LayerData(
            layer=layer,
            model=pool["model"][0].as_py(),
            pool=pool_of(pool),
            clip_ids=pool["clip_id"].to_pylist(),
            vectors_ND=vectors_of(pool),
            jobs=jobs,
            cavs_Md=vectors_of(cavs),
            held_out_M=np.asarray(cavs["held_out_accuracy"], np.float64),
            classes=_by_class(gradients, own, self.config.scores.gradients_at),
            reasons_M=cavs["reason"].to_pylist(),
        )


def _by_class(gradients: pa.Table, class_of_clip: dict[str, str], taken_at: str) -> list[ClassGradients]:
    """Return the gradients of each class at its own clips, and at those that `scores.gradients_at` names.

    Raises:
        StageError: no clip of the reference set is left.
    """
    from vtcav_ray.scores.layer import ClassGradients

    vectors, videos = vectors_of(gradients), gradients["video_id"].to_pylist()
    own_rows: dict[str, list[int]] = {}
    effect_rows: dict[str, list[int]] = {}
    columns = (gradients[name].to_pylist() for name in ("class", "clip_id", "reference"))
    for i, (name, clip, reference) in enumerate(zip(*columns, strict=True)):
        if same_class(class_of_clip[clip], name):
            own_rows.setdefault(name, []).append(i)
        if taken_at == "all" or (taken_at == "reference" and reference):
            effect_rows.setdefault(name, []).append(i)

    if taken_at == "reference" and not own_rows.keys() <= effect_rows.keys():
        raise StageError(NO_REFERENCE)

    def at(rows: list[int]) -> tuple[np.ndarray, list[str]]:
        return vectors[rows], [videos[i] for i in rows]

    return [
        ClassGradients(name, *at(rows), for_effect=None if taken_at == "own" else at(effect_rows[name]))
        for name, rows in sorted(own_rows.items())
    ]


def correct(config: Config, output: StageFolder) -> ShardOutput:
    """Make the `scores` table: q over all m cells of the run, and the columns that follow from it."""
    settings = config.scores
    cells = output.read("cells")
    assert cells is not None, "every layer has cells"
    p, effect_p = (np.asarray(cells[name], np.float64) for name in ("p", "effect_p"))
    q, effect_q = adjust(p, settings.correction), adjust(effect_p, settings.correction)
    num_tests, m = int(np.isfinite(p).sum()), int(np.isfinite(effect_p).sum())
    rows = [
        _corrected(row, row_q, row_effect_q, num_tests, m, settings.alpha)
        for row, row_q, row_effect_q in zip(read_rows(cells, ScoreRow), q.tolist(), effect_q.tolist(), strict=True)
    ]
    return ShardOutput(
        {"scores": table_of(rows, ScoreRow)}, metrics={"m": m}, warnings=_resolution_warnings(config, num_tests, m)
    )


def _corrected(row: ScoreRow, q: float, effect_q: float, num_tests: int, m: int, alpha: float) -> ScoreRow:
    """Return the cell with the values that need all cells.

    Args:
        num_tests: number of cells with a p of the sign count.
        m: number of cells with a p of the effect.
    """
    significant = row.learnable and effect_q < alpha
    note = row.note
    if row.learnable and not significant and np.isfinite(row.effect_logits) and row.effect_null_sd:
        more = needed(row.effect_logits, row.effect_null_sd, row.n_concept, row.R, num_cells=m, alpha=alpha)
        note = " ".join(text for text in (note, more.sentence) if text)
    return dataclasses.replace(
        row, q=q, effect_q=effect_q, significant=significant, decided_by=_decided_by(row, num_tests, alpha), note=note
    )


def _decided_by(row: ScoreRow, num_tests: int, alpha: float) -> str:
    if not np.isfinite(row.effect_p):
        return "none"
    sign_count_can_decide = np.isfinite(row.p) and _smallest_p(row) * num_tests <= alpha
    return "effect and score" if sign_count_can_decide else "effect"


def _smallest_p(row: ScoreRow) -> float:
    """Return the smallest p of a cell's sign count. The null: all R sets against random, else R // 2 disjoint pairs."""
    return minimum_p(row.R if row.against == RANDOM else row.R // 2)


def _resolution_warnings(config: Config, num_tests: int, m: int) -> list[str]:
    """Warn if the random sets or the permutations are too few for any cell to pass the correction."""
    settings = config.scores
    warnings = []
    if num_tests and (sentence := resolution_warning(config.cavs.random_sets, num_tests, settings.alpha)):
        warnings.append(sentence + ".")
    if settings.correction == "holm" and m > settings.alpha * (settings.permutations + 1):
        needed_permutations = round(m / settings.alpha)
        advice = (
            f"set scores.permutations to {needed_permutations} or more, or scores.correction to bh."
            if needed_permutations <= MOST_PERMUTATIONS
            else f"set scores.correction to bh ({needed_permutations} permutations a cell would take too long), or ask "
            "for fewer classes, concepts or layers."
        )
        warnings.append(
            f"{settings.permutations} permutations can't give an effect_p below {1 / (settings.permutations + 1):.2g}, "
            f"and the strictest of {m} cells asks for {settings.alpha / m:.2g}: {advice}"
        )
    return warnings
