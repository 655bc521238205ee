"""All cells of one concept against one random set, tested together.

Every class and layer has its own projections of the same source videos. So one set of arrangements serves all cells:
100,000 of them cost little more than 10,000 cell by cell, and the step-down correction takes the cells' dependence into
account. `holm_over_families` then corrects for the number of families.

Legend: C cells (class and layer), U = n + m source videos, the concept's first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from vtcav_ray.cavs.indices import check_groups
from vtcav_ray.tcav.arrays import check_width, video_means
from vtcav_ray.tcav.null_histograms import EFFECT_BINS
from vtcav_ray.tcav.permutation import Tails, check_tails
from vtcav_ray.tcav.permuted_cells import (
    Cells,
    SignCells,
    Statistics,
    WelchCells,
    spread_ratio,
    standard_error,
    tail_counts,
)
from vtcav_ray.tcav.strata import Strata, between_share, video_labels
from vtcav_ray.tcav.westfall_young import step_down_and_smallest, strictest_p

_FLAT = 1e-9  # a spread below this share of the projections is rounding


@dataclass(frozen=True)
class EffectFamily:
    """The tests of C cells: arrays [C]. NaN where a cell has NaN or equal projections, or the figure no meaning.

    Attributes:
        effect: mean of the concept's videos minus mean of the random ones, in logits.
        null_unit: its standard error, in logits; effect / null_unit is Welch's t.
        p: by permutation, with the tails asked for.
        p_symmetric: by the magnitude of t, from the same arrangements.
        p_adjusted: `p` corrected for the family's cells by step-down min-p.
        p_needed: largest p that the strictest step accepts at `level`; 0: no arrangement is rare enough.
        spread_ratio: of the sides' standard deviations, the larger over the smaller. Above 2, prefer
            `p_symmetric`, which is more robust there.
        null_counts: arrangements in each bin of `null_histograms`, [C, bins].
        effect_within: part of the effect within labels; NaN without strata, or if no label has a contrast.
        p_within: of the part within labels, equal-tailed.
        p_within_adjusted: `p_within` corrected for the family's cells by step-down min-p.
        between_share: share of the effect that goes with the labels themselves; see `strata.between_share`.
        no_contrast: labels of concept videos that no random video has.
        n_concept, n_random: source videos of each side.
    """

    effect: NDArray[np.float64]
    null_unit: NDArray[np.float64]
    p: NDArray[np.float64]
    p_symmetric: NDArray[np.float64]
    p_adjusted: NDArray[np.float64]
    spread_ratio: NDArray[np.float64]
    null_counts: NDArray[np.int64]
    effect_within: NDArray[np.float64]
    p_within: NDArray[np.float64]
    p_within_adjusted: NDArray[np.float64]
    between_share: NDArray[np.float64]
    no_contrast: tuple[str, ...]
    n_concept: int
    n_random: int
    p_needed: float = float("nan")


@dataclass(frozen=True)
class CellsTest:
    """The permutation tests of C cells with shared arrangements: arrays [C], and null_counts [C, bins].

    `p_needed`: see `EffectFamily`; NaN without a correction.
    """

    p: NDArray[np.float64]
    p_symmetric: NDArray[np.float64]
    p_adjusted: NDArray[np.float64]
    null_counts: NDArray[np.int64]
    p_needed: float = float("nan")


@dataclass(frozen=True)
class _Permutations:
    """How the cells of a family are tested; see `effect_family`."""

    permutations: int
    tails: Tails
    level: float
    seed: int
    device: torch.device

    def __post_init__(self) -> None:
        check_tails(self.tails)
        if self.permutations < 1:
            raise ValueError(f"permutations must be at least 1, and is {self.permutations}")


def effect_family(
    concept: ArrayLike,
    random: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    strata: ArrayLike | None = None,
    permutations: int = 100_000,
    tails: Tails = "equal",
    level: float = 0.05,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> EffectFamily:
    """Test the effects of one concept on C cells with the same arrangements.

    Args:
        concept: projections of the concept's clips on each cell's mean gradient, [n, C]. NaN leaves a cell out.
        random: the same of the random clips, [m, C].
        groups: source video of each of the n + m rows, the concept's first; None: every row is a video.
        strata: label of each of the n + m rows, the concept's first; also tests the effect within labels.
        permutations: B. If there are at most B arrangements, all are enumerated.
        tails: `equal`: p is twice the smaller tail. `symmetric`: the tail of |t|.
        level: of `p_needed`: alpha over the number of families.
        seed: of the arrangements.
        device: where to compute, such as `cuda`.

    Raises:
        ValueError: empty sides, shapes that do not fit, a video on both sides, a missing label, a video of two labels.
    """
    how = _Permutations(permutations, tails, level, seed, torch.device(device))
    both_UC, n, labels_U = _by_video(_projections(concept, "concept"), _projections(random, "random"), groups, strata)
    effect, unit = both_UC[:n].mean(0) - both_UC[n:].mean(0), standard_error(both_UC, n)
    with np.errstate(invalid="ignore"):
        flat = ~(np.ptp(both_UC, axis=0) > _FLAT * np.abs(both_UC).max(axis=0))
    plain = _tested(both_UC, ~flat, lambda s: WelchCells.of(s, n), how)
    within, within_test = np.full_like(effect, np.nan), _untested(len(effect))
    no_contrast: tuple[str, ...] = ()
    if labels_U is not None:
        split = Strata.of(labels_U[:n], labels_U[n:])
        within, no_contrast = split.effect_within(both_UC), split.no_contrast
        if split.counts:
            test = ~(flat | split.flat(both_UC))
            within_test = _tested(both_UC, test, split.cells, dataclasses.replace(how, tails="equal"))
    return EffectFamily(
        effect=effect,
        null_unit=np.where(flat, np.nan, unit),
        spread_ratio=spread_ratio(both_UC, n),
        effect_within=within,
        p_within=within_test.p,
        p_within_adjusted=within_test.p_adjusted,
        between_share=between_share(effect, within, np.where(flat, np.inf, unit)),
        no_contrast=no_contrast,
        n_concept=n,
        n_random=len(both_UC) - n,
        **vars(plain),
    )


def paired_effect_family(
    differences: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    permutations: int = 100_000,
    tails: Tails = "equal",
    level: float = 0.05,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> EffectFamily:
    """Test the effects of one concept against its own twins on C cells, with the same flipped signs for all.

    Args:
        differences: clip minus twin, projected on each cell's mean gradient, [n, C]. NaN leaves a cell out.
        groups: source video of each of the n pairs; pairs of one video are averaged, and flipped together.
        permutations, tails, level, seed, device: as for `effect_family`.

    Returns:
        The family. `spread_ratio` and the figures within labels are NaN: a clip and its twin share a video.

    Raises:
        ValueError: no pairs, or shapes that do not fit.
    """
    how = _Permutations(permutations, tails, level, seed, torch.device(device))
    rows_NC = _projections(differences, "differences")
    rows_UC = video_means(rows_NC, check_groups(groups, len(rows_NC)))
    unit = np.sqrt(np.square(rows_UC).sum(axis=0)) / len(rows_UC)
    present = unit > 0  # equal differences are an effect without noise
    tested = _tested(rows_UC, present, SignCells.of, how)
    unknown = np.full(rows_UC.shape[1], np.nan)
    return EffectFamily(
        effect=rows_UC.mean(axis=0),
        null_unit=np.where(present, unit, np.nan),
        spread_ratio=unknown,
        effect_within=unknown,
        p_within=unknown,
        p_within_adjusted=unknown,
        between_share=unknown,
        no_contrast=(),
        n_concept=len(rows_UC),
        n_random=len(rows_UC),
        **vars(tested),
    )


def permute_cells(
    cells: Cells,
    permutations: int,
    tails: Tails,
    seed: int,
    device: torch.device,
    *,
    correct: bool,
    level: float = 0.05,
) -> CellsTest:
    """Test all cells; with `correct`, also adjust p for all of them by step-down min-p."""
    statistics = Statistics(cells, permutations, seed, device)
    tested = _untested(statistics.num_cells)
    counts = np.empty(statistics.num_cells, dtype=np.int64)
    for some, block_CN in statistics.blocks():
        counts[some] = tail_counts(block_CN, tails)
        symmetric = counts[some] if tails == "symmetric" else tail_counts(block_CN, "symmetric")
        tested.p_symmetric[some] = symmetric / statistics.total
        tested.null_counts[some] = statistics.null_counts(block_CN)
    tested.p[:] = counts / statistics.total
    if not correct:
        return tested
    tested.p_adjusted[:], smallest_N = step_down_and_smallest(counts, statistics, tails)
    return dataclasses.replace(tested, p_needed=strictest_p(smallest_N, level))


def _tested(
    both_UC: NDArray[np.float64],
    present: NDArray[np.bool_],
    cells_of: Callable[[torch.Tensor], Cells],
    how: _Permutations,
) -> CellsTest:
    """Test the cells that are present; the others are NaN."""
    out = _untested(len(present))
    if present.any():
        cells = cells_of(torch.from_numpy(np.ascontiguousarray(both_UC[:, present])).to(how.device))
        found = permute_cells(cells, **vars(how), correct=True)
        out.p[present], out.p_symmetric[present] = found.p, found.p_symmetric
        out.p_adjusted[present], out.null_counts[present] = found.p_adjusted, found.null_counts
        return dataclasses.replace(out, p_needed=found.p_needed)
    return out


def _untested(num_cells: int) -> CellsTest:
    p, p_symmetric, p_adjusted = np.full((3, num_cells), np.nan)
    return CellsTest(p, p_symmetric, p_adjusted, np.zeros((num_cells, EFFECT_BINS), dtype=np.int64))


def _by_video(
    concept_nC: NDArray[np.float64],
    random_mC: NDArray[np.float64],
    groups: ArrayLike | None,
    strata: ArrayLike | None,
) -> tuple[NDArray[np.float64], int, NDArray[Any] | None]:
    """Return the projections of all videos, the concept's first, the number of these, and each video's label."""
    check_width(random_mC, concept_nC.shape[1], "random", "concept")
    rows = len(concept_nC)
    videos_N = check_groups(groups, rows + len(random_mC))
    shared = np.intersect1d(videos_N[:rows], videos_N[rows:])
    if shared.size:
        raise ValueError(
            f"{shared.size} source video(s) are in both concept and random: draw the random clips from other videos"
        )
    labels_V = None if strata is None else video_labels(strata, videos_N)
    left, right = video_means(concept_nC, videos_N[:rows]), video_means(random_mC, videos_N[rows:])
    order = np.concatenate((np.unique(videos_N[:rows]), np.unique(videos_N[rows:])))
    return np.concatenate((left, right)), len(left), None if labels_V is None else labels_V[order]


def _projections(rows: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.asarray(rows, dtype=np.float64)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"{name} must be projections [videos, cells] with at least one of each, and has shape {array.shape}"
        )
    if np.isinf(array).any():
        cell = int(np.flatnonzero(np.isinf(array).any(axis=0))[0])
        raise ValueError(f"{name} has infinite values, first in cell {cell}: set the cell to NaN to leave it out")
    return array
