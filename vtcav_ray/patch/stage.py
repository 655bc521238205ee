"""Stage `patch`: the patch effects of chosen cells of a finished run. Only `vtcav patch` runs it.

A shard is one layer and a few pool clips. The last shard compares both sides of each cell. The key contains the cells,
so each choice of cells has its own output.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vtcav_ray import stages
from vtcav_ray.config import Config
from vtcav_ray.errors import StageError
from vtcav_ray.models import describe
from vtcav_ray.patch.effect import PatchEffects, corrected, paired_patch_effects, patch_effects
from vtcav_ray.patch.plan import (
    Chosen,
    cell_rows,
    pool_clips,
)
from vtcav_ray.patch.worker import PatchWorker
from vtcav_ray.responses.reference import clip_shards, read_reference
from vtcav_ray.responses.stage import layer_shards
from vtcav_ray.rows import PatchEffectRow, table_of
from vtcav_ray.runs.stage import Context, Shard, Stage, Work
from vtcav_ray.scores.choose import CellKey
from vtcav_ray.scores.sides import Comparison, Side, accepted, comparisons
from vtcav_ray.store.commits import ShardOutput, StageFolder
from vtcav_ray.tcav.arrays import video_means

CHOSEN_BY_P = (
    "The comparisons were chosen by the significance of their concept effect, from the same clips. So p and q check "
    "the sign and the size of these effects, and are no second, independent test. For a test, name the comparisons, "
    "or take all (--cells all)."
)
NOTHING = "No pool clip has a response: every pass gave NaN or infinity. See `vtcav table RUN failures`."
Sides = Mapping[str, Mapping[tuple[str, str], Comparison]]  # layer -> (concept, against) -> both sides


def patch_stage(chosen: Chosen) -> Stage:
    """Return the stage for these cells."""
    return Stage(
        stages.PATCH,
        version=2,
        ingredients=functools.partial(_ingredients, chosen),
        prepare=functools.partial(_prepare, chosen),
    )


def _ingredients(chosen: Chosen, context: Context) -> dict[str, Any]:
    config = context.config
    return {
        "cells": [list(cell) for cell in chosen.cells],
        "significant": chosen.significant,
        "limit_reference": chosen.limit_reference,
        "permutations": config.scores.permutations,
        "batch_size": config.resources.extract.batch_size,
        "seed": config.seed,
    }


def _prepare(chosen: Chosen, context: Context) -> Work:
    config, clips = context.config, context.input("clips")
    activations = accepted(context.input("activations"), context.input("cavs"))
    sides = {layer: comparisons(activations, layer, config) for layer in chosen.layers}
    wanted: set[str] = set()
    for layer in chosen.layers:
        wanted |= set(read_reference(activations, layer, chosen.limit_reference, config.seed)["clip_id"].to_pylist())
    description = describe(config.model, seed=config.seed)
    warnings = [CHOSEN_BY_P] if chosen.significant else []
    if description.untrained:
        warnings.append("The model is UNTRAINED: its patch effects are those of random weights.")
    scores = context.input("scores").read("scores")
    assert scores is not None, "the cells were chosen from this table"
    return Work(
        shards=_shards(chosen, sides),
        make_worker=functools.partial(
            PatchWorker,
            config,
            clips,
            activations,
            chosen.classes,
            clip_shards(clips, wanted),
            chosen.limit_reference,
        ),
        resources=config.resources.extract,
        warnings=warnings,
        notes={"model": description.tag, "untrained": description.untrained, "references": len(wanted)},
        finish=functools.partial(finished, chosen, sides, cell_rows(scores), config),
    )


def _shards(chosen: Chosen, sides: Sides) -> list[Shard]:
    shards: list[Shard] = []
    for number, layer in enumerate(chosen.layers):
        shards += layer_shards(number, layer, pool_clips(chosen, layer, sides[layer]), first=not shards)
    return shards


def finished(
    chosen: Chosen, sides: Sides, scores: Mapping[CellKey, Mapping[str, Any]], config: Config, output: StageFolder
) -> ShardOutput:
    """Return the stage's last shard: the table `patch_effects` of the other shards' responses."""
    by_layer: dict[str, _LayerResponses] = {}
    for layer in chosen.layers:
        table = output.read("patched", layer=layer)
        if table is None:
            raise StageError(NOTHING)
        by_layer[layer] = _LayerResponses(table)
    families: dict[tuple[str, str], list[CellKey]] = {}
    for cell in chosen.cells:
        families.setdefault((cell.concept, cell.against), []).append(cell)
    tested = [_tested(cells, sides, by_layer, config) for cells in families.values()]
    q_of = corrected([effects for effects, _ in tested])
    rows = [
        _row(cell, i, effects, float(first_order[i]), float(q[i]), scores[cell], by_layer[cell.layer])
        for cells, (effects, first_order), q in zip(families.values(), tested, q_of, strict=True)
        for i, cell in enumerate(cells)
    ]
    return ShardOutput({"patch_effects": table_of(rows, PatchEffectRow)}, metrics={"cells": len(rows)})


class _LayerResponses:
    """The responses of one layer: `places` clip id -> row, [U] responses and first-order ones by class."""

    def __init__(self, table: pa.Table) -> None:
        self.references, self.model = table["references"][0].as_py(), table["model"][0].as_py()
        clips = list(dict.fromkeys(table["clip_id"].to_pylist()))
        self.places = {clip: i for i, clip in enumerate(clips)}
        self._of: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for name in table["class"].unique().to_pylist():
            part = table.filter(pc.equal(table["class"], name))
            order = [self.places[clip] for clip in part["clip_id"].to_pylist()]
            values = np.full((2, len(clips)), np.nan)
            values[0, order], values[1, order] = np.asarray(part["response"]), np.asarray(part["first_order"])
            self._of[name] = (values[0], values[1])

    def at(self, clips: tuple[str, ...], class_name: str, *, first_order: bool) -> np.ndarray:
        return np.asarray(self._of[class_name][int(first_order)][[self.places[clip] for clip in clips]])


def _tested(
    cells: list[CellKey], sides: Sides, by_layer: Mapping[str, _LayerResponses], config: Config
) -> tuple[PatchEffects, np.ndarray]:
    """Return the tests of one family, and the first-order prediction of each cell's effect."""
    everywhere = set.intersection(*(set(by_layer[cell.layer].places) for cell in cells))
    one = _with_responses(sides[cells[0].layer][cells[0].concept, cells[0].against], everywhere)

    def columns(side: Side, *, first_order: bool = False) -> np.ndarray:
        parts = [by_layer[cell.layer].at(side.clips, cell.class_, first_order=first_order) for cell in cells]
        return np.stack(parts, axis=1)

    own, other = columns(one.concept), columns(one.other)
    permutations, seed = config.scores.permutations, config.seed
    if one.paired:
        videos: tuple[str, ...] = one.concept.videos
        effects = paired_patch_effects(own, other, groups=videos, permutations=permutations, seed=seed)
    else:
        videos = (*one.concept.videos, *one.other.videos)
        effects = patch_effects(own, other, groups=videos, permutations=permutations, seed=seed)
    return effects, _first_order(columns(one.concept, first_order=True), columns(one.other, first_order=True), one)


def _first_order(own_nC: np.ndarray, other_mC: np.ndarray, one: Comparison) -> np.ndarray:
    if not len(own_nC) or not len(other_mC):
        return np.full(own_nC.shape[1], np.nan)
    if one.paired:
        return np.asarray(video_means(own_nC - other_mC, one.concept.videos).mean(axis=0))
    left, right = video_means(own_nC, one.concept.videos), video_means(other_mC, one.other.videos)
    return np.asarray(left.mean(axis=0) - right.mean(axis=0))


def _with_responses(one: Comparison, there: set[str]) -> Comparison:
    """Leave out clips without responses; of pairs, both clips."""
    own = [clip in there for clip in one.concept.clips]
    other = [clip in there for clip in one.other.clips]
    if one.paired:
        own = other = [a and b for a, b in zip(own, other, strict=True)]

    def kept(side: Side, keep: list[bool]) -> Side:
        rows = [i for i, fine in enumerate(keep) if fine]
        return Side(tuple(side.clips[i] for i in rows), tuple(side.videos[i] for i in rows))

    return Comparison(kept(one.concept, own), kept(one.other, other), one.paired)


def _row(
    cell: CellKey,
    i: int,
    effects: PatchEffects,
    first_order: float,
    q: float,
    score: Mapping[str, Any],
    layer: _LayerResponses,
) -> PatchEffectRow:
    effect, logits = float(effects.effect[i]), float(score["effect"])
    product = np.sign(effect) * np.sign(logits)
    return PatchEffectRow(
        class_=cell.class_,
        layer=cell.layer,
        concept=cell.concept,
        against=cell.against,
        effect_patch=effect,
        effect_first_order=first_order,
        effect=logits,
        same_sign=bool(product > 0) if np.isfinite(product) and product != 0 else None,
        null_sd=float(effects.null_sd[i]),
        z=float(effects.z[i]),
        p=float(effects.p[i]),
        p_symmetric=float(effects.p_symmetric[i]),
        q=q,
        spread_ratio=float(effects.spread_ratio[i]),
        n_concept=effects.n_concept,
        n_random=effects.n_random,
        references=layer.references,
        model=layer.model,
        note=effects.note[i],
    )
