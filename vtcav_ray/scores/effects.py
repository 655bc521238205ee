"""The effects of one layer's cells with their intervals: first-order ones, or from responses of the model.

Legend: K classes, J cells per class (concept, against), N rows of the pool, V reference videos.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vtcav_ray.scores.cells import Cell
from vtcav_ray.scores.responses import filled
from vtcav_ray.tcav.effect import ConceptEffect, ConceptEffects, concept_effects, paired_concept_effects
from vtcav_ray.tcav.gains import at_gain
from vtcav_ray.tcav.responses import unit_gradients

if TYPE_CHECKING:
    from vtcav_ray.scores.layer_data import LayerClips, ScoreOptions

NO_EFFECT = ConceptEffect(
    effect=np.nan,
    null_sd=np.nan,
    z=np.nan,
    p=np.nan,
    ci_low=np.nan,
    ci_high=np.nan,
    n_concept=0,
    n_random=0,
    reason="There is nothing to compare the concept with.",
)


def effects_of(cells: Sequence[Cell], data: LayerClips, options: ScoreOptions) -> list[list[ConceptEffect]]:
    """Return the effects without their tests, [J][K]. Cells of one form share every inner product."""
    found: list[list[ConceptEffect]] = [[] for _ in cells]
    compared = [cell.among(data.there_N) for cell in cells]
    for paired in (False, True):
        of_form = [j for j, cell in enumerate(compared) if cell.paired == paired]
        members = [j for j in of_form if len(compared[j].concept_rows) and len(compared[j].other_rows)]
        if not members:
            continue
        batch = _batch([compared[j] for j in members], data, options)
        for place, j in enumerate(members):
            found[j] = [
                at_gain(of_classes.cell(k, place), one.gain)
                for (of_classes, k), one in zip(batch, data.classes, strict=True)
            ]
    return [cells_of or [NO_EFFECT] * len(data.classes) for cells_of in found]


def _batch(cells: Sequence[Cell], data: LayerClips, options: ScoreOptions) -> list[tuple[ConceptEffects, int]]:
    """Return the effects of cells of one form: for each class, where its figures are."""
    compute = functools.partial(
        paired_concept_effects if cells[0].paired else concept_effects,
        groups=data.pool.video_id,
        permutations=None,
        bootstrap=options.bootstrap,
        seed=options.seed,
        device=options.device,
    )
    sides = [cell.concept_rows for cell in cells], [cell.other_rows for cell in cells]
    if not data.patched:
        taken_at = [c.for_effect or (c.vectors, c.videos) for c in data.classes]
        gradients, videos = [vectors for vectors, _ in taken_at], [videos for _, videos in taken_at]
        found = compute(gradients, data.vectors_ND, *sides, class_groups=videos)
        return [(found, k) for k in range(len(data.classes))]
    each = []
    assert data.there_N is not None, "responses come with the rows that have them"
    for one in data.classes:
        assert one.responses_NV is not None, "every class of the layer has responses"
        rows_NV = filled(one.responses_NV, data.there_N)
        each.append((compute([unit_gradients(rows_NV.shape[1])], rows_NV, *sides), 0))
    return each
