"""Which concepts push misclassified videos to the wrong class.

For every class example i with true class t, its RIVAL r is the likeliest other class; of a misclassified video, r is
the model's wrong answer. A concept with direction v at a layer (`vtcav_ray.why.pushes`) gives the video one number,
its push towards the rival: how far the margin of r over t moves, to first order, through the amount of the concept in
this video that typical random clips do not have,

    x_i = gain · (P∇h_r - P∇h_t)·v · v·(z_i - m) / v·v,

with the video's activation z_i, the mean m of the concept's random videos, and the mean gradients of the classes at the
clips at which the scores take them. The length of v does not matter. x is defined in the same way for the videos that
are classified correctly, and does not use the answer. The figure of a concept is

    D = mean x of the misclassified videos - mean x of the correct ones, within true classes,

where true classes weigh as their misclassified videos do. So a class that is both hard and rich in the concept is no
evidence. A true class whose videos are all right or all wrong gives no contrast, and is left out.

A row counts as a finding only if BOTH of two permutation tests over source videos reject their null:

1. Examples. NULL: among the class examples of one true class, the x of misclassified and of correct videos are
   exchangeable; the direction v has nothing to do with whether the model errs. Videos are permuted between the two
   sides within each true class (`vtcav_ray.tcav.strata`); p is equal-tailed. Its q is corrected for all concepts and
   layers by step-down min-p (Westfall and Young, 1993).
2. Direction. NULL: the concept's source videos are exchangeable with its random ones; v is no more related to the
   mistakes than a difference between random sets of the same sizes. Without this test, any concept would do: a mean
   over few clips contains a little of whatever moves the model most, and the first test would find that. The videos
   that define v are permuted; p is the upper tail of D · v·v: without the division, as a difference between random
   sets is short, and its direction alone would not say so. Its q is corrected by Holm's method. For a concept in
   pairs, clip and partner of a video are swapped instead.

p is the larger of the two, and q = min(1, 2 · the larger of the two q). Each q controls the family-wise error of its
own nulls, so with the factor 2 the probability of any row with q <= alpha for which either null is true is at most
alpha.

Legend: V videos, C cells (concept and layer), K classes, U videos that define v, G groups (true class, rival, right or
wrong), d numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vtcav_ray.tcav.family import effect_family
from vtcav_ray.tcav.permutation import flip, within_labels
from vtcav_ray.tcav.significance import adjust
from vtcav_ray.tcav.strata import Strata

NO_MISTAKES = "No class example is misclassified."
NO_CONTRAST = "No class has both misclassified and correct examples: there is nothing to compare."
NO_SPREAD = "The push is the same for the misclassified and the correct examples of every class."
_ROWS_AT_A_TIME = 2048
_FLAT = 1e-9  # a difference of two arrangements below this share of the figure is rounding


@dataclass(frozen=True)
class Margins:
    """The class examples at one layer, in the groups that D is linear in.

    Attributes:
        coefficients: weight of each group's mean x in D, [G].
        slopes: gain · (P∇h_r - P∇h_t) of each group, [G, d].
        means: mean activation of each group, [G, d].
    """

    coefficients: NDArray[np.float64]
    slopes: NDArray[np.float64]
    means: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        activations: ArrayLike,
        gradients: ArrayLike,
        truth: ArrayLike,
        rival: ArrayLike,
        mistaken: ArrayLike,
    ) -> Margins:
        """Group the class examples.

        Args:
            activations: of the videos, [V, d].
            gradients: mean gradient of each class at the layer's gain, [K, d].
            truth, rival: indices of each video's classes, [V].
            mistaken: whether the answer is wrong, [V].
        """
        z, slopes = np.asarray(activations, np.float64), np.asarray(gradients, np.float64)
        of, other, wrong = np.asarray(truth), np.asarray(rival), np.asarray(mistaken, bool)
        strata = Strata.of(of[wrong], of[~wrong])
        weight = dict(zip(strata.labels, strata.weights, strict=True))
        found = []
        for t, r, w in sorted(set(zip(of.tolist(), other.tolist(), wrong.tolist(), strict=True))):
            if str(t) in weight:
                rows = (of == t) & (other == r) & (wrong == w)
                share = weight[str(t)] * rows.sum() / ((of == t) & (wrong == w)).sum()
                found.append((share if w else -share, slopes[r] - slopes[t], z[rows].mean(axis=0)))
        d = z.shape[1]
        return cls(
            np.array([a for a, _, _ in found]),
            np.array([slope for _, slope, _ in found]).reshape(-1, d),
            np.array([mean for _, _, mean in found]).reshape(-1, d),
        )


@dataclass(frozen=True)
class MistakeTests:
    """The tests of C cells: arrays [C]. NaN where there is no test, and `note` says why.

    Attributes:
        push: mean x of the misclassified videos, in logits: positive is towards the wrong class.
        push_correct: mean x of the correct ones, over all classes.
        difference: D.
        p_examples, p_direction: of the two tests.
        p: the larger of the two.
        q: p corrected for all C cells and both tests.
        num_mistakes, num_correct: videos.
        no_contrast: true classes of mistakes that have no correct video.
        note: why there is no test; empty: there is one.
    """

    push: NDArray[np.float64]
    push_correct: NDArray[np.float64]
    difference: NDArray[np.float64]
    p_examples: NDArray[np.float64]
    p_direction: NDArray[np.float64]
    p: NDArray[np.float64]
    q: NDArray[np.float64]
    num_mistakes: int
    num_correct: int
    no_contrast: Sequence[str]
    note: Sequence[str]

    def ranking(self) -> NDArray[np.int64]:
        """Return the cells, the clearest push to the wrong class first.

        Cells with a positive difference come first, by q, then by p, then by the size of the difference; then the other
        tested ones; then those without a test.
        """
        q, p, size = (np.nan_to_num(x, nan=2.0) for x in (self.q, self.p, self.difference))
        tested = np.isfinite(self.q)
        group = np.where(tested & (size > 0), 0, np.where(tested, 1, 2))
        return np.lexsort((-size, p, q, group))


def pushes_to_rival(
    activations: ArrayLike,
    direction: ArrayLike,
    random_mean: ArrayLike,
    gradients: ArrayLike,
    truth: ArrayLike,
    rival: ArrayLike,
) -> NDArray[np.float64]:
    """Return x of one concept at one layer, [V]; NaN if the direction has length 0.

    Args:
        activations: of the videos, [V, d].
        direction: v, [d].
        random_mean: m, [d].
        gradients: mean gradient of each class at the layer's gain, [K, d].
        truth, rival: indices of each video's classes, [V].

    Raises:
        ValueError: shapes that do not fit, or a rival that is the true class.
    """
    z, slopes = np.asarray(activations, np.float64), np.asarray(gradients, np.float64)
    v, m = np.asarray(direction, np.float64), np.asarray(random_mean, np.float64)
    of, other = np.asarray(truth, np.int64), np.asarray(rival, np.int64)
    if z.ndim != 2 or slopes.ndim != 2 or not z.shape[1:] == slopes.shape[1:] == v.shape == m.shape:
        raise ValueError(
            f"activations {z.shape}, gradients {slopes.shape}, direction {v.shape} and random_mean {m.shape} must have "
            "the same d"
        )
    if of.shape != (len(z),) or other.shape != of.shape:
        raise ValueError(f"truth and rival must name a class for each of the {len(z)} videos")
    if (of == other).any():
        raise ValueError(f"the rival of video {int(np.flatnonzero(of == other)[0])} is its true class")
    if not v @ v > 0:
        return np.full(len(z), np.nan)  # the concept's clips are like its random ones
    effects = slopes @ v
    return np.asarray((effects[other] - effects[of]) * ((z - m) @ v) / (v @ v))


def direction_p(
    margins: Margins, own: ArrayLike, random: ArrayLike, *, permutations: int, seed: int = 0, paired: bool = False
) -> float:
    """Return p of the second test, for one concept at one layer; NaN: no class has a contrast.

    Args:
        margins: the class examples.
        own: mean activation of each of the concept's source videos, [n, d].
        random: the same of its random videos, [m, d].
        permutations: maximum number of arrangements. If there are fewer, all are used.
        seed: of the arrangements.
        paired: `random[i]` is the partner of `own[i]`, and the two are swapped.
    """
    if not len(margins.coefficients):
        return float("nan")
    left, right = np.asarray(own, np.float64), np.asarray(random, np.float64)
    n, m = len(left), len(right)
    both_Ud = np.concatenate((left, right))
    centre = both_Ud.mean(axis=0)
    both_Ud = both_Ud - centre
    slopes_GU, means_GU = margins.slopes @ both_Ud.T, (margins.means - centre) @ both_Ud.T
    gram_UU = both_Ud @ both_Ud.T

    def figures(marks_BU: NDArray[np.float64]) -> NDArray[np.float64]:
        others_BU = (1 - marks_BU) / m
        weights_BU = marks_BU / n - others_BU  # v of each arrangement, as a combination of the videos
        products_BU = weights_BU @ gram_UU
        random_B = (products_BU * others_BU).sum(1)  # v·m
        return np.asarray(margins.coefficients @ ((slopes_GU @ weights_BU.T) * (means_GU @ weights_BU.T - random_B)))

    observed = figures(np.concatenate((np.ones(n), np.zeros(m)))[None])[0]
    arrangements = flip(n, permutations, seed) if paired else within_labels(((n, m),), permutations, seed)

    def sides(block: NDArray[np.float32]) -> NDArray[np.float64]:
        marks = block.astype(np.float64)
        return np.concatenate(((1 + marks) / 2, (1 - marks) / 2), axis=1) if paired else marks

    extreme = sum(
        int((figures(sides(marks.numpy())) >= observed - _FLAT * abs(observed)).sum())
        for marks in arrangements.blocks(_ROWS_AT_A_TIME)
    )
    return extreme / arrangements.total if arrangements.exact else (1 + extreme) / (1 + arrangements.total)


def mistake_tests(
    pushes: ArrayLike,
    mistaken: ArrayLike,
    truth: ArrayLike,
    p_direction: ArrayLike,
    *,
    permutations: int = 100_000,
    seed: int = 0,
) -> MistakeTests:
    """Test whether concepts push harder to the rival where the model errs.

    Args:
        pushes: x, [V, C]: one row per source video.
        mistaken: whether the model's answer is wrong, [V].
        truth: true class of each video, [V].
        p_direction: p of the second test of each cell, [C]; NaN leaves a cell untested.
        permutations: maximum number of arrangements. If there are fewer, all are used.
        seed: of the arrangements.

    Raises:
        ValueError: shapes that do not fit, or values that are infinite.
    """
    rows_VC, wrong, direction = np.asarray(pushes, np.float64), np.asarray(mistaken, bool), np.asarray(p_direction)
    labels = np.array([str(one) for one in np.asarray(truth).tolist()])
    if rows_VC.ndim != 2 or wrong.shape != (len(rows_VC),) or labels.shape != wrong.shape:
        raise ValueError(
            f"pushes must be [videos, cells], with one entry of mistaken and truth per video: {rows_VC.shape}, "
            f"{wrong.shape}, {labels.shape}"
        )
    if direction.shape != (rows_VC.shape[1],):
        raise ValueError(f"p_direction must have one entry per cell: {direction.shape} for {rows_VC.shape[1]} cells")
    own, other = rows_VC[wrong], rows_VC[~wrong]
    if not set(labels[wrong]) & set(labels[~wrong]):
        return _untested(own, other, NO_CONTRAST if wrong.any() else NO_MISTAKES, sorted(set(labels[wrong])))
    strata = np.concatenate((labels[wrong], labels[~wrong]))
    found = effect_family(own, other, strata=strata, permutations=permutations, tails="equal", seed=seed)
    p_direction_C = np.where(np.isfinite(found.p_within), direction.astype(np.float64), np.nan)
    larger_q = np.maximum(found.p_within_adjusted, adjust(p_direction_C, "holm"))
    p = np.maximum(found.p_within, p_direction_C)
    return MistakeTests(
        push=own.mean(axis=0),
        push_correct=other.mean(axis=0),
        difference=found.effect_within,
        p_examples=found.p_within,
        p_direction=p_direction_C,
        p=p,
        q=np.minimum(1.0, 2 * larger_q),
        num_mistakes=len(own),
        num_correct=len(other),
        no_contrast=found.no_contrast,
        note=tuple("" if np.isfinite(one) else NO_SPREAD for one in p),
    )


def _untested(
    own: NDArray[np.float64], other: NDArray[np.float64], note: str, no_contrast: Sequence[str]
) -> MistakeTests:
    cells = own.shape[1]
    nothing = np.full(cells, np.nan)
    return MistakeTests(
        push=own.mean(axis=0) if len(own) else nothing,
        push_correct=other.mean(axis=0) if len(other) else nothing,
        difference=nothing,
        p_examples=nothing,
        p_direction=nothing,
        p=nothing,
        q=nothing,
        num_mistakes=len(own),
        num_correct=len(other),
        no_contrast=tuple(no_contrast),
        note=(note,) * cells,
    )
