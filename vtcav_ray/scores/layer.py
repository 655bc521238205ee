"""Score one layer: every figure of every result cell, from CAVs, gradients and activations.

The tests of the effects need all layers together: see `families`.

Legend: K classes, V videos of a class, J cells per class (concept, against), R runs of a cell, N rows of the pool.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vtcav_ray.cavs.plan import RANDOM
from vtcav_ray.clips.classes import same_class
from vtcav_ray.rows import NullRow, ScoreRow, SensitivityRow
from vtcav_ray.scores.cells import Cell, Rows, find_cells, lost_a_side, without_class
from vtcav_ray.scores.effects import effects_of
from vtcav_ray.scores.layer_data import ClassGradients, LayerClips, LayerData, ScoreOptions
from vtcav_ray.tcav.diagnostics import Learnable, collinearity, is_degenerate, learnability, mean_pairwise_cosine
from vtcav_ray.tcav.effect import ConceptEffect
from vtcav_ray.tcav.intervals import score_intervals
from vtcav_ray.tcav.min_effect import class_margin
from vtcav_ray.tcav.null_histograms import score_counts
from vtcav_ray.tcav.scores import Scores, score
from vtcav_ray.tcav.significance import empirical_test, round_robin_test

DEGENERATE = (
    "The gradient is the same for every clip at this layer (only pooling and one linear map follow), so the sign count "
    "is 0 or 1 for any CAV; read the effect and the magnitude."
)


class LayerScores(NamedTuple):
    """Rows of a layer, without the values that need all layers; `nulls` has one row per cell, in the same order."""

    cells: list[ScoreRow]
    sensitivities: list[SensitivityRow]
    nulls: list[NullRow]


class _ClassFigures(NamedTuple):
    """Figures of one class at a layer, for all CAVs (M) and cells (J). The videos are those of the V rows, in order."""

    name: str
    videos: list[str]
    scored: Scores
    sensitivities_VM: NDArray[np.float32]
    degenerate: bool
    collinearity: float
    gain: float
    margin: float
    class_margin: float
    intervals_J: list[tuple[float, float]]


class _CavFigures(NamedTuple):
    """Figures of a cell's CAVs, which are the same for every class. `accuracy`: held out, mean over all its CAVs."""

    learnable: Learnable
    accuracy: float
    stability: float
    untrained: str


class _SignCount(NamedTuple):
    """The TCAV score of a cell with its null; `effect` and `p` are NaN if there is no test."""

    score: float
    null_mean: float
    null_sd: float
    effect: float = float("nan")
    p: float = float("nan")


def score_layer(data: LayerData, options: ScoreOptions) -> LayerScores:
    """Compute all rows of a layer."""
    cells = find_cells(data.pool, data.clip_ids, data.jobs)
    effects = all_effects(cells, data, options)
    about_cavs = [_about_cavs(cell, data) for cell in cells]
    found = LayerScores([], [], [])
    for k, gradients in enumerate(data.classes):
        of_class = _class_figures(gradients, cells, data, options)
        counts_of: dict[bytes, list[int]] = {}  # cells of one kind and profile share the null of their scores
        for j, cell in enumerate(cells):
            found.cells.append(_score_row(data, cell, of_class, of_class.intervals_J[j], about_cavs[j], effects[j][k]))
            null = cell.null.tobytes()
            if null not in counts_of:
                counts_of[null] = score_counts(of_class.scored.sign_count[cell.null]).tolist()
            found.nulls.append(null_row(data.layer, cell, of_class.name, counts_of[null]))
            if cell.against == RANDOM:
                found.sensitivities.extend(_sensitivity_rows(data.layer, cell, of_class))
    return found


def _class_figures(
    gradients: ClassGradients, cells: Sequence[Cell], data: LayerData, options: ScoreOptions
) -> _ClassFigures:
    scored = score(gradients.vectors, data.cavs_Md, groups=gradients.videos, sensitivities=True, device=options.device)
    assert scored.sensitivities is not None, "asked for"
    return _ClassFigures(
        name=gradients.name,
        videos=sorted(set(gradients.videos)),
        scored=scored,
        sensitivities_VM=scored.sensitivities,
        degenerate=is_degenerate(gradients.vectors),
        collinearity=collinearity(gradients.vectors),
        gain=gradients.gain,
        margin=gradients.margin,
        class_margin=margin_of(gradients, data) * gradients.gain,
        intervals_J=_intervals(cells, scored.sensitivities, options),
    )


def margin_of(gradients: ClassGradients, data: LayerClips) -> float:
    """Return the margin of a class at a layer, in logits as its effects are; see `tcav.min_effect`."""
    if gradients.targets is not None:
        values, labels, videos = gradients.targets
    else:
        rows = [i for i, role in enumerate(data.pool.set) if role == "class"]
        values = (data.vectors_ND[rows] @ gradients.mean()).tolist()
        labels, videos = [data.pool.name[i] for i in rows], [data.pool.video_id[i] for i in rows]
    own = next((label for label in labels if same_class(label, gradients.name)), gradients.name)
    return class_margin(values, labels, own, groups=videos) if len(values) else float("nan")


def _score_row(
    data: LayerData,
    cell: Cell,
    of_class: _ClassFigures,
    interval: tuple[float, float],
    cavs: _CavFigures,
    effect: ConceptEffect,
) -> ScoreRow:
    signs = _sign_count(cell, of_class.scored.sign_count, of_class.degenerate)
    reasons = (cell.mark, cavs.learnable.reason, effect.reason)
    notes = (DEGENERATE * of_class.degenerate, cavs.untrained, *(as_sentence(reason) for reason in reasons))
    return ScoreRow(
        class_=of_class.name,
        layer=data.layer,
        concept=cell.concept,
        kind=cell.kind,
        against=cell.against,
        share_of_margin=effect.effect / of_class.margin,
        gain=of_class.gain,
        tcav_score=signs.score,
        tcav_p=signs.p,
        tcav_ci_low=interval[0],
        tcav_ci_high=interval[1],
        tcav_effect=signs.effect,
        learnable=cavs.learnable.learnable,
        n=of_class.scored.num_videos,
        R=len(cell.cavs),
        tcav_magnitude=_mean(of_class.scored.magnitude[cell.cavs]),
        tcav_smooth=_mean(of_class.scored.smooth[cell.cavs]),
        tcav_null_mean=signs.null_mean,
        tcav_null_sd=signs.null_sd,
        effect=effect.effect,
        ci_low=effect.ci_low,
        ci_high=effect.ci_high,
        null_sd=effect.null_sd,
        z=effect.z,
        class_margin=of_class.class_margin,
        n_concept=effect.n_concept,
        n_random=effect.n_random,
        held_out_accuracy=cavs.accuracy,
        null_accuracy=cavs.learnable.null_accuracy,
        stability=cavs.stability,
        collinearity=of_class.collinearity,
        degenerate=of_class.degenerate,
        model=data.model,
        note=" ".join(note for note in notes if note),
    )


def null_row(layer: str, cell: Cell, class_name: str, counts: list[int]) -> NullRow:
    """Return a cell's nulls, with the counts of its scores; those of its effect come with its family's test."""
    return NullRow(
        class_=class_name,
        layer=layer,
        concept=cell.concept,
        against=cell.against,
        effect_unit=float("nan"),
        effect_counts=(),
        score_counts=counts,
    )


def _sensitivity_rows(layer: str, cell: Cell, of_class: _ClassFigures) -> list[SensitivityRow]:
    s_VR = of_class.sensitivities_VM[:, cell.cavs]
    return [
        SensitivityRow(
            class_=of_class.name, layer=layer, concept=cell.concept, video_id=video, sensitivity=mean, positive=share
        )
        for video, mean, share in zip(of_class.videos, s_VR.mean(axis=1), (s_VR > 0).mean(axis=1), strict=True)
    ]


def _intervals(cells: Sequence[Cell], s_VM: NDArray[np.float32], options: ScoreOptions) -> list[tuple[float, float]]:
    """Return the score's interval of each cell. Cells of equal R share one call, and with it the resampling weights."""
    found = [(float("nan"), float("nan"))] * len(cells)
    for runs in {len(cell.cavs) for cell in cells}:
        members = [j for j, cell in enumerate(cells) if len(cell.cavs) == runs]
        columns = np.concatenate([cells[j].cavs for j in members])
        low, high = score_intervals(
            s_VM[:, columns], runs, bootstrap=options.bootstrap, seed=options.seed, device=options.device
        )
        for place, j in enumerate(members):
            found[j] = (float(low[place]), float(high[place]))
    return found


def _sign_count(cell: Cell, sign_count_M: NDArray[np.float64], degenerate: bool) -> _SignCount:
    """Return the sign count with null and test. In a degenerate layer it has no test: it is 0 or 1 for any CAV."""
    runs, null = sign_count_M[cell.cavs], sign_count_M[cell.null]
    null_sd = float(np.nanstd(null, ddof=1)) if np.isfinite(null).sum() > 1 else float("nan")
    untested = _SignCount(_mean(runs), _mean(null), null_sd)
    complete = bool(np.isfinite(runs).all() and np.isfinite(null).all())
    if degenerate or not complete or len(runs) < 2 or not len(null):
        return untested
    if cell.paired and cell.against == RANDOM:  # each null CAV is of pairs that were swapped by a coin
        test = empirical_test(runs, null)
    elif cell.against == RANDOM:
        test = round_robin_test(runs, null)
    else:  # these runs do not face the random sets: compare their mean with scores of disjoint random pairs
        test = empirical_test(runs, null[_disjoint_pairs(len(null))])
    return untested._replace(p=float(test.p[0]), effect=float(test.effect[0]))


def _disjoint_pairs(num_pairs: int) -> Rows:
    """Return the indices of (0, 1), (2, 3), ... among all pairs of R sets: no set is in two of them."""
    num_sets = _num_sets(num_pairs)
    first = np.arange(0, num_sets - 1, 2)
    return first * num_sets - first * (first + 1) // 2


def _num_sets(num_pairs: int) -> int:
    """Return R, from R (R - 1) / 2 pairs."""
    return round((1 + np.sqrt(1 + 8 * num_pairs)) / 2) if num_pairs else 0


def _about_cavs(cell: Cell, data: LayerData) -> _CavFigures:
    return _CavFigures(
        learnable=learnability(*data.chance_of(cell)),
        accuracy=_known_mean(data.held_out_M[cell.cavs]),
        stability=mean_pairwise_cosine(data.cavs_Md[cell.cavs]),
        untrained=_untrained(cell, data.reasons_M),
    )


def _untrained(cell: Cell, reasons_M: Sequence[str]) -> str:
    """Return a sentence on what a cell lacks because some CAVs, its own or its null's, could not be trained; or ""."""
    said = []
    for rows, whose, lacks in ((cell.cavs, "its", "has no score"), (cell.null, "its null's", "has no p of the score")):
        failed = [reasons_M[i] for i in rows if reasons_M and reasons_M[i]]
        if failed:
            said.append(
                f"{len(failed)} of {whose} {len(rows)} CAVs could not be trained, so it {lacks}: "
                f"{'; '.join(sorted(set(failed)))}."
            )
    return " ".join(said)


def all_effects(cells: Sequence[Cell], data: LayerClips, options: ScoreOptions) -> list[list[ConceptEffect]]:
    """Return the concept effects without their tests, [J][K]; of each class without its own videos, if asked for."""
    if options.labels_N is None:
        return effects_of(cells, data, options)
    by_class = []
    for one in data.classes:
        left = [without_class(cell, options.labels_N, one.name) for cell in cells]
        found = [of_cell[0] for of_cell in effects_of(left, dataclasses.replace(data, classes=[one]), options)]
        by_class.append(
            [
                dataclasses.replace(effect, reason=_only_of_class(one.name)) if lost_a_side(cell, part) else effect
                for effect, cell, part in zip(found, cells, left, strict=True)
            ]
        )
    return [list(of_cell) for of_cell in zip(*by_class, strict=True)]


def _only_of_class(name: str) -> str:
    return f"All videos of the concept or of its other side are of the class {name}, so none is left to compare"


def as_sentence(reason: str) -> str:
    return f"{reason[:1].upper()}{reason[1:].removesuffix('.')}." if reason else ""


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _known_mean(values: NDArray[np.float64]) -> float:
    return _mean(values[np.isfinite(values)])
