"""CAVs: linear classifiers between a concept and its negatives, trained thousands at once in the Gram matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtcav_ray.lazy import lazy_names

if TYPE_CHECKING:
    from vtcav_ray.cavs.curves import AccuracyCurve, accuracy_curve
    from vtcav_ray.cavs.gram_matrix import Gram, gram
    from vtcav_ray.cavs.sets import (
        RandomSets,
        against_each,
        against_pairs,
        against_rest,
        random_against_random,
        random_sets,
    )
    from vtcav_ray.cavs.solvers import Solution, Solver
    from vtcav_ray.cavs.train import DEFAULT_REGULARIZATION, train_cavs
    from vtcav_ray.cavs.trained import Cavs

__all__ = [
    "DEFAULT_REGULARIZATION",
    "AccuracyCurve",
    "Cavs",
    "Gram",
    "RandomSets",
    "Solution",
    "Solver",
    "accuracy_curve",
    "against_each",
    "against_pairs",
    "against_rest",
    "gram",
    "random_against_random",
    "random_sets",
    "train_cavs",
]

__getattr__ = lazy_names(
    __name__,
    {
        "curves": ["AccuracyCurve", "accuracy_curve"],
        "gram_matrix": ["Gram", "gram"],
        "sets": ["RandomSets", "against_each", "against_pairs", "against_rest", "random_against_random", "random_sets"],
        "solvers": ["Solution", "Solver"],
        "train": ["DEFAULT_REGULARIZATION", "train_cavs"],
        "trained": ["Cavs"],
    },
)
