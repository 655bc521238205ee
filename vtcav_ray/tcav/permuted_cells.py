"""Test statistics of many cells under the same arrangements, as matrix products in blocks.

A cell is one class at one layer. Its data are one number per source video: the projection on the class's mean gradient.
All cells of one concept against one random set have the same videos, so they share the arrangements. One product of the
marks with the projections gives every arrangement's sum over the concept's side, for all cells.

Three statistics, all with the sign of the effect:

- `WelchCells`: Welch's t, concept against random.
- `LabelCells`: the weighted difference within labels over its standard error,
  T = sum_l w_l (x_l - y_l) / sqrt(sum_l w_l^2 s_l^2 (1/n_l + 1/m_l)), with x_l and y_l the means of label l's n_l
  concept and m_l random videos, and s_l^2 their pooled variance, computed again for each arrangement.
- `SignCells`: for pairs, the mean difference over its standard deviation under flipped signs.

Legend: C cells, U videos, B arrangements drawn or listed, N arrangements with the observed one (the first).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from vtcav_ray.tcav.null_histograms import effect_counts
from vtcav_ray.tcav.permutation import Arrangements, Tails, flip, within_labels

_BLOCK_NUMBERS = 1 << 17  # statistics at a time: they are read several times, so they should stay in the cache
_KEPT_NUMBERS = 1 << 25  # statistics of a family
CELLS_AT_A_TIME = 64
# Statistics are float32 sums of up to some thousand numbers. Closer ones count as equal.
TIE = 1e-5
# A variance below this share of the overall one is rounding: the arrangement separates the videos perfectly.
_NO_VARIANCE = 1e-6


class Cells(Protocol):
    """Projections of C cells, ready for products.

    Attributes:
        rows_CU: scaled, float32.
    """

    @property
    def rows_CU(self) -> torch.Tensor: ...

    def arrangements(self, permutations: int, seed: int) -> Arrangements:
        """Return the arrangements of the U videos. If all are listed, the observed one is the first."""
        ...

    def observed_U(self) -> torch.Tensor:
        """Return the marks of the observed arrangement."""
        ...

    def statistics(self, marks_BU: torch.Tensor) -> torch.Tensor:
        """Return the statistic of each cell for each row of marks (float32): [C, B]."""
        ...

    def take(self, cells: NDArray[np.int64]) -> Cells:
        """Return some of the cells."""
        ...


@dataclass(frozen=True)
class WelchCells:
    """Welch's t. If a side has a single video, the difference of means over the overall standard deviation."""

    counts: tuple[tuple[int, int], ...]
    rows_CU: torch.Tensor

    @classmethod
    def of(cls, projections_UC: torch.Tensor, n: int) -> WelchCells:
        centred = projections_UC - projections_UC.mean(0)
        return cls(((n, len(centred) - n),), _scaled(centred).T.contiguous())

    def arrangements(self, permutations: int, seed: int) -> Arrangements:
        return within_labels(self.counts, permutations, seed)

    def observed_U(self) -> torch.Tensor:
        return _observed(self.counts)

    def take(self, cells: NDArray[np.int64]) -> WelchCells:
        return WelchCells(self.counts, self.rows_CU[torch.from_numpy(cells)])

    def statistics(self, marks_BU: torch.Tensor) -> torch.Tensor:
        ((n, m),) = self.counts
        squares_CU = self.rows_CU.square()
        total = squares_CU.sum(1, keepdim=True)
        overall = total / max(1, n + m - 1) * (1 / n + 1 / m)
        sums = self.rows_CU @ marks_BU.T  # the rows are centred: the random side's sum is the negative of this
        gap = sums * (1 / n + 1 / m)
        if n < 2 or m < 2:
            return gap * overall.clamp_min(1e-30).rsqrt()
        left, right = 1 / (n * (n - 1)), 1 / (m * (m - 1))
        variance = sums.square_().mul_(-(left / n + right / m)).add_(total * right)
        if n != m:  # else the squares' sums cancel, and with them half of the work
            variance.add_(squares_CU @ marks_BU.T, alpha=left - right)
        return gap.mul_(variance.clamp_(min=(_NO_VARIANCE * overall).clamp_min(1e-30)).rsqrt_())


@dataclass(frozen=True)
class LabelCells:
    """The weighted difference within labels; rows are centred within each label."""

    counts: tuple[tuple[int, int], ...]
    weights_L: tuple[float, ...]
    rows_CU: torch.Tensor

    @classmethod
    def of(
        cls, projections_UC: torch.Tensor, counts: tuple[tuple[int, int], ...], weights_L: NDArray[np.float64]
    ) -> LabelCells:
        parts = projections_UC.split([n + m for n, m in counts])
        centred = torch.cat([part - part.mean(0) for part in parts])
        return cls(counts, tuple(weights_L.tolist()), _scaled(centred).T.contiguous())

    def arrangements(self, permutations: int, seed: int) -> Arrangements:
        return within_labels(self.counts, permutations, seed)

    def observed_U(self) -> torch.Tensor:
        return _observed(self.counts)

    def take(self, cells: NDArray[np.int64]) -> LabelCells:
        return LabelCells(self.counts, self.weights_L, self.rows_CU[torch.from_numpy(cells)])

    def statistics(self, marks_BU: torch.Tensor) -> torch.Tensor:
        sizes = [n + m for n, m in self.counts]
        freedom = sum(sizes) - 2 * len(sizes)
        gap = torch.zeros((len(self.rows_CU), len(marks_BU)), device=marks_BU.device)
        variance, pooled = torch.zeros_like(gap), torch.zeros_like(gap)
        lone = overall = torch.zeros((len(gap), 1), device=gap.device)
        labels = zip(self.counts, self.weights_L, self.rows_CU.split(sizes, 1), marks_BU.split(sizes, 1), strict=True)
        for (n, m), weight, rows_CV, marks_BV in labels:
            scale = 1 / n + 1 / m
            sums = rows_CV @ marks_BV.T
            gap.add_(sums, alpha=weight * scale)
            total = rows_CV.square().sum(1, keepdim=True)
            overall = overall + total * (weight**2 * scale / (n + m - 1))
            residual = sums.square_().mul_(-scale).add_(total)
            pooled.add_(residual)
            if n + m > 2:
                variance.add_(residual, alpha=weight**2 * scale / (n + m - 2))
            else:
                lone = lone + weight**2 * scale
        if freedom == 0:  # one video on each side of every label: no spread to divide by but the overall one
            return gap * overall.clamp_min(1e-30).rsqrt()
        # A label with one video on each side has no spread of its own: use that of all labels.
        variance.add_(pooled * (lone / freedom))
        return gap.mul_(variance.clamp_(min=(_NO_VARIANCE * overall).clamp_min(1e-30)).rsqrt_())


@dataclass(frozen=True)
class SignCells:
    """The mean of pairs' differences over its standard deviation under flipped signs, sqrt(sum of squares) / U.

    Flipped signs do not change the squares, so this ranks arrangements as the paired t does.
    """

    rows_CU: torch.Tensor

    @classmethod
    def of(cls, differences_UC: torch.Tensor) -> SignCells:
        return cls(_scaled(differences_UC).T.contiguous())

    def arrangements(self, permutations: int, seed: int) -> Arrangements:
        return flip(self.rows_CU.shape[1], permutations, seed)

    def observed_U(self) -> torch.Tensor:
        return torch.ones(self.rows_CU.shape[1])

    def take(self, cells: NDArray[np.int64]) -> SignCells:
        return SignCells(self.rows_CU[torch.from_numpy(cells)])

    def statistics(self, marks_BU: torch.Tensor) -> torch.Tensor:
        deviation = self.rows_CU.square().sum(1, keepdim=True).sqrt()
        return (self.rows_CU @ marks_BU.T).div_(deviation.clamp_min(1e-30))


class Statistics:
    """The statistics of C cells for all N arrangements. They are kept if they are few, else computed at each call.

    Attributes:
        total: N: the observed arrangement, which is the first, and all others.
    """

    def __init__(self, cells: Cells, permutations: int, seed: int, device: torch.device) -> None:
        self._cells, self._device = cells, device
        self._arrangements = cells.arrangements(permutations, seed)
        self.total = self._arrangements.total + (0 if self._arrangements.exact else 1)
        self.num_cells = len(cells.rows_CU)
        self._kept = None
        if self.num_cells * self.total <= _KEPT_NUMBERS:
            self._kept = self._compute(cells)

    def __call__(self, cells: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the statistics of the cells with these indices: [c, N]."""
        return self._compute(self._cells.take(cells)) if self._kept is None else self._kept[cells]

    def blocks(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield the indices of some cells and their statistics, until all cells are done."""
        for start in range(0, self.num_cells, CELLS_AT_A_TIME):
            cells = np.arange(start, min(start + CELLS_AT_A_TIME, self.num_cells))
            yield cells, self(cells)

    def null_counts(self, statistics_CN: NDArray[np.float32]) -> NDArray[np.int64]:
        """Count the statistics of the arrangements drawn, or of all, in each bin of `null_histograms`: [C, bins]."""
        drawn_CN = statistics_CN[:, 0 if self._arrangements.exact else 1 :]
        return np.stack([effect_counts(row) for row in drawn_CN])

    def _compute(self, cells: Cells) -> NDArray[np.float32]:
        num_cells = len(cells.rows_CU)
        out_CN = np.empty((num_cells, self.total), dtype=np.float32)
        start = 0
        for marks in _marks(cells, self._arrangements, max(1, _BLOCK_NUMBERS // max(1, num_cells))):
            block = cells.statistics(marks.to(self._device).float())
            out_CN[:, start : start + len(marks)] = block.cpu().numpy()
            start += len(marks)
        return out_CN


def tail_counts(statistics_CN: NDArray[np.float32], tails: Tails) -> NDArray[np.int64]:
    """Count the arrangements at least as extreme as the first, which is included: [C]. p is this over N.

    `equal`: twice the smaller tail, at most N. `symmetric`: as large in magnitude.
    """
    counts = np.empty(len(statistics_CN), dtype=np.int64)
    for cell, row in enumerate(statistics_CN):
        observed = row[0]
        margin = np.float32(TIE) * (1 + abs(observed))
        upper = int(np.count_nonzero(row >= observed - margin))
        lower = int(np.count_nonzero(row <= observed + margin))
        if tails == "equal":
            counts[cell] = min(2 * min(upper, lower), len(row))
        else:
            counts[cell] = int(np.count_nonzero(np.abs(row) >= abs(observed) - margin))
    return counts


def standard_error(both_UC: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Return the standard error in Welch's t of C cells; with one video on a side, the overall one. [C]"""
    left, right = both_UC[:n], both_UC[n:]
    m = len(right)
    if n < 2 or m < 2:
        return both_UC.std(axis=0, ddof=1) * np.sqrt(1 / n + 1 / m)
    return np.sqrt(left.var(axis=0, ddof=1) / n + right.var(axis=0, ddof=1) / m)


def spread_ratio(both_UC: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Return the ratio of the sides' standard deviations, the larger over the smaller, at least 1: [C].

    Where it is above 2, an equal-tailed test can reject too often if only the means agree. Infinite if one side has no
    spread; NaN if both have none, or a side has a single video.
    """
    if n < 2 or len(both_UC) - n < 2:
        return np.full(both_UC.shape[1], np.nan)
    left, right = both_UC[:n].std(axis=0, ddof=1), both_UC[n:].std(axis=0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.maximum(left, right) / np.minimum(left, right)


def _marks(cells: Cells, arrangements: Arrangements, rows: int) -> Iterator[torch.Tensor]:
    if not arrangements.exact:
        yield cells.observed_U()[None]
    yield from arrangements.blocks(rows)


def _observed(counts: tuple[tuple[int, int], ...]) -> torch.Tensor:
    return torch.tensor([mark for n, m in counts for mark in (1,) * n + (0,) * m], dtype=torch.uint8)


def _scaled(centred_UC: torch.Tensor) -> torch.Tensor:
    """Divide by each cell's largest magnitude, so that float32 suffices."""
    spread = centred_UC.abs().amax(0)
    return (centred_UC / torch.where(spread > 0, spread, 1.0)).float()
