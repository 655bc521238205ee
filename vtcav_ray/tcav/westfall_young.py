"""Correction for the cells of a family: step-down min-p. `significance.holm_over_families` corrects for families.

A family is one concept against one random set (or other side): all its cells, of every class and layer, are tested with
the same arrangements of the same videos. So the joint null distribution of their p-values is known, and cells that are
nearly copies of each other (neighbouring layers, similar classes) cost nearly nothing. This is the step-down min-p
procedure of Westfall & Young (Resampling-Based Multiple Testing, 1993, algorithm 2.8), computed from one set of
permutations as by Ge, Dudoit & Speed (Resampling-based multiple testing for microarray data analysis, Test 12, 2003,
box 4).

It controls the family-wise error in the strong sense if the cells without an effect are exchangeable together: their
joint distribution under the arrangements is the same whichever other cells have an effect.

Legend: C cells, N arrangements with the observed one (the first).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vtcav_ray.tcav.permutation import Tails, check_tails
from vtcav_ray.tcav.permuted_cells import CELLS_AT_A_TIME, TIE, tail_counts


@dataclass(frozen=True)
class StepDown:
    """The p-values of C cells of one family: arrays [C]; NaN where a statistic is NaN.

    Attributes:
        p: of each cell alone.
        adjusted: p corrected for all cells of the family; never below `p`.
    """

    p: NDArray[np.float64]
    adjusted: NDArray[np.float64]


def step_down(statistics: ArrayLike, *, tails: Tails = "equal") -> StepDown:
    """Correct the p-values of one family by step-down min-p.

    A cell's p for an arrangement is the arrangement's rank among all N statistics of this cell, so that cells of any
    scale and shape are comparable. Order the cells by their observed p. The adjusted p of a cell is the share of
    arrangements whose smallest p, over this cell and those behind it, is at most the cell's observed p; it is
    never below the cell's p, nor below the adjusted p of the cell before it.

    Args:
        statistics: [C, N], with the sign of the effect. Column 0 is the observed arrangement; the others are those
            drawn at random, or all others. All cells must share the arrangements. A cell with NaN is left out: it has
            no p, and does not count for the others.
        tails: `equal`: twice the smaller tail, at most 1. `symmetric`: the tail of the magnitude.

    Raises:
        ValueError: wrong shape, infinite values, or unknown tails.
    """
    array = np.asarray(statistics, dtype=np.float32)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(
            f"statistics must be [cells, arrangements] with the observed arrangement first, and has shape {array.shape}"
        )
    if np.isinf(array).any():
        cell = int(np.flatnonzero(np.isinf(array).any(axis=1))[0])
        raise ValueError(f"statistics has infinite values, first in cell {cell}: set the cell to NaN to leave it out")
    check_tails(tails)
    present = np.flatnonzero(~np.isnan(array).any(axis=1))
    p, adjusted = np.full(len(array), np.nan), np.full(len(array), np.nan)
    if len(present):
        counts = tail_counts(array[present], tails)
        p[present] = counts / array.shape[1]
        adjusted[present] = step_down_in_blocks(counts, lambda cells: array[present[cells]], tails)
    return StepDown(p, adjusted)


def step_down_in_blocks(
    counts: NDArray[np.int64], statistics_of: Callable[[NDArray[np.int64]], NDArray[np.float32]], tails: Tails
) -> NDArray[np.float64]:
    """Return the adjusted p of C cells, as `step_down_and_smallest` does."""
    return step_down_and_smallest(counts, statistics_of, tails)[0]


def step_down_and_smallest(
    counts: NDArray[np.int64], statistics_of: Callable[[NDArray[np.int64]], NDArray[np.float32]], tails: Tails
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Return the adjusted p of C cells, and N times the smallest p of all cells for each arrangement, [N].

    The statistics of only a few cells are in memory at a time.

    Args:
        counts: the observed p of each cell times N, as of `tail_counts`.
        statistics_of: returns the statistics [c, N] of the c cells with these indices.
        tails: as for `step_down`.
    """
    order = np.argsort(-counts, kind="stable")  # from the largest p to the smallest
    adjusted = np.empty(len(counts))
    smallest_N: NDArray[np.int32] | None = None
    for start in range(0, len(order), CELLS_AT_A_TIME):
        some = order[start : start + CELLS_AT_A_TIME]
        for cell, row_N in zip(some, statistics_of(some), strict=True):
            ranks_N = _ranks(row_N, tails)
            smallest_N = ranks_N if smallest_N is None else np.minimum(smallest_N, ranks_N, out=smallest_N)
            # With ties and skewed nulls fewer arrangements than p * N can have a p this small.
            adjusted[cell] = max(int(np.count_nonzero(smallest_N <= counts[cell])), int(counts[cell])) / len(row_N)
    adjusted[order[::-1]] = np.maximum.accumulate(adjusted[order[::-1]])
    assert smallest_N is not None, "there is at least one cell"
    return adjusted, smallest_N


def strictest_p(smallest_N: NDArray[np.int32], level: float) -> float:
    """Return the largest p that the strictest step of step-down min-p accepts at `level`: 0 if none is small enough.

    A cell with the smallest p of its family is rejected if the share of arrangements whose smallest p is at most this
    large is at most `level`. Bonferroni's bound, `level` over the number of cells, is never larger than this p but for
    the discreteness of permutations; cells that are nearly copies of each other make the difference large.

    Args:
        smallest_N: from `step_down_and_smallest`.
        level: alpha, or the family's share of it.
    """
    total = len(smallest_N)
    accepted = int(np.floor(level * total * (1 + 1e-12)))
    if accepted < 1:
        return 0.0
    ordered_N = np.sort(smallest_N)
    # The value at `accepted` is the first that too many arrangements reach. p is a count over N.
    limit = int(ordered_N[accepted]) - 1 if accepted < total else total
    count = min(limit, accepted)  # a cell's adjusted p is never below its own
    return count / total if count >= ordered_N[0] else 0.0  # an arrangement's p is never below the smallest of all


def _ranks(row_N: NDArray[np.float32], tails: Tails) -> NDArray[np.int32]:
    """Return N times the p of every arrangement within its cell: [N]."""
    values_N = np.abs(row_N) if tails == "symmetric" else row_N
    order = np.argsort(values_N)
    sorted_N = values_N[order]
    margin_N = np.float32(TIE) * (1 + np.abs(sorted_N))
    total = len(sorted_N)
    counts_N = np.empty(total, dtype=np.int32)
    if tails == "symmetric":
        counts_N[order] = total - np.searchsorted(sorted_N, sorted_N - margin_N, side="left")
        return counts_N
    # The smaller tail of the lower half is the lower one, and of the upper half the upper one.
    half = total // 2
    sizes_N = np.empty(total, dtype=np.int64)
    sizes_N[:half] = np.searchsorted(sorted_N, sorted_N[:half] + margin_N[:half], side="right")
    sizes_N[half:] = total - np.searchsorted(sorted_N, sorted_N[half:] - margin_N[half:], side="left")
    counts_N[order] = np.minimum(2 * sizes_N, total)
    return counts_N
