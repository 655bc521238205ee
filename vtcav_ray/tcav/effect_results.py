"""The results of the functions in `effect`.

Legend: K classes, J concepts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ConceptEffect:
    """One cell: one class, one layer, one concept. Missing figures are NaN, and `reason` says why.

    Attributes:
        effect: in logits; positive: the concept raises the class's logit.
        null_sd: standard deviation of the effect if random clips replace the concept's, from the spread of the random
            videos: sd * sqrt(1/n + 1/m). For pairs: the spread of the pairs' differences over sqrt(n).
        z: effect / null_sd.
        p: two-sided, by permutation, in (0, 1]; `tails` says how.
        ci_low, ci_high: of the effect, in logits; class videos and both sides' videos are resampled.
        n_concept, n_random: source videos on each side; for pairs, both are the number of videos of the pairs.
        reason: why figures are missing, or empty.
        null_unit: one unit of the permutations' statistic, in logits: the observed statistic is effect / null_unit.
        null_counts: number of permutations in each bin of `null_histograms`; empty: there were none.
        p_symmetric: by the statistic's magnitude, whatever the tails of `p`.
        spread_ratio: of the standard deviations of the concept's and the random videos' projections, the larger over
            the smaller. Above 2, `p_symmetric` is more robust than an equal-tailed p. NaN for pairs.
        effect_within: part of the effect within labels, in logits; effect = effect_within + the part that goes with
            the labels. NaN without `strata`, or if no label has a contrast. See `strata`.
        p_within: equal-tailed, of the part within labels: the labels' videos are permuted within each label.
        between_share: (effect - effect_within) / effect; NaN unless the effect is above its standard error.
        no_contrast: labels of concept videos that no random video has; the concept cannot be told apart from them.
    """

    effect: float
    null_sd: float
    z: float
    p: float
    ci_low: float
    ci_high: float
    n_concept: int
    n_random: int
    reason: str
    null_unit: float = float("nan")
    null_counts: tuple[int, ...] = ()
    p_symmetric: float = float("nan")
    spread_ratio: float = float("nan")
    effect_within: float = float("nan")
    p_within: float = float("nan")
    between_share: float = float("nan")
    no_contrast: tuple[str, ...] = ()


@dataclass(frozen=True)
class ConceptEffects:
    """The figures of `ConceptEffect` for K classes and J concepts of one layer: arrays [K, J].

    The counts of videos and `no_contrast` are [J], and the counts of the null's bins [K, J, bins].
    """

    effect: NDArray[np.float64]
    null_sd: NDArray[np.float64]
    z: NDArray[np.float64]
    p: NDArray[np.float64]
    ci_low: NDArray[np.float64]
    ci_high: NDArray[np.float64]
    n_concept: NDArray[np.int64]
    n_random: NDArray[np.int64]
    reason: NDArray[np.object_]
    null_unit: NDArray[np.float64]
    null_counts: NDArray[np.int64]
    p_symmetric: NDArray[np.float64]
    spread_ratio: NDArray[np.float64]
    effect_within: NDArray[np.float64]
    p_within: NDArray[np.float64]
    between_share: NDArray[np.float64]
    no_contrast: tuple[tuple[str, ...], ...]

    def cell(self, class_index: int, concept_index: int) -> ConceptEffect:
        """Return the figures of one cell."""
        at = (class_index, concept_index)
        return ConceptEffect(
            effect=float(self.effect[at]),
            null_sd=float(self.null_sd[at]),
            z=float(self.z[at]),
            p=float(self.p[at]),
            ci_low=float(self.ci_low[at]),
            ci_high=float(self.ci_high[at]),
            n_concept=int(self.n_concept[concept_index]),
            n_random=int(self.n_random[concept_index]),
            reason=str(self.reason[at]),
            null_unit=float(self.null_unit[at]),
            null_counts=tuple(self.null_counts[at].tolist()),
            p_symmetric=float(self.p_symmetric[at]),
            spread_ratio=float(self.spread_ratio[at]),
            effect_within=float(self.effect_within[at]),
            p_within=float(self.p_within[at]),
            between_share=float(self.between_share[at]),
            no_contrast=self.no_contrast[concept_index],
        )
