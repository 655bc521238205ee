"""Result cells of one layer: every figure of every (class, concept, against), from CAVs, gradients and activations.

Legend: K classes, V videos of a class, J cells per class (concept, against), R runs of a cell, N rows of the pool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vtcav_ray.cavs.plan import RANDOM, CavJob, Pool, Profile
from vtcav_ray.tcav.diagnostics import collinearity, is_degenerate, learnability, mean_pairwise_cosine
from vtcav_ray.tcav.effect import ConceptEffect, concept_effects, paired_concept_effects
from vtcav_ray.tcav.intervals import score_intervals
from vtcav_ray.tcav.null_histograms import score_counts
from vtcav_ray.tcav.scores import score
from vtcav_ray.tcav.significance import empirical_test, null_pairs, round_robin_test

Rows = NDArray[np.int64]

DEGENERATE = (
    "The gradient is the same for every clip at this layer (only pooling and one linear map follow), so the sign count "
    "is 0 or 1 for any CAV; read the effect and the magnitude."
)


NO_EFFECT = ConceptEffect(
    effect=np.nan,
    null_sd=np.nan,
    z=np.nan,
    p=np.nan,
    ci_low=np.nan,
    ci_high=np.nan,
    n_concept=0,
    n_random=0,
    reason="There is nothing to compare the concept with.",
)


@dataclass(frozen=True)
class Cell:
    """The two sides of a comparison, for every class of a layer.

    Attributes:
        concept, against, kind: as in the `scores` table.
        cavs: rows of the `cavs` table, by run.
        null: rows of the random-against-random CAVs of the same kind and profile, in the order of `null_pairs`.
        concept_rows, other_rows: rows of the pool, for the concept effect.
        paired: `other_rows[i]` is the twin of `concept_rows[i]`.
    """

    concept: str
    against: str
    kind: str
    cavs: Rows
    null: Rows
    concept_rows: Rows
    other_rows: Rows
    paired: bool


@dataclass(frozen=True)
class ClassGradients:
    """The gradients of a class's logit.

    Attributes:
        name: of the class.
        vectors, videos: gradients at the class's own clips, [n, d], and the clips' source videos. Sign counts use them.
        for_effect: the same at the clips that `scores.gradients_at` names, for the concept effect; None: the class's
            own clips.
    """

    name: str
    vectors: NDArray[np.float32]
    videos: Sequence[str]
    for_effect: tuple[NDArray[np.float32], Sequence[str]] | None = None


@dataclass(frozen=True)
class LayerData:
    """One layer's tables as arrays.

    Attributes:
        pool: the clips of the activations, with `vectors_ND`.
        clip_ids: of the pool's rows.
        jobs: the job of each row of the CAV arrays.
        cavs_Md: unit vectors; NaN: not trained.
        held_out_M: held-out accuracies.
        reasons_M: why a CAV could not be trained, or an empty string. An empty sequence: all were trained.
    """

    pool: Pool
    clip_ids: Sequence[str]
    vectors_ND: NDArray[np.float32]
    jobs: Sequence[CavJob]
    cavs_Md: NDArray[np.float32]
    held_out_M: NDArray[np.float64]
    classes: Sequence[ClassGradients]
    reasons_M: Sequence[str] = ()


@dataclass(frozen=True)
class ScoreOptions:
    """Options of the statistics; see `ScoresConfig`. `device`: where to multiply."""

    bootstrap: int
    permutations: int
    seed: int
    device: str | torch.device = "cpu"


def find_cells(pool: Pool, clip_ids: Sequence[str], jobs: Sequence[CavJob]) -> list[Cell]:
    """Return the cells that `jobs` belong to, in the order of their first job."""
    runs: dict[tuple[str, str], list[int]] = {}
    nulls: dict[tuple[str, Profile], list[int]] = {}
    profile_of: dict[str, Profile] = {}
    for i, job in enumerate(jobs):
        if job.is_null:
            nulls.setdefault((job.kind, job.profile), []).append(i)
            continue
        runs.setdefault((job.concept, job.against), []).append(i)
        if job.against == RANDOM:
            profile_of[job.concept] = job.profile
    concepts = {name: np.concatenate(list(v.values())) for name, v in pool.rows("concept").items()}
    randoms = {name: np.concatenate(list(v.values())) for name, v in pool.rows(RANDOM).items()}
    cells = []
    for (concept, against), members in runs.items():
        kind = jobs[members[0]].kind
        own = concepts[concept]
        paired = against in concepts
        if paired:
            own, other = _twins(clip_ids, own, concepts[against], concept, against)
        elif against == RANDOM:
            other = randoms[f"{RANDOM}/{kind}"]
        else:
            other = _rest(pool, jobs, concept, kind, concepts)
        members.sort(key=lambda i: jobs[i].run)
        null = sorted(nulls.get((kind, profile_of[concept]), []), key=lambda i: jobs[i].run)
        cells.append(Cell(concept, against, kind, np.array(members), np.array(null, np.int64), own, other, paired))
    return cells


def _twins(clip_ids: Sequence[str], own: Rows, other: Rows, concept: str, against: str) -> tuple[Rows, Rows]:
    """Return the rows of both sides cut from the same track at the same frames: their ids differ only in the kind."""
    twin_of = {clip_ids[i].removeprefix(f"concept/{against}/"): i for i in other}
    pairs = [(i, twin_of.get(clip_ids[i].removeprefix(f"concept/{concept}/"))) for i in own]
    both = [(i, j) for i, j in pairs if j is not None]
    return np.array([i for i, _ in both], np.int64), np.array([j for _, j in both], np.int64)


def _rest(pool: Pool, jobs: Sequence[CavJob], concept: str, kind: str, concepts: Mapping[str, Rows]) -> Rows:
    """Return the rows of the kind's other concepts, without the concept's own videos."""
    others = {job.concept for job in jobs if job.kind == kind and not job.is_null and job.concept != concept}
    own = {pool.video_id[i] for i in concepts[concept]}
    # One clip may belong to several concepts (the same track). In "rest" its video counts once, through the mean.
    return np.array([i for o in sorted(others) for i in concepts[o] if pool.video_id[i] not in own], np.int64)


class LayerScores(NamedTuple):
    """Rows of a layer for the tables `scores`, `sensitivities` and `nulls`.

    `cells` lacks the columns that need all layers (q and what follows from it). `nulls` has one row per row of `cells`,
    in the same order.
    """

    cells: list[dict[str, Any]]
    sensitivities: list[dict[str, Any]]
    nulls: list[dict[str, Any]]


def score_layer(data: LayerData, options: ScoreOptions) -> LayerScores:
    """Compute all rows of a layer."""
    cells = find_cells(data.pool, data.clip_ids, data.jobs)
    effects = _effects(cells, data, options)
    about_cavs = [_about_cavs(cell, data) for cell in cells]  # the same for every class
    rows: list[dict[str, Any]] = []
    sensitivities: list[dict[str, Any]] = []
    nulls: list[dict[str, Any]] = []
    for k, of_class in enumerate(data.classes):
        scored = score(
            of_class.vectors, data.cavs_Md, groups=of_class.videos, sensitivities=True, device=options.device
        )
        assert scored.sensitivities is not None, "asked for"
        degenerate = is_degenerate(of_class.vectors)
        about_class: dict[str, Any] = {
            "class": of_class.name,
            "degenerate": degenerate,
            "collinearity": collinearity(of_class.vectors),
            "n": scored.num_videos,
        }
        videos = sorted(set(of_class.videos))
        intervals = _intervals(cells, scored.sensitivities, options)
        counts_of: dict[bytes, list[int]] = {}  # cells of one kind and profile share the null of their scores
        for j, cell in enumerate(cells):
            s_VR = scored.sensitivities[:, cell.cavs]
            row = about_class | _score_figures(cell, scored.sign_count, degenerate) | intervals[j]
            row |= {
                "magnitude": _mean(scored.magnitude[cell.cavs]),
                "smooth": _mean(scored.smooth[cell.cavs]),
            }
            row |= about_cavs[j] | _effect_figures(effects[j][k])
            row["note"] = " ".join(x for x in (DEGENERATE * degenerate, row["note"], effects[j][k].reason) if x)
            rows.append(row)
            null = cell.null.tobytes()
            if null not in counts_of:
                counts_of[null] = score_counts(scored.sign_count[cell.null]).tolist()
            nulls.append(
                {
                    "class": of_class.name,
                    "concept": cell.concept,
                    "against": cell.against,
                    "effect_unit": effects[j][k].null_unit,
                    "effect_counts": effects[j][k].null_counts,
                    "score_counts": counts_of[null],
                }
            )
            if cell.against == RANDOM:
                sensitivities += [
                    {"class": of_class.name, "concept": cell.concept, "video_id": v, "sensitivity": s, "positive": p}
                    for v, s, p in zip(videos, s_VR.mean(axis=1), (s_VR > 0).mean(axis=1), strict=True)
                ]
    return LayerScores(rows, sensitivities, nulls)


def _intervals(cells: Sequence[Cell], s_VM: NDArray[np.float32], options: ScoreOptions) -> list[dict[str, float]]:
    """Return the score's interval of each cell. Cells of equal R share one call, and with it the resampling weights."""
    found: list[dict[str, float]] = [{}] * len(cells)
    for runs in {len(cell.cavs) for cell in cells}:
        members = [j for j, cell in enumerate(cells) if len(cell.cavs) == runs]
        columns = np.concatenate([cells[j].cavs for j in members])
        low, high = score_intervals(
            s_VM[:, columns], runs, bootstrap=options.bootstrap, seed=options.seed, device=options.device
        )
        for place, j in enumerate(members):
            found[j] = {"ci_low": float(low[place]), "ci_high": float(high[place])}
    return found


def _score_figures(cell: Cell, sign_count_M: NDArray[np.float64], degenerate: bool) -> dict[str, Any]:
    """Return the sign count with null and test. In a degenerate layer it has no test: it is 0 or 1 for any CAV."""
    runs, null = sign_count_M[cell.cavs], sign_count_M[cell.null]
    figures: dict[str, Any] = {"score": _mean(runs), "R": len(runs), "p": np.nan, "effect": np.nan}
    figures |= {"null_mean": _mean(null), "null_sd": float(np.nanstd(null, ddof=1)) if len(null) > 1 else np.nan}
    complete = bool(np.isfinite(runs).all() and np.isfinite(null).all())
    if degenerate or not complete or len(runs) < 2 or not len(null):
        return figures
    if cell.against == RANDOM:
        test = round_robin_test(runs, null)
    else:  # these runs do not face the random sets: compare their mean with scores of disjoint random pairs
        test = empirical_test(runs, null[_disjoint_pairs(len(null))])
    return figures | {"p": float(test.p[0]), "effect": float(test.effect[0])}


def _disjoint_pairs(num_pairs: int) -> Rows:
    """Return the indices of (0, 1), (2, 3), ... among all pairs of R sets: no set is in two of them."""
    num_sets = _num_sets(num_pairs)
    first = np.arange(0, num_sets - 1, 2)
    return first * num_sets - first * (first + 1) // 2


def _num_sets(num_pairs: int) -> int:
    """Return R, from R (R - 1) / 2 pairs."""
    return round((1 + np.sqrt(1 + 8 * num_pairs)) / 2) if num_pairs else 0


def _about_cavs(cell: Cell, data: LayerData) -> dict[str, Any]:
    gate = learnability(data.held_out_M[cell.cavs], _means_by_set(data.held_out_M[cell.null]))
    return {
        "concept": cell.concept,
        "kind": cell.kind,
        "against": cell.against,
        "learnable": gate.learnable,
        "held_out_accuracy": gate.accuracy,
        "null_accuracy": gate.null_accuracy,
        "stability": mean_pairwise_cosine(data.cavs_Md[cell.cavs]),
        "note": " ".join(x for x in (_untrained(cell, data.reasons_M), gate.reason) if x),
    }


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


def _means_by_set(null_P: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each random set's mean held-out accuracy against all others, which a concept's own mean has to exceed.

    A mean of R runs is compared with means of R - 1 runs of the same kind, not with single runs, which vary far more.
    """
    left, right = null_pairs(_num_sets(len(null_P))).T if len(null_P) else np.empty((2, 0), np.int64)
    sets = np.arange(_num_sets(len(null_P)))
    return np.array([np.nanmean(null_P[(left == i) | (right == i)]) for i in sets if np.isfinite(null_P).any()])


def _effects(cells: Sequence[Cell], data: LayerData, options: ScoreOptions) -> list[list[ConceptEffect]]:
    """Return the concept effects, [J][K]. Cells of one form go in one batch, so that they share every inner product."""
    found: list[list[ConceptEffect]] = [[] for _ in cells]
    taken_at = [c.for_effect or (c.vectors, c.videos) for c in data.classes]
    for paired in (False, True):
        members = [j for j, cell in enumerate(cells) if cell.paired == paired and len(cell.other_rows)]
        if not members:
            continue
        compute = paired_concept_effects if paired else concept_effects
        batch = compute(
            [vectors for vectors, _ in taken_at],
            data.vectors_ND,
            [cells[j].concept_rows for j in members],
            [cells[j].other_rows for j in members],
            groups=data.pool.video_id,
            class_groups=[videos for _, videos in taken_at],
            permutations=options.permutations,
            bootstrap=options.bootstrap,
            seed=options.seed,
            device=options.device,
        )
        for place, j in enumerate(members):
            found[j] = [batch.cell(k, place) for k in range(len(data.classes))]
    return [cells_of or [NO_EFFECT] * len(data.classes) for cells_of in found]


def _effect_figures(effect: ConceptEffect) -> dict[str, Any]:
    return {
        "effect_logits": effect.effect,
        "effect_ci_low": effect.ci_low,
        "effect_ci_high": effect.ci_high,
        "effect_null_sd": effect.null_sd,
        "effect_z": effect.z,
        "effect_p": effect.p,
        "n_concept": effect.n_concept,
        "n_random": effect.n_random,
    }


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")
