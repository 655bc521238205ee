"""What an effect says beyond a label: the class of a concept's clips, say.

Concept clips of "racket" are mostly tennis clips. Their effect is partly that of tennis clips as such. With the label l
of each source video, the effect splits exactly into

    E = sum_l p_c(l) [x_l - y_l] + sum_l (p_c(l) - p_r(l)) y_l

where p_c and p_r are the shares of label l among the concept's and the random videos, and x_l and y_l the means of
their projections. The first part lies within labels: same label, with the concept against without. The second goes with
the label itself: the concept has more videos of some labels. (Kitagawa, Components of a difference between two rates,
1955.)

The test of the first part permutes the concept's and the random videos within each label (a stratified permutation
test), so it is exact if they are exchangeable there, whatever the labels do. See `permuted_cells.LabelCells`.

A label of concept videos that no random video has gives no contrast: nothing tells its concept from the label. It is
named, and the other labels' weights are p_c(l) over their sum. The second part is then all that the within part leaves.

Legend: C cells, U = n + m videos, L labels with videos on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from vtcav_ray.tcav.permuted_cells import Cells, LabelCells, WelchCells

_FLAT = 1e-6  # a spread within labels below this share of the whole spread is rounding


@dataclass(frozen=True)
class Strata:
    """The labels of one concept and its random set.

    Attributes:
        labels: those with videos on both sides, sorted by their text.
        counts: (n, m) of each of them.
        weights: of each label in the within part; their sum is 1. [L]
        order: videos of these labels, label by label, in each the concept's first; indices into the n + m videos, the
            concept's first.
        no_contrast: labels of concept videos that no random video has.
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, int], ...]
    weights: NDArray[np.float64]
    order: NDArray[np.int64]
    no_contrast: tuple[str, ...]

    @classmethod
    def of(cls, concept: ArrayLike, random: ArrayLike) -> Strata:
        """Count the labels of the concept's videos, [n], and of the random ones, [m]."""
        left, right = _texts(concept), _texts(random)
        n = len(left)
        sides = {
            label: (np.flatnonzero(left == label), np.flatnonzero(right == label) + n) for label in np.unique(left)
        }
        both = {label: pair for label, pair in sides.items() if len(pair[1])}
        counts = tuple((len(a), len(b)) for a, b in both.values())
        sizes = np.array([a for a, _ in counts], dtype=np.float64)
        order = [part for pair in both.values() for part in pair]
        return cls(
            labels=tuple(str(label) for label in both),
            counts=counts,
            weights=sizes / sizes.sum() if counts else sizes,
            order=np.concatenate(order) if order else np.zeros(0, dtype=np.int64),
            no_contrast=tuple(str(label) for label in sides if label not in both),
        )

    def cells(self, projections_UC: torch.Tensor) -> Cells:
        """Return the cells whose statistic tests the within part. With one label, it is that of the plain test."""
        ordered = projections_UC[torch.from_numpy(self.order).to(projections_UC.device)]
        if len(self.counts) == 1:
            return WelchCells.of(ordered, self.counts[0][0])
        return LabelCells.of(ordered, self.counts, self.weights)

    def flat(self, projections_UC: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Say which cells have no spread within any label, up to rounding: nothing can be tested there. [C]"""
        ordered, spread, start = projections_UC[self.order], np.zeros(projections_UC.shape[1]), 0
        for n, m in self.counts:
            spread = np.maximum(spread, np.ptp(ordered[start : start + n + m], axis=0))
            start += n + m
        return spread <= _FLAT * np.ptp(projections_UC, axis=0)

    def effect_within(self, projections_UC: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the within part of C effects: sum_l w_l (x_l - y_l), [C]; NaN if no label has a contrast."""
        effect = np.zeros(projections_UC.shape[1])
        start = 0
        for (n, m), weight in zip(self.counts, self.weights, strict=True):
            rows = projections_UC[self.order[start : start + n + m]]
            effect += weight * (rows[:n].mean(axis=0) - rows[n:].mean(axis=0))
            start += n + m
        return effect if self.counts else np.full_like(effect, np.nan)


def between_share(
    effect: NDArray[np.float64], within: NDArray[np.float64], standard_error: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the share of the effect that is not within labels: (effect - within) / effect.

    It can lie outside [0, 1] if the parts have opposite signs. NaN unless the effect is larger than its standard error:
    a share of about nothing is noise.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (effect - within) / effect
        return np.where(np.abs(effect) > standard_error, share, np.nan)


def video_labels(strata: ArrayLike, videos: NDArray[np.int64]) -> NDArray[Any]:
    """Return the label of each source video: [V], as text.

    Args:
        strata: label of each of N rows; of any type, compared as text.
        videos: source video of each row, 0..V-1.

    Raises:
        ValueError: not one label per row, a missing label, or a video with two labels.
    """
    given = np.asarray(strata)
    if given.shape != videos.shape:
        raise ValueError(
            f"strata must give one label per row: shape ({len(videos)},), not {given.shape}; give the labels of the "
            "concept's rows, then those of the random rows"
        )
    missing = [row for row, label in enumerate(given.tolist()) if label is None or label != label]
    if missing:
        raise ValueError(f"strata has no label for row {missing[0]}: label the row, or leave it out of both sides")
    labels_N = _texts(given)
    _, first = np.unique(videos, return_index=True)
    labels_V = labels_N[first]
    differs = np.flatnonzero(labels_V[videos] != labels_N)
    if differs.size:
        row = int(differs[0])
        before = int(first[videos[row]])
        raise ValueError(
            f"strata gives two labels, {str(labels_N[before])!r} and {str(labels_N[row])!r}, to rows {before} and "
            f"{row} of one source video: give all rows of a video the same label, or correct groups"
        )
    return labels_V


def _texts(labels: ArrayLike) -> NDArray[Any]:
    return np.array([str(label) for label in np.asarray(labels).tolist()], dtype=str)
