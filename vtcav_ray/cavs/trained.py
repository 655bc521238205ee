"""Trained CAVs: their vectors, biases, accuracies, and the derivatives of gradients along them.

Legend: N rows of the pool, d numbers each, M CAVs, C gradients.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray

from vtcav_ray.cavs.gram_matrix import Gram
from vtcav_ray.cavs.indices import check_pool
from vtcav_ray.cavs.primal import CANCELLED
from vtcav_ray.registry import SOLVERS

_COLUMN_BLOCK = 4096  # of the vectors formed at a time


@dataclass(frozen=True)
class Cavs:
    """M trained CAVs. A row's decision value is z·vector + bias, positive on the concept's side.

    A CAV that could not be trained has NaN in every figure, and its `reason` says why.

    Attributes:
        bias: [M] float32, scaled with the unit vector.
        train_accuracy, held_out_accuracy: [M] float32, balanced (mean of both sides' shares), in [0, 1]. Held-out is
            NaN if nothing was held out.
        coefficients: sparse [M, N]; the vectors are `coefficients @ pool` (see `vectors`), of unit length. Zero on
            held-out rows.
        reason: M strings; empty if the CAV was trained.
        n_positives, n_negatives: [M] rows given on each side, train and held-out together.
    """

    bias: NDArray[np.float32]
    train_accuracy: NDArray[np.float32]
    held_out_accuracy: NDArray[np.float32]
    coefficients: scipy.sparse.csr_array
    reason: tuple[str, ...]
    n_positives: NDArray[np.int64]
    n_negatives: NDArray[np.int64]
    solver: str
    gram: Gram = field(repr=False)

    def __len__(self) -> int:
        return len(self.bias)

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """The CAVs, [M, d] float32, unit length, pointing at the positives. Computed at first use (M x d numbers)."""
        pool_ND, mean_D = self.gram.pool_ND, self.gram.mean_D
        out_MD = np.empty((len(self), self.gram.dim), dtype=np.float32)
        total_M = np.asarray(self.coefficients.sum(axis=1)).reshape(-1)
        exact = pool_ND.dtype == np.float64
        coefficients = self.coefficients if exact else self.coefficients.astype(np.float32)
        # In float64 if the summands cancel (w has length 1).
        short = np.flatnonzero(np.asarray(abs(self.coefficients).sum(axis=1)).ravel() * self.gram.scale > 1 / CANCELLED)
        for left in range(0, self.gram.dim, _COLUMN_BLOCK):
            part = slice(left, left + _COLUMN_BLOCK)
            centred = (pool_ND[:, part] - mean_D[part]).astype(coefficients.dtype)
            out_MD[:, part] = coefficients @ centred
            if len(short):
                out_MD[short, part] = self.coefficients[short] @ (pool_ND[:, part] - mean_D[part])
            if SOLVERS[self.solver].raw_rows:  # where the bias is free, coefficients sum to 0
                out_MD[:, part] += total_M[:, None] * mean_D[part]
        with np.errstate(invalid="ignore"):
            out_MD /= np.linalg.norm(out_MD, axis=1, keepdims=True)
        return out_MD

    def sensitivities(self, gradients: ArrayLike) -> NDArray[np.float32]:
        """Return the directional derivatives [C, M] of gradients [C, d] along the CAVs, in logits per unit of z.

        Uses the cheaper of two ways: the vectors, or, for large d, the gradients' inner products with the pool's rows,
        which need no [M, d] array.

        Raises:
            ValueError: `gradients` is not finite, or its d differs from the pool's.
        """
        gradients_CD = check_pool(gradients, "gradients").astype(np.float32, copy=False)
        if gradients_CD.shape[1] != self.gram.dim:
            raise ValueError(f"gradients has d = {gradients_CD.shape[1]}, and the pool has d = {self.gram.dim}")
        num, rows = len(gradients_CD), self.gram.num_rows
        through_pool = num * rows * self.gram.dim + num * self.coefficients.nnz
        through_vectors = num * len(self) * self.gram.dim + self.coefficients.nnz * self.gram.dim
        if "vectors" in self.__dict__ or through_vectors <= through_pool:
            return gradients_CD @ self.vectors.T
        pool_ND, mean_D = self.gram.pool_ND, self.gram.mean_D
        inner_NC = np.zeros((rows, num), dtype=np.float64)
        for left in range(0, self.gram.dim, _COLUMN_BLOCK):
            part = slice(left, left + _COLUMN_BLOCK)
            inner_NC += (pool_ND[:, part] - mean_D[part]) @ gradients_CD[:, part].T.astype(np.float64)
        total_M = np.asarray(self.coefficients.sum(axis=1)).reshape(-1)
        out_MC = self.coefficients @ inner_NC + total_M[:, None] * (gradients_CD @ mean_D)
        return np.ascontiguousarray(out_MC.T, dtype=np.float32)
