"""Change of a concept effect between two models, on the same clips.

The effect is E = mean gradient · (mean z of the concept - mean z of the other side). For two models A and B on the same
clips, E_B - E_A has the same form in their joint space: with gradients [g_B, -g_A] and activations [z_B, z_A],

    [g_B, -g_A] · [z_B, z_A] = g_B · z_B - g_A · z_A

for each pair of a class clip and a concept clip. So the tests of the effect (`vtcav_ray.tcav.effect`) apply unchanged:
permutation over source videos for p, two-level bootstrap for the interval. Both models see the same resampled videos,
so what a video contributes to both cancels. The comparison is paired, in logits, and independent of the scale of either
model's activations.

The permutation test takes the class's videos as fixed, but two models never have exactly the same gradients on a few
videos. So p is the larger of two: that of the permutation test, and the one implied by the interval, which also
resamples the class's videos. An effect counts as changed only if it would also change on other videos of the class and
other clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vtcav_ray.scores.cells import Cell
from vtcav_ray.tcav.effect import concept_effects, paired_concept_effects

NORMAL_95 = 1.959963984540054


@dataclass(frozen=True)
class Change:
    """The change of one figure from A to B.

    Attributes:
        change: B minus A.
        ci_low, ci_high: ends of its 95 % interval; NaN: no interval.
        p: two-sided; NaN: no p.
        paired: whether both were measured on the same videos.
    """

    change: float
    ci_low: float
    ci_high: float
    p: float
    paired: bool


@dataclass(frozen=True)
class LayerVectors:
    """Activations and gradients of one model at one layer.

    Attributes:
        vectors_ND: activations of the pool's clips.
        gradients: class -> [n, d], at the clips where the run's effects take them.
    """

    vectors_ND: NDArray[np.float32]
    gradients: Mapping[str, NDArray[np.float32]]


def effect_changes(
    a: LayerVectors,
    b: LayerVectors,
    cells: Sequence[Cell],
    *,
    pool_videos: Sequence[str],
    class_videos: Mapping[str, Sequence[str]],
    permutations: int,
    bootstrap: int,
    seed: int,
) -> dict[tuple[str, int], Change]:
    """Return the paired changes of every class's effects in `cells`: (class, index of the cell) -> change.

    Args:
        a, b: the two models, with clips in the same order.
        cells: the two sides of each comparison, as rows of the pool.
        pool_videos: source video of each clip of the pool.
        class_videos: class -> source video of each of its gradients.
        permutations, bootstrap, seed: as for `concept_effects`.
    """
    names = [name for name in a.gradients if name in b.gradients]
    if not names:
        return {}
    pool_ND = np.concatenate((b.vectors_ND, a.vectors_ND), axis=1)
    gradients = [np.concatenate((b.gradients[name], -a.gradients[name]), axis=1) for name in names]
    found: dict[tuple[str, int], Change] = {}
    for paired in (False, True):
        members = [
            j
            for j, cell in enumerate(cells)
            if cell.paired == paired and len(cell.concept_rows) and len(cell.other_rows)
        ]
        if not members:
            continue
        batch = (paired_concept_effects if paired else concept_effects)(
            gradients,
            pool_ND,
            [cells[j].concept_rows for j in members],
            [cells[j].other_rows for j in members],
            groups=pool_videos,
            class_groups=[class_videos[name] for name in names],
            permutations=permutations,
            bootstrap=bootstrap,
            seed=seed,
        )
        for place, j in enumerate(members):
            for k, name in enumerate(names):
                one = batch.cell(k, place)
                p = float(np.maximum(one.p, _normal_p(one.effect, one.ci_low, one.ci_high)))  # NaN if either is
                found[name, j] = Change(one.effect, one.ci_low, one.ci_high, p, paired=True)
    return found


def _normal_p(change: float, low: float, high: float) -> float:
    """Return the two-sided p that a 95 % interval's width implies; NaN without an interval."""
    from scipy.stats import norm

    half = (high - low) / 2
    return float(2 * norm.sf(abs(change) * NORMAL_95 / half)) if half > 0 and np.isfinite(change) else np.nan


def independent_change(a: tuple[float, float, float], b: tuple[float, float, float]) -> Change:
    """Return the change between two estimates on different videos, each (value, low, high) with its interval's ends.

    The squares of the half widths of the 95 % intervals add up. p is from the normal distribution.
    """
    change = b[0] - a[0]
    half = float(np.hypot(a[2] - a[1], b[2] - b[1]) / 2)
    if not np.isfinite(half) or half <= 0:
        return Change(change, np.nan, np.nan, np.nan, paired=False)
    return Change(change, change - half, change + half, _normal_p(change, change - half, change + half), paired=False)


def score_change(a: Mapping[str, float], b: Mapping[str, float]) -> Change:
    """Return the change of the TCAV score, paired by video (Student's t).

    Args:
        a, b: of each model: video -> share of the CAVs with a positive sensitivity. Videos that only one model has are
            left out. Fewer than two common videos give no interval.
    """
    common = sorted(a.keys() & b.keys())
    differences = np.array([b[v] - a[v] for v in common])
    if len(common) < 2:
        return Change(float(differences.mean()) if len(common) else np.nan, np.nan, np.nan, np.nan, paired=True)
    from scipy.stats import t

    mean, error = float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(len(common)))
    if error == 0:
        return Change(mean, mean, mean, 1.0 if mean == 0 else 0.0, paired=True)
    half = float(t.ppf(0.975, len(common) - 1)) * error
    p = float(2 * t.sf(abs(mean) / error, len(common) - 1))
    return Change(mean, mean - half, mean + half, p, paired=True)
