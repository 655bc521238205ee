"""Checks and per-video averages shared by all functions of this package.

Legend: N rows (clips), V source videos, d numbers each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vtcav_ray.cavs.indices import check_groups, check_pool

MOST_TURNS = 64  # rows of a video


def check_gradients(gradients: ArrayLike, name: str = "gradients") -> NDArray[np.float64]:
    """Return a class's gradients as a finite float64 array [N, d].

    Raises:
        ValueError: no rows (a class without clips), wrong shape, NaN or infinite values.
    """
    array = np.asarray(gradients)
    if array.ndim == 2 and array.shape[0] == 0:
        raise ValueError(f"{name} has no rows: the class has no clips; give it some, or leave it out")
    return check_pool(array, name).astype(np.float64, copy=False)


def check_width(array: NDArray[Any], dim: int, name: str, other: str = "gradients") -> None:
    """Raise ValueError if two arrays that will be multiplied do not have the same d."""
    if array.shape[1] != dim:
        raise ValueError(
            f"{name} has d = {array.shape[1]}, and {other} has d = {dim}: take both from the same layer and projection"
        )


def video_means(rows_ND: NDArray[Any], groups: ArrayLike | None, name: str = "groups") -> NDArray[np.float64]:
    """Average the rows of each source video: [V, d]. A video counts once, however many views or tracks it has.

    Videos are ordered by their sorted labels. Everything downstream is linear in a row, so averaging the rows first
    gives the same as averaging the results.
    """
    if groups is None:
        return np.asarray(rows_ND, dtype=np.float64)
    video_N = check_groups(groups, len(rows_ND), name)
    counts_V = np.bincount(video_N)
    sums_VD = np.zeros((len(counts_V), rows_ND.shape[1]))
    if rows_ND.shape[1] == 1 or counts_V.max() > MOST_TURNS:
        np.add.at(sums_VD, video_N, rows_ND)
        return sums_VD / counts_V[:, None]
    # First the first row of every video, then the second row, and so on: the sums of `np.add.at`, several times faster.
    order_N, first_V = np.argsort(video_N, kind="stable"), np.cumsum(counts_V) - counts_V
    for k in range(counts_V.max()):
        more = np.flatnonzero(counts_V > k)
        sums_VD[more] += rows_ND[order_N[first_V[more] + k]]
    return sums_VD / counts_V[:, None]
