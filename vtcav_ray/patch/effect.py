"""The patch effect: how far a concept's activation, put into reference clips, moves the model's target.

    E = mean of r over the concept's source videos - mean of r over the random ones

with the responses r of `responses`. Where the concept effect is a first-order change, this is a finite one: it goes
through the rest of the network, with its saturation and its normalisation. For a rest that is linear, it is the concept
effect times the gain of the layer's lift.

r of a clip depends on that clip alone. So under the null (the concept's videos are exchangeable with the random ones),
the permutation test of the concept effect is exact for r as well, whatever the network does. For pairs (a clip and its
twin) it is the sign-flip test. All classes and layers of one concept share the arrangements; p is equal-tailed.

Legend: C cells (class and layer) of one family (concept and other side), N arrangements with the observed one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from vtcav_ray.tcav.arrays import check_width, video_means
from vtcav_ray.tcav.family import effect_family
from vtcav_ray.tcav.permutation import Arrangements, flip
from vtcav_ray.tcav.permuted_cells import CELLS_AT_A_TIME, tail_counts
from vtcav_ray.tcav.significance import holm_over_families
from vtcav_ray.tcav.westfall_young import step_down_in_blocks

NO_SPREAD = "The responses are all equal: there is nothing to test."
NOT_FINITE = "A response is not a finite number."
ONE_VIDEO = "The other side has a single source video, so its spread is not known: there is no z."
NO_OTHER_SIDE = "There is nothing to compare the concept with."
_FLAT = 1e-9  # a spread below this share of the responses is rounding


@dataclass(frozen=True)
class PatchEffects:
    """The patch effects of C cells: arrays [C]. Missing figures are NaN, and `note` says why.

    Attributes:
        effect: in units of the target.
        null_sd: its standard deviation if random clips replace the concept's, from the spread of the random videos:
            sd * sqrt(1/n + 1/m). For pairs: the spread of the pairs' differences over sqrt(n).
        z: effect / null_sd.
        p: by permutation of source videos (pairs: sign flips), equal-tailed.
        p_symmetric: by the statistic's magnitude, from the same arrangements.
        p_adjusted: `p` corrected for the family's cells by step-down min-p.
        spread_ratio: see `tcav.family.EffectFamily`; NaN for pairs.
        n_concept, n_random: source videos of each side; for pairs, both are those of the pairs.
        note: why figures are missing, or empty.
    """

    effect: NDArray[np.float64]
    null_sd: NDArray[np.float64]
    z: NDArray[np.float64]
    p: NDArray[np.float64]
    p_symmetric: NDArray[np.float64]
    p_adjusted: NDArray[np.float64]
    spread_ratio: NDArray[np.float64]
    n_concept: int
    n_random: int
    note: tuple[str, ...]


def patch_effects(
    concept: ArrayLike,
    other: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    permutations: int = 100_000,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> PatchEffects:
    """Test the patch effects of one concept against random clips on C cells.

    Args:
        concept: responses to the concept's clips, [n, C]. A cell with NaN is left out.
        other: the same of the random clips, [m, C].
        groups: source video of each of the n + m rows, the concept's first; None: every row is a video.
        permutations: maximum number of arrangements. If there are fewer, all are used.
        seed: of the arrangements.
        device: where to compute.

    Raises:
        ValueError: shapes that do not fit, infinite values, or a video on both sides.
    """
    concept_nC, other_mC = _responses(concept, "concept"), _responses(other, "other")
    check_width(other_mC, concept_nC.shape[1], "other", "concept")
    if not len(concept_nC) or not len(other_mC):
        return _untested(concept_nC.shape[1], len(concept_nC), len(other_mC))
    family = effect_family(
        concept_nC, other_mC, groups=groups, permutations=permutations, tails="equal", seed=seed, device=device
    )
    videos = None if groups is None else np.asarray(groups)[len(concept_nC) :]
    random_VC = video_means(other_mC, videos)
    n, m = family.n_concept, family.n_random
    sd = random_VC.std(axis=0, ddof=1) if m > 1 else np.full(random_VC.shape[1], np.nan)
    null_sd = np.where(np.isnan(family.null_unit), np.nan, sd * np.sqrt(1 / n + 1 / m))
    return PatchEffects(
        effect=family.effect,
        null_sd=null_sd,
        z=_ratio(family.effect, null_sd),
        p=family.p,
        p_symmetric=family.p_symmetric,
        p_adjusted=family.p_adjusted,
        spread_ratio=family.spread_ratio,
        n_concept=n,
        n_random=m,
        note=_notes(family.effect, family.p, null_sd),
    )


def paired_patch_effects(
    concept: ArrayLike,
    twin: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    permutations: int = 100_000,
    seed: int = 0,
) -> PatchEffects:
    """Test the patch effects of a concept against its own twins on C cells.

    Args:
        concept: responses to the concept's clips, [n, C]. A cell with NaN is left out.
        twin: responses to their twins, in the same order.
        groups: source video of each pair, [n]; pairs of one video are averaged, and flipped together.
        permutations, seed: as for `patch_effects`.

    Raises:
        ValueError: shapes that do not fit, or infinite values.
    """
    concept_nC, twin_nC = _responses(concept, "concept"), _responses(twin, "twin")
    if concept_nC.shape != twin_nC.shape:
        raise ValueError(f"concept and twin must pair row by row: shapes {concept_nC.shape} and {twin_nC.shape}")
    cells = concept_nC.shape[1]
    if not len(concept_nC):
        return _untested(cells, 0, 0)
    difference_nC = video_means(concept_nC - twin_nC, groups)
    n = len(difference_nC)
    # All differences may be equal and not 0: this is an effect without noise.
    size_C = np.maximum(np.abs(concept_nC).max(axis=0), np.abs(twin_nC).max(axis=0))
    with np.errstate(invalid="ignore"):
        present = np.abs(difference_nC).max(axis=0) > _FLAT * size_C
    p, p_symmetric, p_adjusted = np.full((3, cells), np.nan)
    if present.any():
        flips = _Flips(difference_nC[:, present], flip(n, permutations, seed))
        counts, symmetric = flips.tail_counts()
        p[present], p_symmetric[present] = counts / flips.total, symmetric / flips.total
        p_adjusted[present] = step_down_in_blocks(counts, flips, "equal")
    effect = difference_nC.mean(axis=0)
    sd = difference_nC.std(axis=0, ddof=1) if n > 1 else np.full(cells, np.nan)
    null_sd = np.where(present, sd / np.sqrt(n), np.nan)
    return PatchEffects(
        effect=effect,
        null_sd=null_sd,
        z=_ratio(effect, null_sd),
        p=p,
        p_symmetric=p_symmetric,
        p_adjusted=p_adjusted,
        spread_ratio=np.full(cells, np.nan),
        n_concept=n,
        n_random=n,
        note=_notes(effect, p, null_sd),
    )


def corrected(families: Sequence[PatchEffects]) -> list[NDArray[np.float64]]:
    """Return q of every cell of every family: the probability of any wrong cell is at most alpha where q <= alpha."""
    return holm_over_families([family.p_adjusted for family in families])


class _Flips:
    """Means of C cells under every sign pattern, over the standard deviation of all 2^n means: [C, N]."""

    def __init__(self, difference_nC: NDArray[np.float64], arrangements: Arrangements) -> None:
        self._rows_nC = difference_nC / np.sqrt(np.square(difference_nC).sum(axis=0))
        self._arrangements = arrangements
        # If all patterns are listed, the first is the observed one: all signs kept.
        self._first = 0 if arrangements.exact else 1
        self.total = arrangements.total + self._first

    def __call__(self, cells: NDArray[np.int64]) -> NDArray[np.float32]:
        rows_nc = torch.from_numpy(np.ascontiguousarray(self._rows_nC[:, cells])).float()
        out_cN = np.empty((len(cells), self.total), dtype=np.float32)
        if self._first:
            out_cN[:, 0] = rows_nc.sum(0).numpy()
        at = self._first
        for signs_BU in self._arrangements.draw():
            out_cN[:, at : at + len(signs_BU)] = (signs_BU @ rows_nc).T.numpy()
            at += len(signs_BU)
        return out_cN

    def tail_counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return N times the equal-tailed p, and N times that of the magnitude: [C] each."""
        equal, symmetric = np.empty((2, self._rows_nC.shape[1]), dtype=np.int64)
        for start in range(0, len(equal), CELLS_AT_A_TIME):
            some = np.arange(start, min(start + CELLS_AT_A_TIME, len(equal)))
            statistics_cN = self(some)
            equal[some] = tail_counts(statistics_cN, "equal")
            symmetric[some] = tail_counts(statistics_cN, "symmetric")
        return equal, symmetric


def _ratio(effect: NDArray[np.float64], null_sd: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(null_sd > 0, effect / null_sd, np.nan)


def _notes(effect: NDArray[np.float64], p: NDArray[np.float64], null_sd: NDArray[np.float64]) -> tuple[str, ...]:
    notes = []
    for e, one, sd in zip(effect, p, null_sd, strict=True):
        notes.append(NOT_FINITE if np.isnan(e) else NO_SPREAD if np.isnan(one) else ONE_VIDEO if np.isnan(sd) else "")
    return tuple(notes)


def _untested(cells: int, n: int, m: int) -> PatchEffects:
    nan = np.full(cells, np.nan)
    return PatchEffects(nan, nan, nan, nan, nan, nan, nan, n, m, (NO_OTHER_SIDE,) * cells)


def _responses(rows: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.asarray(rows, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"{name} must be responses [clips, cells] with at least one cell, and has {array.shape}")
    if np.isinf(array).any():
        raise ValueError(f"{name} has infinite values: set the cell to NaN to leave it out")
    return array
