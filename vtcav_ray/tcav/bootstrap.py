"""Two-level bootstrap as weights: a resample of n items is a row of n multinomial counts divided by n.

With resampling written as weights, the resampled figure of every cell is a matrix product, and no data is copied.

Percentile intervals of small samples are too short: the bootstrap's variance is (n-1)/n of the true one, and the
normal's tails are lighter than t's. Intervals here are therefore *expanded* percentile intervals (Hesterberg, What
Teachers Should Know About the Bootstrap, The American Statistician 2015, section 5.3): the percentiles move outwards by
the factor that would turn a normal interval into Student's.

Legend: B resamples, n resampled items, C cells.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.special
import torch
from numpy.typing import NDArray


@lru_cache(maxsize=32)
def weights(num: int, resamples: int, seed: int, stream: int) -> torch.Tensor:
    """Return resampling weights, [B, n] float32, each row summing to 1. The result is cached: do not write to it.

    Args:
        num: n.
        resamples: B.
        seed, stream: of the draw; levels that must be independent of each other use different streams.
    """
    generator = np.random.default_rng([seed, stream, num])
    counts = generator.multinomial(num, np.full(num, 1.0 / num), size=resamples)
    return torch.from_numpy((counts / num).astype(np.float32))


def expanded_interval(
    resampled_BC: torch.Tensor,
    estimate_C: NDArray[np.float64],
    freedom_C: NDArray[np.float64],
    shrinkage_C: NDArray[np.float64],
    confidence: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both ends of the expanded percentile interval of each cell.

    Args:
        resampled_BC: the figure of each cell in each resample.
        estimate_C: the figure itself.
        freedom_C: degrees of freedom of its standard error (Welch-Satterthwaite if several levels add up).
        shrinkage_C: true standard error over the bootstrap's, at least 1: sqrt(n / (n - 1)) for a plain mean.
        confidence: in (0, 1), such as 0.95.

    Returns:
        `low`, `high`. If B resamples cannot resolve the percentiles (a handful of videos), the estimate plus and minus
        t standard errors.
    """
    resamples = len(resampled_BC)
    ordered = _sorted(resampled_BC)
    reach_C = shrinkage_C * scipy.special.stdtrit(np.maximum(freedom_C, 1.0), 0.5 + confidence / 2)
    level_C = scipy.special.ndtr(-reach_C)
    low = _quantile(ordered, level_C)
    high = _quantile(ordered, 1.0 - level_C)
    beyond = level_C * resamples < 2.0
    if beyond.any():
        error_C = resampled_BC.double().std(dim=0, correction=1).cpu().numpy()
        low = np.where(beyond, estimate_C - reach_C * error_C, low)
        high = np.where(beyond, estimate_C + reach_C * error_C, high)
    return low, high


def _sorted(values_BC: torch.Tensor) -> torch.Tensor:
    if values_BC.device.type == "cpu":  # NumPy sorts contiguous rows ten times as fast as torch sorts columns
        return torch.from_numpy(np.sort(values_BC.T.contiguous().numpy(), axis=1)).T
    return values_BC.sort(dim=0).values


def _quantile(ordered_BC: torch.Tensor, level_C: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate linearly between order statistics, at a separate level for each column."""
    last = len(ordered_BC) - 1
    place = np.clip(level_C, 0.0, 1.0) * last
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, last)
    device = ordered_BC.device
    left = ordered_BC.gather(0, torch.from_numpy(below)[None].to(device))[0].double().cpu().numpy()
    right = ordered_BC.gather(0, torch.from_numpy(above)[None].to(device))[0].double().cpu().numpy()
    share = place - below
    return left * (1 - share) + right * share
