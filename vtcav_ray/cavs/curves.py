"""Held-out accuracy over the number of examples: would more clips make the concept easier to learn?

Legend: S sizes, R repeats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vtcav_ray.cavs.gram_matrix import Gram, gram
from vtcav_ray.cavs.indices import hash_groups
from vtcav_ray.cavs.train import train_cavs


@dataclass(frozen=True)
class AccuracyCurve:
    """Arrays [S]: `sizes` (source videos per side), mean held-out balanced `accuracy`, and its `sd` over repeats."""

    sizes: NDArray[np.int64]
    accuracy: NDArray[np.float64]
    sd: NDArray[np.float64]


def accuracy_curve(
    pool: ArrayLike | Gram,
    positives: ArrayLike,
    negatives: ArrayLike,
    sizes: Sequence[int],
    *,
    groups: ArrayLike | None = None,
    repeats: int = 20,
    solver: str = "logistic",
    regularization: float | None = None,
    held_out: float = 0.33,
    seed: int = 0,
) -> AccuracyCurve:
    """Train on random subsets of increasing size, all in one batch.

    If both sides have the same videos (pairs), so have the two sides of a subset.

    Args:
        pool, groups, solver, regularization, held_out: as for `train_cavs`.
        positives, negatives: row indices of the two sides, one-dimensional.
        sizes: source videos per side, each at least 2 and at most the smaller side's number of videos.
        repeats: R subsets of each size.
        seed: of the subsets and splits.

    Raises:
        ValueError: a size is out of range, or `repeats` is below 1.
    """
    matrix = pool if isinstance(pool, Gram) else gram(pool)
    video_N = hash_groups(groups, matrix.num_rows)  # `train_cavs` sorts integers faster than text
    sides = [np.asarray(side, dtype=np.int64) for side in (positives, negatives)]
    videos = [np.unique(video_N[side]) for side in sides]
    most = min(len(one) for one in videos)
    if len(sizes) == 0 or min(sizes) < 2 or max(sizes) > most:
        raise ValueError(f"sizes must be between 2 and {most}, the source videos of the smaller side: {list(sizes)}")
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, and is {repeats}")
    in_pairs = np.array_equal(videos[0], videos[1])
    generator = np.random.default_rng(seed)
    left, right = [], []
    for size in sizes:
        for _ in range(repeats):
            chosen = [generator.choice(one, size=size, replace=False) for one in videos[: 1 if in_pairs else 2]]
            left.append(sides[0][np.isin(video_N[sides[0]], chosen[0])])
            right.append(sides[1][np.isin(video_N[sides[1]], chosen[-1])])
    cavs = train_cavs(
        matrix, left, right, groups=video_N, solver=solver, regularization=regularization, held_out=held_out, seed=seed
    )
    table = cavs.held_out_accuracy.astype(np.float64).reshape(len(sizes), repeats)
    return AccuracyCurve(np.asarray(sizes, dtype=np.int64), table.mean(axis=1), table.std(axis=1))
