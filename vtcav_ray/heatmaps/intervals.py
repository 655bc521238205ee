"""Figures of clips averaged over source videos, with bootstrap intervals over the videos."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch

from vtcav_ray.tcav.bootstrap import expanded_interval, weights

RESAMPLES = 2000
CONFIDENCE = 0.95
_STREAM = 31  # random stream of the resamples: figures with the same number of videos share one draw
_MAX_R = 1 - 1e-12


def mean_interval(values_V: np.ndarray, seed: int = 0, *, correlation: bool = False) -> tuple[float, float, float]:
    """Return the mean over source videos and both ends of its 95 % interval. A single video gives NaN ends.

    Args:
        values_V: one figure per source video.
        seed: of the resamples.
        correlation: the figures are correlations. The interval is taken on Fisher's scale, artanh(r), so its ends lie
            inside [-1, 1].
    """
    if not len(values_V):
        return float("nan"), float("nan"), float("nan")
    mean = float(values_V.mean())
    n = len(values_V)
    if n < 2:
        return mean, float("nan"), float("nan")
    resampled = weights(n, RESAMPLES, seed, _STREAM).numpy().astype(np.float64) @ values_V
    if correlation:
        low, high = _interval(_fisher(resampled), float(_fisher(np.array(mean))), n)
        return mean, float(np.tanh(low)), float(np.tanh(high))
    low, high = _interval(resampled, mean, n)
    return mean, low, high


def median_interval(values_V: np.ndarray) -> tuple[float, float, float]:
    """Return the median over source videos and both ends of its interval; fewer than six videos give NaN ends.

    The ends are order statistics (Conover, "Practical Nonparametric Statistics", 1999, section 3.2), so the interval
    covers in at least 95 % of samples, whatever the distribution.
    """
    if not len(values_V):
        return float("nan"), float("nan"), float("nan")
    from scipy.stats import quantile_test

    tested: Any = quantile_test(values_V, p=0.5)  # its stubs know no interval
    ends = tested.confidence_interval(CONFIDENCE)
    return float(np.median(values_V)), float(ends.low), float(ends.high)


def _fisher(correlation: np.ndarray) -> np.ndarray:
    """Return artanh(r), finite also for r = 1 and for rounding errors beyond."""
    return np.arctanh(np.clip(correlation, -_MAX_R, _MAX_R))


def separation(a_N: np.ndarray, b_M: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Return the AUC with which one figure separates two sets of source videos, and both ends of its 95 % interval.

    AUC = P(a > b) + P(a = b) / 2. 1 or 0: the sets don't overlap; 0.5: the figure does not separate them. If the AUC is
    0 or 1, all resamples are equal, and the interval is that of Clopper & Pearson for min(N, M) trials.
    """
    n, m = len(a_N), len(b_M)
    if not n or not m:
        return float("nan"), float("nan"), float("nan")
    wins_NM = (a_N[:, None] > b_M[None]) + 0.5 * (a_N[:, None] == b_M[None])
    area = float(wins_NM.mean())
    if min(n, m) < 2:
        return area, float("nan"), float("nan")
    end = ((1 - CONFIDENCE) / 2) ** (1 / min(n, m))
    if area in (0.0, 1.0):
        return (area, end, 1.0) if area else (area, 0.0, 1 - end)
    left = weights(n, RESAMPLES, seed, _STREAM + 1).numpy().astype(np.float64)
    right = weights(m, RESAMPLES, seed, _STREAM + 2).numpy().astype(np.float64)
    low, high = _interval(((left @ wins_NM) * right).sum(1), area, min(n, m))
    return area, max(low, 0.0), min(high, 1.0)


def _interval(resampled_B: np.ndarray, estimate: float, n: int) -> tuple[float, float]:
    low, high = expanded_interval(
        torch.from_numpy(resampled_B)[:, None],
        np.array([estimate]),
        np.array([float(n - 1)]),
        np.array([np.sqrt(n / (n - 1))]),
        CONFIDENCE,
    )
    return float(low[0]), float(high[0])


def video_means(table: pa.Table, measure: str) -> np.ndarray:
    """Return one figure per source video, sorted by the videos' names: the mean over the clips that have the figure."""
    by_video: dict[str, list[float]] = {}
    for video, value in zip(table["video_id"].to_pylist(), table[measure].to_pylist(), strict=True):
        if value is not None and np.isfinite(value):
            by_video.setdefault(video, []).append(value)
    return np.array([np.mean(by_video[video]) for video in sorted(by_video)])
