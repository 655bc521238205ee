"""Confidence intervals of TCAV scores: a two-level bootstrap over the class's videos and the runs.

The bootstrap resamples the class's source videos and the R runs (random sets) independently, as rows and columns of the
table of positive sensitivities (the pigeonhole bootstrap: Owen, The pigeonhole bootstrap, Annals of Applied Statistics
2007). The interval covers the score over all videos of the class and all random sets, GIVEN this concept's clips. These
are the same in every run, so resampling runs cannot show how the score would vary with other clips of the concept. The
concept effect's interval resamples them and answers that question.

Near 0 and 1, only a few signs differ from the rest, and resampling them understates the variation: in simulation the
bootstrap alone covered 83 to 93 % there instead of 95. So the interval reaches at least as far as that of Wilson
(Probable inference, the law of succession, and statistical inference, JASA 1927), with the number of independent trials
that corresponds to the two levels' variance (the effective sample size of survey statistics: Korn & Graubard,
Confidence intervals for proportions with small expected number of positive counts, Survey Methodology 1998).

Legend: V class videos, M = J * R CAVs, J concepts, R runs of each, B resamples, C = V * R.
"""

from __future__ import annotations

import numpy as np
import scipy.special
import torch
from numpy.typing import ArrayLike, NDArray

from vtcav_ray.tcav.bootstrap import expanded_interval, weights

_VIDEO_STREAM, _RUN_STREAM = 11, 12
# The effective number of trials is an estimate, and far too large if only one or two signs differ. It is capped at this
# multiple of the smaller of V and R: chosen in one simulation, evaluated in benchmarks/calibration.py.
_MOST_TRIALS = 6
_BLOCK_NUMBERS = 1 << 20


def score_intervals(
    sensitivities: ArrayLike,
    runs: int,
    *,
    bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute intervals of J concepts' TCAV scores for one class.

    Args:
        sensitivities: [V, J * R], one row per source video (see `score(..., sensitivities=True)`), with a concept's R
            runs adjacent.
        runs: R.
        bootstrap: B.
        confidence: in (0, 1).
        seed: of the resamples; cells of the same V and R share them.
        device: where to compute.

    Returns:
        `low`, `high`, [J], in [0, 1]. NaN for a class of one video, for R = 1, and if a sensitivity is NaN. If every
        sensitivity has the same sign, no resample differs, and the interval is that of Clopper & Pearson for min(V, R)
        trials.

    Raises:
        ValueError: shapes or options that do not fit.
    """
    s_VM = np.asarray(sensitivities)
    if s_VM.ndim != 2 or s_VM.shape[0] == 0 or runs < 1 or s_VM.shape[1] == 0 or s_VM.shape[1] % runs:
        raise ValueError(f"sensitivities must be [V, J * R] with R = {runs}, and has shape {s_VM.shape}")
    if bootstrap < 2 or not 0 < confidence < 1:
        raise ValueError(f"bootstrap must be at least 2 and confidence in (0, 1): {bootstrap}, {confidence}")
    num_videos, concepts = len(s_VM), s_VM.shape[1] // runs
    low, high = np.full(concepts, np.nan), np.full(concepts, np.nan)
    missing = np.isnan(s_VM).any(axis=0).reshape(concepts, runs).any(axis=1)
    if num_videos < 2 or runs < 2:
        return low, high
    sign_VJR = torch.from_numpy((s_VM > 0).astype(np.float32)).to(device).view(num_videos, concepts, runs)
    video_BV = weights(num_videos, bootstrap, seed, _VIDEO_STREAM).to(device)
    run_BR = weights(runs, bootstrap, seed, _RUN_STREAM).to(device)
    # One product for both levels: the weight of (video, run) is the product of the two weights. Summing over videos
    # first and runs second needs as many multiplications, but moves B x J x R numbers through memory in between.
    sign_CJ = sign_VJR.permute(0, 2, 1).reshape(num_videos * runs, concepts)
    step = max(1, _BLOCK_NUMBERS // len(sign_CJ))
    resampled_BJ = torch.empty((bootstrap, concepts), device=device)
    for start in range(0, bootstrap, step):
        some = slice(start, start + step)
        both_BC = (video_BV[some, :, None] * run_BR[some, None, :]).view(-1, len(sign_CJ))
        torch.matmul(both_BC, sign_CJ, out=resampled_BJ[some])

    score_J = sign_VJR.mean(dim=(0, 2)).double().cpu().numpy()
    video_J = sign_VJR.mean(dim=2).double().var(dim=0).cpu().numpy() / num_videos
    run_J = sign_VJR.mean(dim=0).double().var(dim=1).cpu().numpy() / runs
    total = video_J + run_J
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = total**2 / (video_J**2 / (num_videos - 1) + run_J**2 / (runs - 1))
        shrinkage = np.sqrt(total / (video_J * (num_videos - 1) / num_videos + run_J * (runs - 1) / runs))
    usable = total > 0
    low, high = expanded_interval(
        resampled_BJ, score_J, np.where(usable, freedom, 1.0), np.where(usable, shrinkage, 1.0), confidence
    )
    trials = np.minimum(score_J * (1 - score_J) / np.where(usable, total, 1.0), _MOST_TRIALS * min(num_videos, runs))
    wilson_low, wilson_high = _wilson(
        score_J, np.where(usable, trials, 1.0), np.where(usable, freedom, 1.0), confidence
    )
    low, high = np.minimum(low, wilson_low), np.maximum(high, wilson_high)
    # Clopper & Pearson without failures (or without successes) in n trials.
    end = ((1 - confidence) / 2) ** (1 / min(num_videos, runs))
    low, high = np.where(score_J == 1, end, low), np.where(score_J == 0, 1 - end, high)
    low, high = np.where(score_J == 0, 0.0, low), np.where(score_J == 1, 1.0, high)
    low[missing] = high[missing] = np.nan
    return np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0)


def _wilson(
    share_J: NDArray[np.float64], trials_J: NDArray[np.float64], freedom_J: NDArray[np.float64], confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Wilson's score interval of a share, with Student's t since the effective number of trials is estimated."""
    t = scipy.special.stdtrit(np.maximum(freedom_J, 1.0), 0.5 + confidence / 2)
    shrink = 1 / (1 + t**2 / trials_J)
    centre = (share_J + t**2 / (2 * trials_J)) * shrink
    half = t * shrink * np.sqrt(share_J * (1 - share_J) / trials_J + (t / (2 * trials_J)) ** 2)
    return centre - half, centre + half
