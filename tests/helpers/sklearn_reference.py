"""scikit-learn's estimators, one CAV at a time: the reference for tests of the batched solvers."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

ReferenceSolver = Literal["logistic", "ridge", "svm", "sgd"]


@dataclass(frozen=True)
class ReferenceCav:
    """`vector` [d] of unit length, `bias` (decision = z·vector + bias), balanced accuracies in [0, 1]."""

    vector: NDArray[np.float64]
    bias: float
    train_accuracy: float
    held_out_accuracy: float


def train_reference(
    train_ND: NDArray[Any],
    labels_N: NDArray[Any],
    held_out_HD: NDArray[Any],
    held_out_labels_H: NDArray[Any],
    *,
    solver: ReferenceSolver,
    regularization: float,
    seed: int = 0,
) -> ReferenceCav:
    """Train one CAV with scikit-learn, to convergence.

    Args:
        train_ND, held_out_HD: activations of the two parts, as split by the caller (see `vtcav_ray.cavs.splits`).
        labels_N, held_out_labels_H: +1 for the concept, -1 for the negatives.
        solver: which estimator; `regularization` in its own convention.
        seed: of the estimators that draw random numbers.
    """
    # Not at the top: collecting the tests would import scikit-learn in every worker.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.svm import LinearSVC

    estimator: Any
    if solver == "logistic":
        estimator = LogisticRegression(C=regularization, tol=1e-12, max_iter=20_000)
    elif solver == "ridge":
        estimator = RidgeClassifier(alpha=regularization, solver="svd")
    elif solver == "svm":
        # Both have the same optimum; coordinate descent is slow on duplicated rows, Newton's method on many columns.
        dual = train_ND.shape[1] > 20 * train_ND.shape[0]
        estimator = LinearSVC(C=regularization, dual=dual, tol=1e-8, max_iter=1_000_000, random_state=seed)
    else:
        estimator = SGDClassifier(alpha=regularization, max_iter=1000, tol=1e-3, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        estimator.fit(np.asarray(train_ND, dtype=np.float64), labels_N)
    weight = estimator.coef_.reshape(-1)
    length = float(np.linalg.norm(weight))
    return ReferenceCav(
        vector=weight / length,
        bias=float(np.ravel(estimator.intercept_)[0]) / length,
        train_accuracy=float(balanced_accuracy_score(labels_N, estimator.predict(train_ND))),
        held_out_accuracy=float(balanced_accuracy_score(held_out_labels_H, estimator.predict(held_out_HD)))
        if len(held_out_HD)
        else float("nan"),
    )
