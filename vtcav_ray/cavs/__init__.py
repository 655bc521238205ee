"""CAVs: linear classifiers between a concept and its negatives, trained thousands at once in the Gram matrix."""

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
from vtcav_ray.cavs.train import DEFAULT_REGULARIZATION, Cavs, Solver, train_cavs

__all__ = [
    "DEFAULT_REGULARIZATION",
    "AccuracyCurve",
    "Cavs",
    "Gram",
    "RandomSets",
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
