"""Checks before a cell's score is read: does the layer encode the concept, and can the sign count decide?

Legend: N clips, d numbers, R runs, J concepts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vtcav_ray.tcav.arrays import check_gradients

# Float32 gradients that are equal by construction differ by a few units in the last place after a projection.
_SAME = 1e-4
_TIE = 1e-9  # accuracies that differ by less are equal


def is_degenerate(gradients: ArrayLike, tolerance: float = _SAME) -> bool:
    """Return whether the class's gradient has the same direction for every clip.

    The sign count is then 0 or 1 for ANY CAV. This happens if only global pooling and one linear map follow the layer
    (`cls_head.avg_pool`, Swin's `norm3`): the gradient is a row of the classifier's weights. The magnitude is still
    meaningful there. Gradients that are zero for all clips are degenerate too.

    Args:
        gradients: [N, d] of one class.
        tolerance: largest distance of a unit gradient from the first one.

    Returns:
        Also True for a single clip, which cannot show that directions differ.
    """
    rows_ND = check_gradients(gradients)
    length_N = np.linalg.norm(rows_ND, axis=1)
    if not (length_N > 0).any():
        return True
    if (length_N == 0).any():
        return False
    unit_ND = rows_ND / length_N[:, None]
    return bool(np.linalg.norm(unit_ND - unit_ND[0], axis=1).max() <= tolerance)


def collinearity(gradients: ArrayLike) -> float:
    """Return the mean cosine over pairs of the class's gradients, in [-1, 1]; NaN for one clip.

    Zero gradients are left out. Near 1, any CAV scores near 0 or near 1 whatever its concept, and sign counts decide
    little.

    Args:
        gradients: [N, d].
    """
    rows_ND = check_gradients(gradients)
    length_N = np.linalg.norm(rows_ND, axis=1)
    return mean_pairwise_cosine(rows_ND[length_N > 0])


def mean_pairwise_cosine(vectors: ArrayLike) -> float:
    """Return the mean cosine over pairs of rows [R, d]; NaN for fewer than two rows. Rows with NaN are left out.

    For the R CAVs of a concept this is its stability: near 1, the direction does not depend on the random set.
    """
    rows = np.asarray(vectors, dtype=np.float64)
    if rows.ndim != 2:
        raise ValueError(f"vectors must be [R, d], and has shape {rows.shape}")
    rows = rows[~np.isnan(rows).any(axis=1)]
    if len(rows) < 2:
        return math.nan
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    total = float(np.square(unit.sum(axis=0)).sum())
    return (total - len(unit)) / (len(unit) * (len(unit) - 1))


def stability(cavs: ArrayLike, runs: int) -> NDArray[np.float64]:
    """Return `mean_pairwise_cosine` of each concept's CAVs: [J] from [J * R, d], with a concept's R runs adjacent."""
    vectors = np.asarray(cavs)
    if vectors.ndim != 2 or runs < 1 or len(vectors) % runs:
        raise ValueError(f"cavs must be [J * R, d] with R = {runs}, and has shape {vectors.shape}")
    return np.array([mean_pairwise_cosine(vectors[at : at + runs]) for at in range(0, len(vectors), runs)])


def entanglement(cavs: ArrayLike, runs: int) -> NDArray[np.float64]:
    """Return the cosines [J, J] between the concepts' mean CAVs, from [J * R, d].

    Near 1, the layer does not distinguish the two concepts.
    """
    vectors = np.asarray(cavs, dtype=np.float64)
    if vectors.ndim != 2 or runs < 1 or len(vectors) % runs:
        raise ValueError(f"cavs must be [J * R, d] with R = {runs}, and has shape {vectors.shape}")
    table = vectors.reshape(-1, runs, vectors.shape[1])
    known: NDArray[np.bool_] = np.asarray(~np.isnan(table).any(axis=2))
    count = known.sum(axis=1)
    mean = np.where(known[:, :, None], table, 0.0).sum(axis=1)
    length = np.linalg.norm(mean, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = np.where(np.logical_and(count > 0, length > 0).reshape(-1, 1), mean / length[:, None], np.nan)
    return np.clip(unit @ unit.T, -1.0, 1.0)


@dataclass(frozen=True)
class Learnable:
    """Whether a layer separates a concept from random clips.

    Attributes:
        learnable: p is at most alpha.
        accuracy: the concept's held-out accuracy.
        null_accuracy: the value that it has to exceed; infinite: there are too few draws for alpha; NaN: no accuracy.
        p: of the rank among the stand-ins; NaN: no accuracy.
        reason: why it is not learnable, or "".
    """

    learnable: bool
    accuracy: float
    null_accuracy: float
    p: float
    reason: str


def learnability(accuracy: float, null_accuracy: ArrayLike, *, alpha: float = 0.05) -> Learnable:
    """Return whether the layer separates the concept from random clips better than random clips from each other.

    With few held-out clips, random sets can be separated by chance. So the concept's accuracy is ranked among those of
    D stand-ins, which are random sets in the concept's place: p = (1 + #{stand-ins at least as accurate}) / (D + 1).

    P(learnable) is at most alpha for a concept that is only random clips, if its accuracy and the stand-ins' are
    exchangeable. They are if the stand-ins are DISJOINT random sets, each trained against all the others as the concept
    is; or random divisions of the concept's and the random videos together (`vtcav_ray.cavs.chance`), which may
    overlap. They are not if random sets without the concept's videos overlap: R of them say little more than the m / n
    disjoint ones that m videos make, and P(learnable) can be twice alpha.

    Args:
        accuracy: held-out balanced accuracy of the concept, a mean over its CAVs.
        null_accuracy: the same of the D stand-ins, each a mean over equally many CAVs. NaN (not trained) counts as at
            least as accurate.
        alpha: level, in (0, 1). D must be at least 1 / alpha - 1 (19 for 0.05); with fewer, nothing is learnable, and
            `reason` says so.

    Raises:
        ValueError: alpha is out of range.
    """
    null = np.asarray(null_accuracy, dtype=np.float64).ravel()
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1), and is {alpha}")
    if not math.isfinite(accuracy) or not np.isfinite(null).any():
        side = "the concept's" if not math.isfinite(accuracy) else "the random sets'"
        return Learnable(False, accuracy, math.nan, math.nan, f"{side} CAVs have no held-out accuracy")
    ranked = np.sort(np.where(np.isfinite(null), null, np.inf))[::-1]
    p = (1 + int(np.count_nonzero(ranked >= accuracy - _TIE))) / (len(ranked) + 1)
    allowed = math.floor(alpha * (len(ranked) + 1) + _TIE) - 1  # stand-ins that may be as accurate
    if allowed < 0:
        reason = (
            f"{len(ranked)} random sets in the concept's place can't give a p below {1 / (len(ranked) + 1):.2g}: "
            f"{math.ceil(1 / alpha - _TIE) - 1} are needed to tell at {alpha:g} whether it is learnable"
        )
        return Learnable(False, accuracy, math.inf, p, reason)
    threshold = float(ranked[allowed])
    if allowed - np.count_nonzero(ranked >= accuracy - _TIE) >= 0:
        return Learnable(True, accuracy, threshold, p, "")
    return Learnable(
        False, accuracy, threshold, p, f"held-out accuracy {accuracy:.2f}: random sets reach {threshold:.2f} by chance"
    )


@dataclass(frozen=True)
class Needed:
    """Numbers of clips and random sets that would decide a cell.

    Attributes:
        clips: source videos on each side that detect the observed effect with the requested power; NaN if there is no
            effect.
        more_clips: additional source videos needed; 0: there are enough.
        random_sets: R at which the sign count's p can fall below the corrected alpha.
        more_random_sets: additional random sets needed.
        sentence: the same in words.
    """

    clips: float
    more_clips: float
    random_sets: int
    more_random_sets: int
    sentence: str


def needed(
    effect: float,
    null_sd: float,
    n: int,
    random_sets: int,
    *,
    num_cells: int | None = 1,
    alpha: float = 0.05,
    power: float = 0.8,
    p_needed: float | None = None,
    min_effect: float = 0.0,
    half_width: float = 0.0,
) -> Needed:
    """Return how many more clips or random sets would decide a cell, if the effect stays the same.

    The null's SD and the interval shrink as 1/sqrt(n) if both sides grow alike. To be called with the requested power,
    the cell needs

    - p: a two-sided test at p* needs n' = n ((z_(p*/2) + z_power) null_sd / |effect|)^2 source videos, where p* is the
      largest p that the correction accepts;
    - the interval: it lies beyond +-min_effect if |effect| - min_effect is its half width times
      sqrt(n / n') (1 + z_power / z_0.975).

    The normal distribution stands for the permutations' one. The interval is one of 95 %; it also has a part from the
    class's or the reference videos, which are taken to grow as well.

    Args:
        effect, null_sd: in logits, of the concept effect.
        n: current source videos on the concept's side.
        random_sets: current R.
        num_cells: m, all cells in the correction of the sign counts (Bonferroni's bound, the strictest step of Holm);
            None: there is no sign count, and it needs no random sets.
        alpha, power: both in (0, 1).
        p_needed: p*; None: alpha / m.
        min_effect: smallest effect of interest, in logits.
        half_width: of the effect's interval.

    Raises:
        ValueError: an argument is out of range.
    """
    from scipy.special import ndtri

    if n < 1 or random_sets < 0 or (num_cells is not None and num_cells < 1) or not 0 < alpha < 1 or not 0 < power < 1:
        raise ValueError("n and num_cells must be at least 1, random_sets at least 0, and alpha and power in (0, 1)")
    level = alpha / (num_cells or 1) if p_needed is None else p_needed
    if not 0 < level < 1 or min_effect < 0 or half_width < 0:
        raise ValueError("p_needed must be in (0, 1), and min_effect and half_width at least 0")
    sets = 0 if num_cells is None else math.ceil(num_cells / alpha - 1e-9) - 1
    more_sets = max(0, sets - random_sets)
    if not (math.isfinite(effect) and math.isfinite(null_sd)) or effect == 0:
        return Needed(math.nan, math.nan, sets, more_sets, "There is no effect to go by, so no number of clips.")
    if abs(effect) <= min_effect:
        sentence = (
            f"The effect, {effect:+.3g} logits, is not above the smallest effect of interest, {min_effect:.3g}: more "
            "clips can narrow the interval, and do not make it larger."
        )
        return Needed(math.nan, math.nan, sets, more_sets, sentence)
    reach = ndtri(power) - ndtri(level / 2)
    by_test = (reach * null_sd / abs(effect)) ** 2
    width = half_width * (1 + ndtri(power) / ndtri(0.975)) if min_effect else 0.0
    clips = max(2, math.ceil(n * max(by_test, (width / (abs(effect) - min_effect)) ** 2)))
    more = max(0, clips - n)
    if more == 0:
        sentence = f"{n} clips a side are enough for an effect of this size."
    else:
        sentence = (
            f"An effect of {effect:+.3g} logits would be found {power:.0%} of the time with {clips} clips a side: "
            f"{more} more than now."
        )
    if more_sets:
        sentence += f" For the sign count to decide alone, {more_sets} more random sets."
    return Needed(float(clips), float(more), sets, more_sets, sentence)
