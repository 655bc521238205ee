"""The arithmetic of the concept effects of `effect`: inner products once, then permutations and resamples as products.

Legend: K classes, V class videos (the maximum over a block's classes; padded), J concepts, N rows of the pool,
U = n + m videos of a concept and of its random set, B permutations or resamples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vtcav_ray.tcav.bootstrap import expanded_interval, weights
from vtcav_ray.tcav.effect_cells import Block, EffectCells, Null, VideoGradients
from vtcav_ray.tcav.family import permute_cells
from vtcav_ray.tcav.permutation import Tails, check_tails
from vtcav_ray.tcav.permuted_cells import Cells, SignCells, WelchCells, spread_ratio, standard_error
from vtcav_ray.tcav.strata import Strata, between_share

_CLASS_STREAM, _CONCEPT_STREAM, _RANDOM_STREAM = 1, 2, 3
_BLOCK_NUMBERS = 1 << 20  # resampled projections at a time: they are read twice, so they should stay in the cache
_BLOCK_INNER = 1 << 26  # gradient-by-pool inner products at a time
_DOUBLE_UP_TO = 1 << 31  # multiplications of one call


@dataclass(frozen=True)
class Settings:
    permutations: int | None
    bootstrap: int
    confidence: float
    seed: int
    device: torch.device
    tails: Tails = "equal"

    def __post_init__(self) -> None:
        check_tails(self.tails)
        if self.permutations is not None and self.permutations < 1:
            raise ValueError(f"permutations must be at least 1, and is {self.permutations}")
        if self.bootstrap < 2:
            raise ValueError(f"bootstrap must be at least 2 resamples, and is {self.bootstrap}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence must be in (0, 1), and is {self.confidence}")


@dataclass(frozen=True)
class Side:
    """Rows of the pool, and the index in `videos` of each row's source video."""

    rows: NDArray[np.int64]
    videos: NDArray[np.int64]
    index: NDArray[np.int64]

    def average(self, inner_NKV: torch.Tensor) -> torch.Tensor:
        """Return the mean of each video's rows: [videos, K, V]."""
        taken = inner_NKV[torch.from_numpy(self.rows).to(inner_NKV.device)]
        if len(self.videos) == len(self.rows):
            return taken
        place = torch.from_numpy(self.index).to(taken.device)
        sums = torch.zeros((len(self.videos), *taken.shape[1:]), dtype=taken.dtype, device=taken.device)
        sums.index_add_(0, place, taken)
        return sums / torch.bincount(place)[:, None, None]


def unpaired(
    block: Block,
    left_nKV: torch.Tensor,
    right_mKV: torch.Tensor,
    settings: Settings,
    out: EffectCells,
    j: int,
    strata: Strata | None = None,
) -> None:
    n, m = len(left_nKV), len(right_mKV)
    both_UKV = torch.cat((left_nKV, right_mKV))
    # Weights of concept and random videos sum to 0, so a constant can be subtracted: it saves digits.
    both_UKV = both_UKV - both_UKV.mean(dim=0)
    s_UK = (both_UKV * block.mean_KV).sum(2)
    sides_KV = both_UKV[:n].mean(0) - both_UKV[n:].mean(0)  # each class video's own effect
    effect_K = _numpy(s_UK[:n].mean(0) - s_UK[n:].mean(0))
    random_variance_K = _numpy(s_UK[n:].var(0, correction=1)) if m > 1 else np.full(len(effect_K), np.nan)
    _put_null(block, WelchCells.of(s_UK, n), standard_error(_numpy(s_UK), n), settings, out, j)
    out.put(
        block,
        j,
        effect=effect_K,
        null_sd=np.sqrt(random_variance_K * (1 / n + 1 / m)),
        spread=_numpy(s_UK.amax(0) - s_UK.amin(0)),
        spread_ratio=spread_ratio(_numpy(s_UK), n),
    )
    if strata is not None:
        _within(block, s_UK, n, effect_K, strata, settings, out, j)
    if n < 2 or m < 2:
        return
    resampled = torch.cat(
        (
            weights(n, settings.bootstrap, settings.seed, _CONCEPT_STREAM),
            -weights(m, settings.bootstrap, settings.seed, _RANDOM_STREAM),
        ),
        dim=1,
    ).to(settings.device)
    parts = [(_numpy(s_UK[:n].var(0)) / n, np.array(n)), (random_variance_K / m, np.array(m))]
    _interval(block, resampled, both_UKV, sides_KV, effect_K, parts, settings, out, j)


def paired(block: Block, difference_nKV: torch.Tensor, settings: Settings, out: EffectCells, j: int) -> None:
    n = len(difference_nKV)
    s_nK = (difference_nKV * block.mean_KV).sum(2)
    effect_K = _numpy(s_nK.mean(0))
    variance_K = _numpy(s_nK.var(0)) if n > 1 else np.full(len(effect_K), np.nan)
    _put_null(block, SignCells.of(s_nK), _numpy(s_nK.square().sum(0).sqrt()) / n, settings, out, j)
    # Differences may all be equal and nonzero: this is an effect without noise, not a cell without information.
    out.put(block, j, effect=effect_K, null_sd=np.sqrt(variance_K / n), spread=_numpy(s_nK.abs().amax(0)))
    if n < 2:
        return
    resampled = weights(n, settings.bootstrap, settings.seed, _CONCEPT_STREAM).to(settings.device)
    parts = [(variance_K / n, np.array(n))]
    _interval(block, resampled, difference_nKV, difference_nKV.mean(0), effect_K, parts, settings, out, j)


def _put_null(
    block: Block, cells: Cells, unit_K: NDArray[np.float64], settings: Settings, out: EffectCells, j: int
) -> None:
    """Compare every arrangement's statistic with the observed one, and count them in bins."""
    if settings.permutations is None:
        return
    found = permute_cells(cells, settings.permutations, settings.tails, settings.seed, settings.device, correct=False)
    out.put_null(block, j, Null(found.p, found.p_symmetric, found.null_counts, unit_K))


def _within(
    block: Block,
    s_UK: torch.Tensor,
    n: int,
    effect_K: NDArray[np.float64],
    strata: Strata,
    settings: Settings,
    out: EffectCells,
    j: int,
) -> None:
    """Test the part of the effects within labels."""
    rows_UK = _numpy(s_UK)
    within_K = strata.effect_within(rows_UK)
    share_K = between_share(effect_K, within_K, standard_error(rows_UK, n))
    out.put(block, j, effect_within=within_K, between_share=share_K)
    if strata.counts and settings.permutations is not None:
        found = permute_cells(
            strata.cells(s_UK), settings.permutations, "equal", settings.seed, settings.device, correct=False
        )
        out.put(block, j, p_within=np.where(strata.flat(rows_UK), np.nan, found.p))


def _interval(
    block: Block,
    resampled_BU: torch.Tensor,
    rows_UKV: torch.Tensor,
    sides_KV: torch.Tensor,
    effect_K: NDArray[np.float64],
    parts: list[tuple[NDArray[np.float64], NDArray[np.int64]]],
    settings: Settings,
    out: EffectCells,
    j: int,
) -> None:
    """Compute the two-level bootstrap of sum_v sum_u class_weight_v * row_weight_u * rows[u, v], for each class."""
    counts_K = block.counts_K
    num_classes, num_videos = block.mean_KV.shape
    present = block.mean_KV > 0
    centred = torch.where(present, sides_KV - torch.from_numpy(effect_K).to(sides_KV)[:, None], 0.0)
    freedom = torch.from_numpy(np.maximum(counts_K - 1, 1)).to(sides_KV.device)
    class_variance = _numpy(centred.square().sum(1) / freedom) / counts_K
    resampled_BC = torch.empty((len(resampled_BU), num_classes), device=settings.device)
    class_weights_BKV = _class_weights(block, settings)
    rows = rows_UKV.float()
    step = max(1, _BLOCK_NUMBERS // (len(resampled_BU) * num_videos))
    for start in range(0, num_classes, step):
        some = slice(start, start + step)
        chunk = rows[:, some].reshape(len(rows), -1)
        product = (resampled_BU @ chunk).view(len(resampled_BU), -1, num_videos)
        resampled_BC[:, some] = (product * class_weights_BKV[:, some]).sum(2)
    levels: list[tuple[NDArray[np.float64], NDArray[np.int64]]] = [*parts, (class_variance, counts_K)]
    variance = np.sum([v for v, _ in levels], axis=0)
    shrunk = np.sum([v * (size - 1) / size for v, size in levels], axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        shrinkage = np.sqrt(np.where(shrunk > 0, variance / shrunk, 1.0))
        freedom_K = variance**2 / np.sum([v**2 / np.maximum(size - 1, 1) for v, size in levels], axis=0)
    freedom_K = np.where(np.isfinite(freedom_K), freedom_K, 1.0)
    low, high = expanded_interval(resampled_BC, effect_K, freedom_K, shrinkage, settings.confidence)
    out.put(block, j, ci_low=low, ci_high=high)


def _class_weights(block: Block, settings: Settings) -> torch.Tensor:
    """Return the resampling weights of the class videos, [B, K, V]; classes with equally many videos share them."""
    num_videos = block.mean_KV.shape[1]
    counts = np.asarray(block.counts_K)
    if (counts == num_videos).all():
        shared = weights(num_videos, settings.bootstrap, settings.seed, _CLASS_STREAM)
        return shared.to(settings.device)[:, None, :].expand(-1, len(counts), -1)
    out = torch.zeros((settings.bootstrap, len(counts), num_videos))
    for k, count in enumerate(counts):
        out[:, k, :count] = weights(int(count), settings.bootstrap, settings.seed, _CLASS_STREAM)
    return out.to(settings.device)


def inner_blocks(
    classes: list[VideoGradients], pool_ND: NDArray[np.floating], device: torch.device
) -> Iterator[tuple[Block, torch.Tensor]]:
    """Yield the inner products of every pool row with every class video's gradient, one block of classes at a time.

    The pool is centred first. This saves digits, and changes no figure here, since each is a difference of means.

    Yields:
        The block, and the products [N, K, V] (0 where a class has fewer than V videos). Rows of the pool are outermost,
        so that a concept's rows are gathered in long runs.
    """
    num_rows, dim = pool_ND.shape
    total_videos = sum(len(one.gradients_VD) for one in classes)
    # Small problems run in float64, at no cost; large ones in float32, whose error stays far below the noise.
    dtype = torch.float64 if num_rows * total_videos * dim <= _DOUBLE_UP_TO else torch.float32
    mean_D = pool_ND.mean(axis=0, dtype=np.float64)
    centred_ND = torch.from_numpy(pool_ND - mean_D).to(device=device, dtype=dtype)
    # Group classes of similar size, so that there is little padding; results return to their place by index.
    order = np.argsort([len(one.gradients_VD) for one in classes], kind="stable")[::-1]
    start = 0
    while start < len(order):
        widest = len(classes[order[start]].gradients_VD)
        size = max(1, _BLOCK_INNER // (num_rows * widest))
        part = np.ascontiguousarray(order[start : start + size])
        counts_K = np.array([len(classes[k].gradients_VD) for k in part])
        gradients_KVD = np.zeros((len(part), widest, dim))
        mean_KV = np.zeros((len(part), widest))
        for place, k in enumerate(part):
            gradients_KVD[place, : counts_K[place]] = classes[k].gradients_VD
            mean_KV[place, : counts_K[place]] = 1.0 / counts_K[place]
        left = torch.from_numpy(gradients_KVD.reshape(-1, dim)).to(device=device, dtype=dtype)
        inner_NKV = (centred_ND @ left.T).view(num_rows, len(part), widest)
        yield Block(part, counts_K, torch.from_numpy(mean_KV).to(device=device, dtype=dtype)), inner_NKV
        start += size


def video_index(videos: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    unique, index = np.unique(videos, return_inverse=True)
    return unique, index.reshape(-1)


def by_video(rows: NDArray[np.int64], videos_N: NDArray[np.int64]) -> Side:
    return Side(rows, *video_index(videos_N[rows]))


def _numpy(values: torch.Tensor) -> NDArray[np.float64]:
    return values.double().cpu().numpy()
