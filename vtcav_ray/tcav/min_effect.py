"""A smallest effect of interest: when a cell is called, when it has no effect, and when it is undecided.

With enough clips any effect is significant, however small. So a cell is called only if the interval of its effect lies
beyond +-delta, and "no effect" is said only if the interval lies inside (-delta, delta); everything in between is
undecided. (Equivalence by intervals: Schuirmann, A comparison of the two one-sided tests procedure and the power
approach, 1987; the three answers: Lakens, Equivalence tests, 2017. A 95 % interval inside +-delta is equivalence at
2.5 %, stricter than the usual two one-sided tests at 5 %.)

delta is a share of the class's margin. Logits of first-order effects at different layers are not comparable: the effect
of a layer whose activation is averaged over 100 places is 100 times smaller than the change of the logit that it stands
for (`vtcav_ray.intervene.effect`, gain). The margin has the same factor, so shares are comparable:

    margin of class k = sqrt( mean over the other classes c of (m_k - m_c)^2 ),

where m_c is the mean over the source videos of class c of what the effect is a difference of: the projection on the
mean gradient of class k, or, for patch effects, the target of class k itself. An effect of 0.5 margins moves the
target half as far as the clips of another class are from the clips of class k. After the last non-linear layer the two
margins are equal. The square keeps classes on both sides from cancelling. The margin counts as known: its own error is
not in the intervals.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vtcav_ray.tcav.arrays import video_means


class Calls(NamedTuple):
    """Bool arrays [C]: the cells that are called, and those that have no effect of interest. Others are undecided."""

    significant: NDArray[np.bool_]
    negligible: NDArray[np.bool_]


def class_margin(values: ArrayLike, labels: ArrayLike, own: str, *, groups: ArrayLike | None = None) -> float:
    """Return the margin of a class, in the units of `values`: at least 0; NaN without its own or other classes' clips.

    Args:
        values: of each class clip, [N]: its projection on the mean gradient of the class, or the class's target there.
        labels: class of each clip, [N].
        own: the class.
        groups: source video of each clip, [N]; clips of one video count once.

    Raises:
        ValueError: shapes that do not fit.
    """
    value_N, label_N = np.asarray(values, dtype=np.float64), np.asarray(labels)
    if value_N.ndim != 1 or label_N.shape != value_N.shape:
        raise ValueError(f"values and labels must be one per clip: {value_N.shape} and {label_N.shape}")
    video_N = np.arange(len(value_N)) if groups is None else np.asarray(groups)
    means = {
        label: float(video_means(value_N[label_N == label, None], video_N[label_N == label]).mean())
        for label in np.unique(label_N).tolist()
    }
    others = np.array([mean for label, mean in means.items() if label != own])
    if own not in means or not len(others):
        return float("nan")
    return float(np.sqrt(np.square(means[own] - others).mean()))


def calls(
    q: ArrayLike, ci_low: ArrayLike, ci_high: ArrayLike, min_effect: ArrayLike = 0.0, *, alpha: float = 0.05
) -> Calls:
    """Decide C cells.

    Args:
        q: corrected p of each cell, [C]; NaN: not tested.
        ci_low, ci_high: interval of each effect, [C]; NaN: none.
        min_effect: delta of each cell in the units of the interval, at least 0, or one for all. 0 or NaN: none; then
            the cell is called by q alone, and never said to have no effect.
        alpha: level of q.

    Raises:
        ValueError: shapes that do not fit, or a negative `min_effect`.
    """
    q_C, low_C, high_C = (np.atleast_1d(np.asarray(x, dtype=np.float64)) for x in (q, ci_low, ci_high))
    if not q_C.shape == low_C.shape == high_C.shape:
        raise ValueError(f"q, ci_low and ci_high must be one per cell: {q_C.shape}, {low_C.shape}, {high_C.shape}")
    delta_C = np.broadcast_to(np.nan_to_num(np.asarray(min_effect, dtype=np.float64), nan=0.0), q_C.shape)
    if (delta_C < 0).any():
        raise ValueError(f"min_effect must be at least 0, and is {float(delta_C.min())}")
    beyond_C = (low_C > delta_C) | (high_C < -delta_C)
    inside_C = (low_C > -delta_C) & (high_C < delta_C)
    return Calls(significant=(q_C < alpha) & (beyond_C | (delta_C == 0)), negligible=inside_C & (delta_C > 0))
