"""The patch effect of one cell, from a model's responses, with the test and the interval of the concept effect.

r[u, v] is the target of the class when the activation of pool clip u takes the place of that of reference clip v
(`vtcav_ray.responses.passes`). The effect is

    E = mean over v of (mean of r[u, v] over the concept - mean of r[u, v] over random clips).

This is the concept effect with r[u, :] in the place of the activation and unit vectors in that of the gradients. So the
same code gives its permutation test, its step-down families, its parts within and between labels, and its interval,
which resamples concept clips, random clips and reference clips.

Legend: n concept clips, m random clips, V reference videos.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vtcav_ray.tcav.effect import concept_effect, paired_concept_effect
from vtcav_ray.tcav.effect_results import ConceptEffect


def unit_gradients(references: int) -> NDArray[np.float64]:
    """Return the vectors [V, V] that pick the response at each reference video."""
    return np.eye(references)


def response_effect(concept: ArrayLike, random: ArrayLike, **options: Any) -> ConceptEffect:
    """Compute the patch effect of one cell.

    Args:
        concept: responses of the class's target to the concept's clips, [n, V], in units of the target.
        random: the same of the random clips, [m, V].
        options: as for `concept_effect`, other than `class_groups`.

    Raises:
        ValueError: as for `concept_effect`.
    """
    return concept_effect(unit_gradients(_references(concept)), concept, random, **options)


def paired_response_effect(concept: ArrayLike, twin: ArrayLike, **options: Any) -> ConceptEffect:
    """Compute the patch effect of one cell against the concept's own twins.

    Args:
        concept: responses to the concept's clips, [n, V].
        twin: responses to their twins, in the same order.
        options: as for `paired_concept_effect`, other than `class_groups`.

    Raises:
        ValueError: as for `paired_concept_effect`.
    """
    return paired_concept_effect(unit_gradients(_references(concept)), concept, twin, **options)


def _references(rows: ArrayLike) -> int:
    shape = np.shape(np.asarray(rows))
    if len(shape) != 2 or shape[1] == 0:
        raise ValueError(f"responses must be [clips, reference videos], and have shape {shape}")
    return int(shape[1])
