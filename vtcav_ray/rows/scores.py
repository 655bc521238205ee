"""Rows of the stages `responses`, `scores` and `report`."""

from __future__ import annotations

from dataclasses import dataclass

from vtcav_ray.rows.columns import Counts, Float32, Floats


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """One result cell, a row of `scores`. The fields that are None at first need other cells of the run."""

    class_: str
    layer: str  # or `answer`: the difference of the class's own logit, without a gradient and without CAVs
    concept: str  # `<name>/<kind>`
    against: str  # `random` (of own clips in pairs: their partners), `rest of <kind>`, or another concept
    effect: float  # the concept effect, logits: first-order at the layer's gain, or patch, as `scores.effect` says
    ci_low: float  # of the effect: two-level bootstrap, 95 %
    ci_high: float
    z: float  # effect over null_sd
    p: float | None = None  # permutation over source videos: twice the smaller tail of t
    q: float | None = None  # p corrected for all cells of the run
    significant: bool | None = None  # the headline: q below alpha, and the interval beyond +-min_effect
    effect_within: float | None = None  # part of `effect` within class labels: beyond the class itself
    p_within: float | None = None  # of that part: videos permuted within their labels
    q_within: float | None = None  # p_within corrected like q
    between_share: float | None = None  # share of `effect` that goes with the class labels themselves
    share_of_margin: float  # effect over the median distance of the class's logit to the runner-up, at its examples
    tcav_score: float | None = None  # the TCAV score (sign count), mean over the R CAVs, in [0, 1]; null: `answer`
    tcav_p: float | None = None  # of the score, two-sided
    tcav_q: float | None = None  # tcav_p corrected for all m cells of the run
    tcav_ci_low: float | None = None  # of the score: two-level bootstrap, 95 %
    tcav_ci_high: float | None = None
    tcav_effect: float | None = None  # score minus the null's mean
    tcav_null_mean: float | None = None  # of the random-against-random scores
    tcav_null_sd: float | None = None
    tcav_magnitude: float | None = None  # mean sensitivity, logits per unit of z
    tcav_smooth: float | None = None  # mean sigmoid of the scaled sensitivity, in [0, 1]
    kind: str
    probability_change: float | None = None  # of the class, concept's clips minus the other side's; null: of a layer
    class_margin: float  # logits: how far other classes' clips are from the class's own, as the effect measures it
    min_effect: float | None = None  # smallest effect of interest, logits: `scores.min_effect` of class_margin
    negligible: bool | None = None  # the interval lies inside +-min_effect: no effect of interest
    gain: float  # of the layer, which `effect` contains: logits for one of the mean gradient times Δz
    null_sd: float  # of the effect, if random clips replace the concept's
    p_symmetric: float | None = None  # p by the size of t: read it if spread_ratio is above 2
    spread_ratio: float | None = None  # of the two sides' standard deviations, larger over smaller; NaN for twins
    # Held-out accuracy above what random sets in its place reach (5 %); a note, which decides nothing; null: `answer`
    learnable: bool | None = None
    n: int  # class videos
    R: int  # CAVs; 0: `answer`
    n_concept: int  # source videos of the concept
    n_random: int  # source videos on the other side
    # Source videos a side to add to call an effect of this size in 80 % of cases; null: decided, or no effect to go by
    more_clips: float | None = None
    held_out_accuracy: float | None = None
    null_accuracy: float | None = None  # to be exceeded by it: random sets in the concept's place reach it, at 5 %
    stability: float | None = None  # mean pairwise cosine of the R CAVs
    collinearity: float | None = None  # mean pairwise cosine of the class's gradients at this layer
    degenerate: bool  # the gradient is the same for every clip: the sign count says nothing
    decided_by: str | None = None  # which figures can be read: `effect`, `effect and score`, or `none`
    model: str
    note: str  # why a cell is marked; empty: nothing to say


@dataclass(frozen=True, kw_only=True)
class SensitivityRow:
    """One class video and one concept against random clips, a row of `sensitivities`."""

    class_: str
    layer: str
    concept: str
    video_id: str  # of the class: which videos does the concept drive?
    sensitivity: Float32  # mean over the R CAVs, logits per unit of z
    positive: Float32  # share of the R CAVs with a positive sensitivity


@dataclass(frozen=True, kw_only=True)
class NullRow:
    """The null distributions of one result cell, a row of `nulls`."""

    class_: str
    layer: str
    concept: str
    against: str
    effect_unit: Float32  # logits per unit of `effect_counts`: the observed effect is at `effect` / it
    # Permutations in 24 equal bins from -4 to 4 units (Welch's t; for pairs, means over the SD of all sign
    # patterns); what lies beyond is in the outermost. Empty: no test.
    effect_counts: Counts
    score_counts: Counts  # random-against-random scores in 20 equal bins of [0, 1]


@dataclass(frozen=True, kw_only=True)
class CompositionRow:
    """The source videos of one concept and of its random clips with one label, a row of `composition`."""

    concept: str
    label: str  # class of the source video, or `no label`; beyond 20 labels a last row is `<number> other labels`
    n_concept: int  # source videos of the concept
    n_random: int  # source videos of the random clips that the concept is compared with
    no_contrast: bool  # the random clips lack it, or one of several: the concept can't be told apart from the label


@dataclass(frozen=True, kw_only=True)
class EffectTestRow:
    """The test of one cell's effect, a row of `effect_tests`."""

    class_: str
    layer: str
    concept: str
    against: str
    p: float  # as in `scores`
    p_symmetric: float
    p_adjusted: float  # p corrected for the classes and layers of the same concept and other side
    p_needed: float  # largest p that the correction's strictest step for this cell's family accepts
    spread_ratio: float
    effect_within: float
    p_within: float
    p_within_adjusted: float  # p_within corrected for the same cells
    between_share: float
    effect_unit: Float32  # as in `nulls`
    effect_counts: Counts
    note: str


@dataclass(frozen=True, kw_only=True)
class ResponseRow:
    """The responses of one class to one pool clip at one layer, a row of `responses`."""

    clip_id: str  # of a concept, or of a random set
    video_id: str
    class_: str
    layer: str
    # Target of the class, logits, at each reference clip with this clip's z in place of its own: in the order of the
    # reference clips' ids; NaN: the reference clip could not be decoded
    responses: Floats
    model: str


@dataclass(frozen=True, kw_only=True)
class VerdictRow:
    """The answer for one class, a row of `verdicts`. The columns from `concept` on are null if nothing raises it."""

    class_: str
    verdict: str  # in sentences
    uses: str  # what raises the logit, the clearest first: movement, moving object, object, scene, concept
    concept: str | None  # of the clearest comparison that raises it, as in `scores`
    layer: str | None
    against: str | None
    effect: float | None  # logits
    share_of_margin: float | None
    z: float | None
    q: float | None


@dataclass(frozen=True, kw_only=True)
class MistakeRow:
    """One concept at one layer over all misclassified class examples, a row of `mistakes`."""

    rank: int  # from 1: the clearest push to the wrong class first
    concept: str  # `<name>/<kind>`
    layer: str
    push: float  # logits to the wrong class through the concept's amount in the clip; mean of misclassified examples
    push_correct: float  # the same of the correct examples, to their likeliest wrong class
    difference: float  # misclassified minus correct, within true classes; positive: towards the wrong class
    presence: float  # mean share of the concept's random clips with less of it, misclassified examples
    presence_correct: float  # the same of the correct examples
    p_examples: float  # examples permuted between misclassified and correct within their true class, equal-tailed
    p_direction: float  # the concept's videos permuted with its random ones, upper tail
    p: float  # the larger of the two
    q: float  # p corrected for all rows and both tests
    significant: bool  # q below alpha, and the difference is positive
    n_mistakes: int  # source videos whose answer is wrong
    n_correct: int
    note: str  # why figures are missing; empty: nothing to say
