"""Which concepts push misclassified videos to the wrong class.

For every class example i with true class t, its RIVAL r is the likeliest other class; of a misclassified video, r is
the model's wrong answer. A concept c at a layer gives the video one number, its push towards the rival:

    x_i(c) = presence of c in i · (push of c on r - push of c on t), in logits,

where presence is as in `vtcav_ray.explain.pushes`, and the pushes are the concept's effects on the two classes at the
layer's gain. x is defined in the same way for videos that are classified correctly, and does not use the answer.

NULL. Among the class examples of one true class, the x of the misclassified videos and those of the correct ones are
exchangeable: how present the concept is, and which way it pushes, has nothing to do with whether the model errs.

TEST. The statistic is the difference between the mean x of the misclassified and of the correct videos within true
classes, where classes weigh as their misclassified videos do. Source videos are permuted between the two sides within
each true class (a stratified permutation test, `vtcav_ray.tcav.strata`). So a class that is both hard and rich in the
concept is no evidence. All concepts and layers share the arrangements; p is equal-tailed, and q is p corrected for all
of them by step-down min-p (Westfall and Young, 1993), so the probability of any wrong row with q <= alpha is at most
alpha.

A positive difference says that the concept pushes harder to the wrong class where the model errs. A true class whose
videos are all right or all wrong gives no contrast, and is left out of the test.

Legend: V videos, C cells (concept and layer), K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vtcav_ray.tcav.family import effect_family

NO_MISTAKES = "No class example is misclassified."
NO_CONTRAST = "No class has both misclassified and correct examples: there is nothing to compare."
NO_SPREAD = "The push is the same for the misclassified and the correct examples of every class."


@dataclass(frozen=True)
class MistakeTests:
    """The tests of C cells: arrays [C]. NaN where there is no test, and `note` says why.

    Attributes:
        push: mean x of the misclassified videos, in logits: positive is towards the wrong class.
        push_correct: mean x of the correct ones, over all classes.
        difference: misclassified minus correct within true classes, in logits.
        p: by permutation within true classes, equal-tailed.
        q: p corrected for all C cells.
        num_mistakes, num_correct: videos.
        no_contrast: true classes of mistakes that have no correct video.
        note: why there is no test; empty: there is one.
    """

    push: NDArray[np.float64]
    push_correct: NDArray[np.float64]
    difference: NDArray[np.float64]
    p: NDArray[np.float64]
    q: NDArray[np.float64]
    num_mistakes: int
    num_correct: int
    no_contrast: Sequence[str]
    note: Sequence[str]

    def ranking(self) -> NDArray[np.int64]:
        """Return the cells, the clearest push to the wrong class first.

        Cells with a positive difference come first, by q and then by size; then the other tested ones, from the least
        clear on; then those without a test.
        """
        q, size = np.nan_to_num(self.q, nan=2.0), np.nan_to_num(self.difference, nan=0.0)
        tested = np.isfinite(self.q)
        toward = tested & (size > 0)
        group = np.where(toward, 0, np.where(tested, 1, 2))
        return np.lexsort((-size, np.where(toward, q, -q), group))


def pushes_to_rival(presence: ArrayLike, effects: ArrayLike, truth: ArrayLike, rival: ArrayLike) -> NDArray[np.float64]:
    """Return x, [V, C].

    Args:
        presence: of each concept in each video, [V, C].
        effects: of each concept on each class, at the layer's gain, in logits, [C, K].
        truth, rival: indices of each video's classes, [V].

    Raises:
        ValueError: shapes that do not fit, or a rival that is the true class.
    """
    presence_VC, effects_CK = np.asarray(presence, np.float64), np.asarray(effects, np.float64)
    of, other = np.asarray(truth, np.int64), np.asarray(rival, np.int64)
    if presence_VC.ndim != 2 or effects_CK.ndim != 2 or presence_VC.shape[1] != len(effects_CK):
        raise ValueError(
            f"presence must be [videos, cells] and effects [cells, classes]: {presence_VC.shape}, {effects_CK.shape}"
        )
    if of.shape != (len(presence_VC),) or other.shape != of.shape:
        raise ValueError(f"truth and rival must name a class for each of the {len(presence_VC)} videos")
    if (of == other).any():
        raise ValueError(f"the rival of video {int(np.flatnonzero(of == other)[0])} is its true class")
    return np.asarray(presence_VC * (effects_CK[:, other] - effects_CK[:, of]).T)


def mistake_tests(
    pushes: ArrayLike, mistaken: ArrayLike, truth: ArrayLike, *, permutations: int = 100_000, seed: int = 0
) -> MistakeTests:
    """Test whether concepts push harder to the rival where the model errs.

    Args:
        pushes: x, [V, C]: one row per source video.
        mistaken: whether the model's answer is wrong, [V].
        truth: true class of each video, [V].
        permutations: maximum number of arrangements. If there are fewer, all are used.
        seed: of the arrangements.

    Raises:
        ValueError: shapes that do not fit, or values that are infinite.
    """
    rows_VC, wrong = np.asarray(pushes, np.float64), np.asarray(mistaken, bool)
    labels = np.array([str(one) for one in np.asarray(truth).tolist()])
    if rows_VC.ndim != 2 or wrong.shape != (len(rows_VC),) or labels.shape != wrong.shape:
        raise ValueError(
            f"pushes must be [videos, cells], with one entry of mistaken and truth per video: {rows_VC.shape}, "
            f"{wrong.shape}, {labels.shape}"
        )
    own, other = rows_VC[wrong], rows_VC[~wrong]
    both = set(labels[wrong]) & set(labels[~wrong])
    if not both:
        return _untested(own, other, NO_CONTRAST if wrong.any() else NO_MISTAKES, sorted(set(labels[wrong])))
    strata = np.concatenate((labels[wrong], labels[~wrong]))
    found = effect_family(own, other, strata=strata, permutations=permutations, tails="equal", seed=seed)
    return MistakeTests(
        push=own.mean(axis=0),
        push_correct=other.mean(axis=0),
        difference=found.effect_within,
        p=found.p_within,
        q=found.p_within_adjusted,
        num_mistakes=len(own),
        num_correct=len(other),
        no_contrast=found.no_contrast,
        note=tuple("" if np.isfinite(p) else NO_SPREAD for p in found.p_within),
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
        p=nothing,
        q=nothing,
        num_mistakes=len(own),
        num_correct=len(other),
        no_contrast=tuple(no_contrast),
        note=(note,) * cells,
    )
