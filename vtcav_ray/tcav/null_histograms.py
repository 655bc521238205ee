"""The null distribution of a cell as counts in a few bins, which the report draws behind a figure.

The effect's null is in the units of its test. Against random clips this is Welch's t of each permutation; for pairs, it
is each sign pattern's mean over the standard deviation of all of them. Multiplied by `unit` it is in logits. The
observed effect lies at effect / unit, and p counts the values at least as far out.

Legend: B permutations.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EFFECT_BINS = 24
EFFECT_REACH = 4.0  # bins cover -4 to 4 units; values beyond are counted in the outermost bins
SCORE_BINS = 20  # of [0, 1]


def effect_counts(t_B: NDArray[np.float32]) -> NDArray[np.int64]:
    """Count one cell's values, in units of the test, that lie in each bin: int64 [EFFECT_BINS]."""
    place = (t_B + np.float32(EFFECT_REACH)) * np.float32(EFFECT_BINS / (2 * EFFECT_REACH))
    return np.bincount(place.clip(0, EFFECT_BINS - 1).astype(np.int64), minlength=EFFECT_BINS)


def score_counts(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Count how many of the scores in [0, 1] lie in each bin: int64 [SCORE_BINS]. NaN is left out."""
    finite = scores[np.isfinite(scores)]
    return np.histogram(finite, bins=SCORE_BINS, range=(0.0, 1.0))[0].astype(np.int64)
