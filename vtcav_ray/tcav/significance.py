"""Tests of TCAV scores (sign counts): is a score larger than random clips instead of the concept's would give?

R scores of one concept against R random sets are not R independent measurements: all of them share the concept's clips.
A t-test that treats them as independent rejects too often. What IS exchangeable, if the concept is only random clips,
is the concept's clip set and each of the R random sets: R + 1 draws of the same kind.

**Round robin**, the default. Every set plays every other: the concept against each random set (R CAVs), and each random
set against each other (R (R - 1) / 2 CAVs, every pair ONCE; all concepts of the same kind and size share them). Set i's
figure is its mean score against all others. The score of (j against i) is 1 - score of (i against j): the same plane
seen from its other side. Under the null the R + 1 figures are exchangeable whatever their dependence, so the rank of
the concept's distance from 1/2 is uniform, and

    p = (1 + #{random sets at least as far from 1/2}) / (R + 1)

is exact (Lehmann & Romano, Testing Statistical Hypotheses, 2005, section 15.2), provided that all sets are disjoint in
source videos and have the same number of clips per video. 1 - P is used here as the other half of the same figure, not
as an independent measurement; treating it as independent makes the published use wrong (see `paper_test`).

**Empirical**: the concept's mean score among R single scores of disjoint random pairs. It needs no round robin. A mean
varies less than single scores, so the test is conservative, and if random scores are near 0 or 1 (collinear gradients)
it cannot reject at all.

**Welch's t** is provided because papers report it. It rejects too often: see `benchmarks/calibration.py`.

Legend: R random sets, C cells.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Correction = Literal["holm", "bh", "none"]
Claims = Literal["cells", "families"]
_TIE = 1e-9


@dataclass(frozen=True)
class ScoreTest:
    """The score test of C cells (arrays [C]; a single cell: C = 1).

    Attributes:
        p: two-sided; NaN if a score is NaN.
        score: the concept's mean score.
        null_mean, null_sd: of the random-against-random scores.
        effect: score minus null_mean.
        smallest_p: smallest p possible with this R.
    """

    p: NDArray[np.float64]
    score: NDArray[np.float64]
    null_mean: NDArray[np.float64]
    null_sd: NDArray[np.float64]
    effect: NDArray[np.float64]
    smallest_p: float


def round_robin_test(concept_scores: ArrayLike, null_scores: ArrayLike) -> ScoreTest:
    """Test by round robin, the default.

    Args:
        concept_scores: [R] or [C, R], the concept against each of the R random sets.
        null_scores: the random sets against each other, each pair once, in the order of `null_pairs(R)`:
            [R (R - 1) / 2] or [C, R (R - 1) / 2].

    Raises:
        ValueError: R = 1, shapes that do not fit, or scores outside [0, 1].
    """
    concept_CR, null_CP = _scores(concept_scores, "concept_scores"), _scores(null_scores, "null_scores")
    num = concept_CR.shape[1]
    if num < 2:
        raise ValueError(
            "concept_scores has R = 1: one random set can't show how scores vary; use 20 or more (cavs.random_sets)"
        )
    left, right = null_pairs(num).T
    if null_CP.shape != (len(concept_CR), len(left)):
        raise ValueError(
            f"null_scores must hold each of the {len(left)} pairs of {num} random sets once for each of "
            f"{len(concept_CR)} cell(s), in the order of null_pairs, and has shape {null_CP.shape}"
        )
    totals = np.zeros_like(concept_CR)
    for i in range(num):
        totals[:, i] = null_CP[:, left == i].sum(axis=1) + (1 - null_CP[:, right == i]).sum(axis=1)
    random_CR = (totals + 1 - concept_CR) / num
    score_C = concept_CR.mean(axis=1)
    farther = (np.abs(random_CR - 0.5) >= np.abs(score_C - 0.5)[:, None] - _TIE).sum(axis=1)
    return _result((1.0 + farther) / (num + 1), score_C, null_CP, minimum_p(num))


def empirical_test(concept_scores: ArrayLike, null_scores: ArrayLike) -> ScoreTest:
    """Test the concept's mean score among the single scores of random pairs: conservative, and often powerless.

    Args:
        concept_scores: [R] or [C, R].
        null_scores: [Q] or [C, Q], of random sets against random sets, no set in two pairs.
    """
    concept_CR, null_CQ = _scores(concept_scores, "concept_scores"), _scores(null_scores, "null_scores")
    _same_cells(concept_CR, null_CQ)
    score_C = concept_CR.mean(axis=1)
    center_C = np.full(len(score_C), 0.5)  # of the null, by its symmetry: its mean is noisy
    farther = (np.abs(null_CQ - center_C[:, None]) >= np.abs(score_C - center_C)[:, None] - _TIE).sum(axis=1)
    num = null_CQ.shape[1]
    return _result((1.0 + farther) / (num + 1), score_C, null_CQ, minimum_p(num))


def welch_test(concept_scores: ArrayLike, null_scores: ArrayLike) -> ScoreTest:
    """Test with Welch's t between the R scores and the null's, as papers report it.

    Treats dependent runs as independent, so it rejects too often.

    Args:
        concept_scores: [R] or [C, R].
        null_scores: [Q] or [C, Q].
    """
    concept_CR, null_CQ = _scores(concept_scores, "concept_scores"), _scores(null_scores, "null_scores")
    _same_cells(concept_CR, null_CQ)
    if min(concept_CR.shape[1], null_CQ.shape[1]) < 2:
        raise ValueError("concept_scores and null_scores need at least two runs each for a t-test")
    return _result(_welch_p(concept_CR, null_CQ), concept_CR.mean(axis=1), null_CQ, 0.0)


def paper_test(concept_scores: ArrayLike) -> NDArray[np.float64]:
    """Test as published p-values do: a t-test of P against 1 - P of the same CAVs. Wrong; only for benchmarks.

    It counts every run twice and treats dependent runs as independent.

    Args:
        concept_scores: [R] or [C, R].

    Returns:
        p, [C].
    """
    concept_CR = _scores(concept_scores, "concept_scores")
    p = _t_test(concept_CR, 1 - concept_CR, equal_var=True)
    return _where_equal(p, concept_CR.mean(axis=1) != 0.5)


def null_pairs(num_sets: int) -> NDArray[np.int64]:
    """Return the pairs (i, j), i < j, of R random sets, each once: [P, 2]."""
    if num_sets < 2:
        raise ValueError(f"num_sets must be at least 2, and is {num_sets}: a null needs random sets to compare")
    return np.stack(np.triu_indices(num_sets, 1), axis=1).astype(np.int64)


def minimum_p(num_sets: int) -> float:
    """Return the smallest p that R random sets can give: 1 / (R + 1)."""
    return 1.0 / (num_sets + 1)


def resolution_warning(num_sets: int, num_cells: int, alpha: float = 0.05) -> str | None:
    """Return a warning if R random sets can't decide any of m cells after correction (R + 1 < m / alpha), else None."""
    needed = math.ceil(num_cells / alpha - 1e-9) - 1
    if num_sets >= needed:
        return None
    return (
        f"{num_sets} random sets can't give a p below {minimum_p(num_sets):.3g}, and the strictest of {num_cells} "
        f"comparisons asks for {alpha / num_cells:.3g}: the sign count alone can decide none. It takes {needed} random "
        f"sets ({needed - num_sets} more), or fewer comparisons; the concept effect's permutation test is not bound by "
        "this"
    )


def adjust(p: ArrayLike, method: Correction = "holm", *, m: int | None = None) -> NDArray[np.float64]:
    """Correct p-values for m tests, keeping their shape. NaN stays NaN, and counts as a test only through m.

    Args:
        p: in [0, 1], or NaN.
        method: `holm` (family-wise error, Holm 1979; valid under any dependence), `bh` (false discovery rate, Benjamini
            & Hochberg 1995) or `none`.
        m: total number of tests; None: the number of values in `p` that are not NaN. If larger, the remaining tests
            count as not rejected.

    Raises:
        ValueError: p outside [0, 1], m below the number of p-values, or an unknown method.
    """
    values = np.asarray(p, dtype=np.float64)
    flat = values.ravel()
    present = np.flatnonzero(~np.isnan(flat))
    if ((flat[present] < 0) | (flat[present] > 1)).any():
        raise ValueError("p must be in [0, 1] or NaN")
    total = len(present) if m is None else m
    if total < len(present):
        raise ValueError(f"m is {total}, and there are {len(present)} p-values: m counts all tests of the run")
    if method not in ("holm", "bh", "none"):
        raise ValueError(f"method must be holm, bh or none, and is {method!r}")
    out = np.full(flat.shape, np.nan)
    order = present[np.argsort(flat[present], kind="stable")]
    rank = np.arange(len(order))
    ordered = flat[order]
    if method == "holm":
        out[order] = np.minimum(np.maximum.accumulate(ordered * (total - rank)), 1.0)
    elif method == "bh":
        out[order] = np.minimum(np.minimum.accumulate((ordered * total / (rank + 1))[::-1])[::-1], 1.0)
    else:
        out[order] = ordered
    return out.reshape(values.shape)


def holm_over_families(adjusted: Sequence[ArrayLike], *, claim: Claims = "cells") -> list[NDArray[np.float64]]:
    """Correct the step-down p-values of F families for the number of families: q of each cell.

    Each family is tested at alpha / (number of families that are not yet settled). Start with all F; a settled family
    passes its share to the others, as in Holm (A simple sequentially rejective multiple test procedure, 1979).

    - `cells`: a family is settled once ALL its cells are rejected. Then the probability of one or more wrong cells in
      the whole run is at most alpha, whatever is true elsewhere (Goeman & Solari, The sequential rejective principle
      of multiple testing, 2010: with all real cells rejected, every family that contains a null cell is tested at
      most at alpha / their number).
    - `families`: a family is settled once its smallest adjusted p is rejected. This controls the error of naming a
      family in which NO cell has an effect. It does not control wrong cells of families that also have real ones: with
      F such families their error can reach alpha * (1 + 1/2 + ... + 1/F).

    Args:
        adjusted: one array of adjusted p-values per family, of any shapes. NaN stays NaN. A family with NaN only is
            not tested, and does not count.
        claim: what the error rate is about.

    Returns:
        q of each cell, in the shapes of `adjusted`: reject the cell if q is at most alpha.

    Raises:
        ValueError: p outside [0, 1], or an unknown claim.
    """
    if claim not in get_args(Claims):
        raise ValueError(f"claim must be cells or families, and is {claim!r}")
    families = [np.asarray(one, dtype=np.float64) for one in adjusted]
    for number, family in enumerate(families):
        if ((family < 0) | (family > 1)).any():
            raise ValueError(f"adjusted[{number}] must hold p-values in [0, 1] or NaN")
    tested = [number for number, family in enumerate(families) if not np.isnan(family).all()]
    settle = np.nanmax if claim == "cells" else np.nanmin
    tested.sort(key=lambda number: float(settle(families[number])))
    remaining_F = np.arange(len(tested), 0, -1, dtype=np.float64)
    # At alpha >= needed[s] the first s families are settled, and the others are tested at alpha / remaining[s].
    settled_F = np.array([settle(families[number]) for number in tested])
    needed_F = np.maximum.accumulate(np.concatenate(([0.0], remaining_F * settled_F)))
    out = [np.full(family.shape, np.nan) for family in families]
    for place, number in enumerate(tested):
        before = slice(place + 1)
        stages = np.maximum(needed_F[before], remaining_F[before] * families[number][..., None])
        out[number] = np.minimum(stages.min(axis=-1), 1.0)
    return out


def _scores(values: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    array = array[None] if array.ndim == 1 else array
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"{name} must be [runs] or [cells, runs] with at least one run, and has shape {array.shape}")
    present = array[~np.isnan(array)]
    if ((present < 0) | (present > 1)).any():
        raise ValueError(f"{name} must be sign counts in [0, 1]")
    return array


def _same_cells(concept_CR: NDArray[np.float64], null_CQ: NDArray[np.float64]) -> None:
    if len(concept_CR) != len(null_CQ):
        raise ValueError(f"concept_scores has {len(concept_CR)} cells, and null_scores has {len(null_CQ)}")


def _result(
    p: NDArray[np.float64], score_C: NDArray[np.float64], null_CQ: NDArray[np.float64], smallest: float
) -> ScoreTest:
    null_mean = null_CQ.mean(axis=1)
    null_sd = null_CQ.std(axis=1, ddof=1) if null_CQ.shape[1] > 1 else np.full(len(null_CQ), np.nan)
    missing = np.isnan(score_C) | np.isnan(null_mean)
    return ScoreTest(np.where(missing, np.nan, p), score_C, null_mean, null_sd, score_C - null_mean, smallest)


def _welch_p(left_CR: NDArray[np.float64], right_CQ: NDArray[np.float64]) -> NDArray[np.float64]:
    p = _t_test(left_CR, right_CQ, equal_var=False)
    return _where_equal(p, left_CR.mean(axis=1) != right_CQ.mean(axis=1))


def _t_test(left_CR: NDArray[np.float64], right_CQ: NDArray[np.float64], *, equal_var: bool) -> NDArray[np.float64]:
    from scipy.stats import ttest_ind  # takes a second to import, and drivers and reports run no test

    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all runs equal: the variance is 0
        p = ttest_ind(left_CR, right_CQ, axis=1, equal_var=equal_var).pvalue
    return np.asarray(p, dtype=np.float64)


def _where_equal(p: NDArray[np.float64], differs: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Replace the NaN p of two constant samples (their t is 0/0): 0 if they differ, else 1."""
    return np.where(np.isnan(p), np.where(differs, 0.0, 1.0), p)
