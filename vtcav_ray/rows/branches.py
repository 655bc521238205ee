"""Rows of the commands beside the stages: patch, maps and faithful."""

from __future__ import annotations

from dataclasses import dataclass

from vtcav_ray.rows.columns import Counts, Floats


@dataclass(frozen=True, kw_only=True)
class PatchedRow:
    """The responses of one class to one pool clip at one layer, a row of `patched`."""

    clip_id: str  # of a concept, or of a random set
    video_id: str
    class_: str
    layer: str
    response: float  # mean target of the class, logits, over the reference clips with this clip's z in place of theirs
    first_order: float  # of `response`, from the gradients at the reference clips, up to the same number for all clips
    references: int  # reference clips
    model: str


@dataclass(frozen=True, kw_only=True)
class PatchEffectRow:
    """The patch effect of one result cell, a row of `patch_effects`."""

    class_: str
    layer: str
    concept: str
    against: str
    effect_patch: float  # mean response of the concept's videos minus that of the other side's, logits
    effect_first_order: float  # its first-order prediction, from the gradients at the same reference clips
    effect: float  # the concept effect of `scores`, at all reference clips
    same_sign: bool | None  # effect_patch and `effect` agree in sign; null: one is 0 or missing
    null_sd: float  # of effect_patch, if random clips replace the concept's
    z: float  # effect_patch over null_sd
    p: float  # permutation over source videos (pairs: sign flips), equal-tailed
    p_symmetric: float  # of the statistic's magnitude, from the same permutations
    q: float  # p corrected for all cells of this table: step-down min-p within concept and against, Holm over these
    spread_ratio: float  # standard deviations of the two sides, larger over smaller; above 2 prefer p_symmetric
    n_concept: int  # source videos of the concept
    n_random: int  # source videos on the other side
    references: int  # reference clips
    model: str
    note: str  # why figures are missing; empty: nothing to say


@dataclass(frozen=True, kw_only=True)
class MapRow:
    """The map of one comparison on one class example, a row of `maps`. Measures are null if they are not known."""

    clip_id: str
    video_id: str
    class_: str
    layer: str
    concept: str
    against: str
    presence: float  # mean of the map: activation minus the other side's mean, along the direction of unit length
    pointing: float | None  # share of steps whose largest place overlaps the tracked box
    pointing_random: float | None  # the same, mean over random directions
    inside: float | None  # map in the box minus elsewhere, in standard deviations of the map
    inside_random: float | None
    timing: float | None  # correlation over time of the map's mean over places with the box's speed
    timing_random: float | None
    deletion: float | None  # share of deletions elsewhere that lower `presence` less than those of the map's places
    timeline: Floats  # map's mean over places, one per frame
    timeline_random: Floats  # of random directions, each turned to be positive in the clip; their mean
    model: str


@dataclass(frozen=True, kw_only=True)
class MapSummaryRow:
    """All maps of one result cell, a row of `maps_summary`. Intervals: 95 %, bootstrap over source videos."""

    class_: str
    layer: str
    concept: str
    against: str
    localised: bool | None  # the interval of `deletion` lies above 0.5; null: it is not known
    deletion: float | None  # mean over the source videos; 0.5: what the map points to matters no more than other places
    deletion_low: float | None
    deletion_high: float | None
    pointing: float | None  # mean of pointing minus pointing_random
    pointing_low: float | None
    pointing_high: float | None
    inside: float | None  # mean of inside minus inside_random
    inside_low: float | None
    inside_high: float | None
    timing: float | None  # mean of timing minus timing_random
    timing_low: float | None
    timing_high: float | None
    clips: int  # class examples with a map
    n_present: int  # source videos with more of the concept than the other side's mean: only these are measured
    model: str
    note: str  # why a map is not shown; empty: it is shown


@dataclass(frozen=True, kw_only=True)
class ErasureRow:
    """Directions erased from one class example's activation at one layer, a row of the side table `erasures`."""

    clip_id: str
    video_id: str
    class_: str
    layer: str
    # pattern: the concept's difference of means; filter: its mean CAV; random: a direction of chance;
    # in_order, reversed, shuffled: the class's concepts one after the other; random_order: directions of chance
    what: str
    name: str  # the concept, or the number of the random set, `<kind>#<i>`
    changes: Floats  # of the class's target, logits: after one direction, after two, ...
    predicted: Counts  # 1 where the model still answers the class, one per change


@dataclass(frozen=True, kw_only=True)
class FiniteChangeRow:
    """A class's change when a reference clip moves by a concept's shift, a row of the side table `finite_changes`."""

    clip_id: str
    video_id: str
    class_: str
    layer: str
    concept: str
    predicted: float  # to first order, logits
    real: float  # when the rest of the model is run


@dataclass(frozen=True, kw_only=True)
class RandomisedRow:
    """One effect of a model with shuffled weights, a row of the side table `randomised`."""

    level: str  # `whole`, or `after <layer>`: only what runs after this layer is shuffled
    class_: str
    layer: str
    concept: str
    z: float  # Welch's t of the effect
    p_adjusted: float  # corrected for the cells of the concept's family


@dataclass(frozen=True, kw_only=True)
class HalfRow:
    """One effect in both halves of the source videos, a row of the side table `halves`."""

    split: int
    class_: str
    layer: str
    concept: str
    first: float  # effect in logits
    second: float
    first_called: int  # 1: raises the class, -1: lowers it, 0: not called at alpha
    second_called: int


@dataclass(frozen=True, kw_only=True)
class FaithfulnessRow:
    """One figure of one check, a row of `faithfulness`. What a figure is not about is null."""

    check: str  # necessity, deletion, insertion, randomised weights, stability, first order or layers
    measure: str  # see docs/faithful.md
    class_: str | None = None
    layer: str | None = None
    concept: str | None = None
    value: float | None = None
    ci_low: float | None = None  # 95 %, bootstrap over source videos
    ci_high: float | None = None
    random: float | None = None  # the same figure for random sets, their mean
    p: float | None = None  # rank of the value among those of random sets
    n: int | None = None  # source videos, cells or splits that the figure is a mean over
    note: str = ""  # a sentence for the reader; empty: nothing to say
