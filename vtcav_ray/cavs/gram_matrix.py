"""The Gram matrix of a layer's whole pool. It is computed once, and every CAV indexes into it.

A linear classifier in d dimensions on n examples has its normal in the span of the examples, w = sum_i a_i z_i, and
depends on them only through their inner products. With n much smaller than d, training in the n x n matrix therefore
gives the same classifier at a cost that does not depend on d (Schölkopf & Smola, Learning with Kernels, 2002, section
4.2: the representer theorem).

The pool is centred first. The solvers' bias is free, so centring changes no CAV, and it saves the digits that a large
common offset (activations after a norm or a GELU) would cost.

Legend: N rows of the pool, d numbers each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from vtcav_ray.cavs.indices import check_pool

# Up to this size the matrix is float64 (134 MB): precision at no cost. Above, float32 halves its memory traffic.
_DOUBLE_UP_TO_ROWS = 4096
_BLOCK_ROWS = 2048
_BLOCK_NUMBERS = 1 << 25  # numbers in the centred slice of the pool that is held at a time


@dataclass(frozen=True)
class Gram:
    """Inner products of the centred rows of a pool, and the terms that convert them to raw rows.

    Attributes:
        pool_ND: the raw pool, as given.
        mean_D: its mean row, float64.
        inner_NN: (z_i - mean)·(z_j - mean), on the device where CAVs are trained.
        offset_N: (z_i - mean)·mean, float64 on the same device.
        mean_square: mean·mean.
        scale: root mean square norm of the raw rows; differences far below it are rounding.
    """

    pool_ND: NDArray[np.floating]
    mean_D: NDArray[np.float64]
    inner_NN: torch.Tensor
    offset_N: torch.Tensor
    mean_square: float
    scale: float

    @property
    def num_rows(self) -> int:
        """N."""
        return self.pool_ND.shape[0]

    @property
    def dim(self) -> int:
        """d."""
        return self.pool_ND.shape[1]

    @property
    def device(self) -> torch.device:
        """Device of `inner_NN`."""
        return self.inner_NN.device


def gram(pool: ArrayLike, *, dtype: torch.dtype | None = None, device: str | torch.device = "cpu") -> Gram:
    """Compute the Gram matrix of a pool, block by block.

    Args:
        pool: activations in P-space, [N, d], finite, of all concepts and all random sets of one layer.
        dtype: of the matrix and of the products; None: float64 up to 4,096 rows, float32 above.
        device: where to compute and store it, such as `cuda`.

    Returns:
        The matrix and the pool's mean. The matrix has N x N numbers: 10,000 rows take 400 MB as float32.

    Raises:
        ValueError: `pool` is not a finite [N, d] array.
    """
    pool_ND = check_pool(pool)
    num_rows, dim = pool_ND.shape
    if dtype is None:
        dtype = torch.float64 if num_rows <= _DOUBLE_UP_TO_ROWS else torch.float32
    mean_D = pool_ND.mean(axis=0, dtype=np.float64)
    inner_NN = torch.zeros((num_rows, num_rows), dtype=dtype, device=device)
    offset_N = torch.zeros(num_rows, dtype=torch.float64, device=device)
    # Slices of columns are outermost: each is centred once, and a pool mapped from a file is read once.
    columns = max(1, min(dim, _BLOCK_NUMBERS // num_rows))
    for left in range(0, dim, columns):
        part = slice(left, left + columns)
        centred = torch.from_numpy(np.ascontiguousarray(pool_ND[:, part] - mean_D[part])).to(device)
        offset_N += centred @ torch.from_numpy(mean_D[part]).to(device)
        centred = centred.to(dtype)
        for row in range(0, num_rows, _BLOCK_ROWS):
            rows = slice(row, row + _BLOCK_ROWS)
            # Only the blocks on and right of the diagonal: the matrix is symmetric.
            inner_NN[rows, row:] += centred[rows] @ centred[row:].T
    for row in range(0, num_rows, _BLOCK_ROWS):
        rows = slice(row, row + _BLOCK_ROWS)
        inner_NN[row + _BLOCK_ROWS :, rows] = inner_NN[rows, row + _BLOCK_ROWS :].T
    mean_square = float(mean_D @ mean_D)
    raw_square = float(inner_NN.diagonal().double().mean()) + mean_square
    return Gram(pool_ND, mean_D, inner_NN, offset_N, mean_square, float(np.sqrt(max(raw_square, 0.0))))
