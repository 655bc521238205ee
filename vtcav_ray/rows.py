"""Rows of tables as dataclasses. Their fields are the columns, in order, and `vtcav_ray.tables` derives the schemas.

The comment beside a field is the column's description in docs/tables.md. A column whose name is a Python keyword has a
field with a trailing underscore: `class_` is the column `class`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import pyarrow as pa

from vtcav_ray.errors import InputError

Float32 = Annotated[float, pa.float32()]
Counts = Annotated[Sequence[int], pa.list_(pa.int32())]
Floats = Annotated[Sequence[float], pa.list_(pa.float32())]
_TYPES = {str: pa.string(), bool: pa.bool_(), int: pa.int32(), float: pa.float64()}
Row = TypeVar("Row")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One input that can't be used, a row of `failures`. `stage` is filled in when the shard is committed."""

    stage: str | None = None
    uri: str | None = None
    video_id: str | None = None
    clip_id: str | None = None
    error_kind: str  # see vtcav_ray.errors.InputError
    message: str
    attempts: int = 1

    @classmethod
    def of_video(cls, row: Mapping[str, Any], error: InputError, *, attempts: int = 1) -> Failure:
        """Return the failure of a whole video.

        Args:
            row: names the video by its columns `uri` and `video_id`; either may be absent.
            error: why the video can't be used.
            attempts: number of worker processes that it cost.
        """
        return cls(
            uri=row.get("uri"),
            video_id=row.get("video_id"),
            error_kind=error.kind,
            message=error.message,
            attempts=attempts,
        )

    @classmethod
    def of_clip(cls, row: Mapping[str, Any], error: InputError) -> Failure:
        """Return the failure of one clip, named by the row's columns `clip_id`, `video_id` and, if present, `uri`."""
        return dataclasses.replace(cls.of_video(row, error), clip_id=row["clip_id"])


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """One result cell, a row of `scores`. The fields that are None at first need other cells of the run."""

    class_: str
    layer: str  # or `answer`: the difference of the class's own logit, without a gradient and without CAVs
    concept: str  # `<name>/<kind>`
    against: str  # `random`, `rest of <kind>`, or another concept
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


def schema_of(row_type: type) -> pa.Schema:
    """Return the schema of a table whose rows are of this dataclass."""
    hints = get_type_hints(row_type, include_extras=True)
    return pa.schema([(_column(name), _arrow_type(hints[name])) for name in _field_names(row_type)])


def table_of(rows: Sequence[Row], row_type: type[Row]) -> pa.Table:
    """Return rows as a table, with the schema of their dataclass also where there are none. None becomes null."""
    columns = {_column(name): [getattr(row, name) for row in rows] for name in _field_names(row_type)}
    return pa.table(columns, schema=schema_of(row_type))


def read_rows(table: pa.Table, row_type: type[Row]) -> list[Row]:
    """Return a table's rows as dataclasses.

    Raises:
        KeyError: the table lacks a column.
    """
    names = _field_names(row_type)
    columns = [table[_column(name)].to_pylist() for name in names]
    return [row_type(**dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)]


def _field_names(row_type: type) -> list[str]:
    return [field.name for field in dataclasses.fields(row_type)]


def _column(field_name: str) -> str:
    return field_name.removesuffix("_")


def _arrow_type(hint: Any) -> pa.DataType:
    if get_origin(hint) is UnionType:  # `str | None`: every column may hold nulls
        (hint,) = (part for part in get_args(hint) if part is not NoneType)
    return get_args(hint)[1] if get_origin(hint) is Annotated else _TYPES[hint]
