"""Compare runs cell by cell: the change of each cell that both runs have."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from vtcav_ray.cavs.pool import POOL_COLUMNS, pool_of
from vtcav_ray.cavs.stage import left_out_labels, matching_of, read_plan
from vtcav_ray.clips.classes import same_class
from vtcav_ray.clips.usable import AcceptedRows, read_left_out
from vtcav_ray.compare.differences import Change, LayerVectors, effect_changes, independent_change, score_change
from vtcav_ray.errors import ConfigError
from vtcav_ray.runs.run import Run
from vtcav_ray.scores.cells import Cell, find_cells, without_class
from vtcav_ray.scores.correction import permutations_warning
from vtcav_ray.scores.responses import ReadResponses, filled
from vtcav_ray.stages import ANSWER
from vtcav_ray.store.vectors import vectors_of
from vtcav_ray.tables import CELL_KEY, EFFECT
from vtcav_ray.tcav.responses import unit_gradients
from vtcav_ray.tcav.significance import adjust

COMPARISON = pa.schema(
    [
        ("run_a", pa.string()),
        ("run_b", pa.string()),
        ("model_a", pa.string()),
        ("model_b", pa.string()),
        ("class", pa.string()),
        ("layer", pa.string()),
        ("concept", pa.string()),
        ("against", pa.string()),
        ("effect_a", pa.float64()),  # logits
        ("effect_b", pa.float64()),
        ("change", pa.float64()),  # effect_b - effect_a
        ("ci_low", pa.float64()),  # 95 % interval of the change
        ("ci_high", pa.float64()),
        ("p", pa.float64()),  # two-sided; paired: permutation over source videos
        ("q", pa.float64()),  # over all compared cells, with run_a's correction (step_down: Holm)
        ("moved", pa.bool_()),  # q below run_a's alpha
        ("paired", pa.bool_()),  # both on the same videos and clips
        ("learnable", pa.bool_()),  # in at least one of the two runs; true: `answer`
        ("tcav_score_a", pa.float64()),  # TCAV score
        ("tcav_score_b", pa.float64()),
        ("tcav_score_change", pa.float64()),  # paired by video if the videos are the same
        ("tcav_ci_low", pa.float64()),
        ("tcav_ci_high", pa.float64()),
    ]
)
ScoreRows = dict[tuple[str, ...], dict[str, Any]]


def compare_runs(runs: Sequence[Run]) -> pa.Table:
    """Compare each run with the one before it, cell by cell, and return rows of `COMPARISON`.

    If two runs have the same clips (another checkpoint, the same videos), the change is estimated and tested on pairs
    of the same video. Otherwise the two estimates are treated as independent, and `paired` is false.

    Raises:
        ConfigError: fewer than two runs, a run without scores, or no cell that two runs share.
    """
    if len(runs) < 2:
        raise ConfigError("One run can't be compared with itself: name two runs or more.")
    rows = [row for a, b in itertools.pairwise(runs) for row in _pair(a, b)]
    settings = runs[0].config.scores
    q = adjust(np.array([row["p"] for row in rows]), settings.per_cell_correction)
    for row, corrected in zip(rows, q, strict=True):
        row["q"] = float(corrected)
        row["moved"] = bool(corrected < settings.alpha)
    return pa.Table.from_pylist(rows, schema=COMPARISON)


def comparison_warning(runs: Sequence[Run], comparison: pa.Table) -> str | None:
    """Return a warning if the first run's permutations are too few for any paired change to be called; None: enough."""
    settings = runs[0].config.scores
    tested = [row["paired"] for row in comparison.select(["paired", "p"]).to_pylist() if np.isfinite(row["p"])]
    if settings.per_cell_correction != "holm" or not any(tested):
        return None
    sentence = permutations_warning(settings, len(tested), "comparisons")
    return None if sentence is None else f"In {runs[0].url}, {sentence}"


def _pair(a: Run, b: Run) -> list[dict[str, Any]]:
    kinds = [run.config.scores.effect for run in (a, b)]
    if kinds[0] != kinds[1]:
        raise ConfigError(
            f"The effects of {a.url} are {kinds[0]}, and those of {b.url} are {kinds[1]}: they have other units. Run "
            "one of them with the scores.effect of the other."
        )
    cells_a, cells_b = _cells(a), _cells(b)
    common = [key for key in cells_a if key in cells_b]
    if not common:
        raise ConfigError(
            f"{a.url} and {b.url} share no comparison (class, layer, concept, against). Runs can be compared when "
            "their concepts and layers have the same names."
        )
    changes: dict[tuple[str, ...], Change] = {}
    for layer in dict.fromkeys(key[1] for key in common if key[1] != ANSWER):
        changes |= _paired_layer(a, b, layer)
    positive_a, positive_b = _positive_shares(a), _positive_shares(b)
    rows = []
    for key in common:
        left, right = cells_a[key], cells_b[key]
        change = changes.get(key) or independent_change(_interval(left), _interval(right))
        videos = (positive_a.get(key[:3], {}), positive_b.get(key[:3], {})) if key[3] == "random" else ({}, {})
        score = score_change(*videos)
        rows.append(
            {
                **dict(zip(CELL_KEY, key, strict=True)),
                "run_a": a.url,
                "run_b": b.url,
                "model_a": left["model"],
                "model_b": right["model"],
                "effect_a": left["effect"],
                "effect_b": right["effect"],
                "change": change.change,
                "ci_low": change.ci_low,
                "ci_high": change.ci_high,
                "p": change.p,
                "paired": change.paired,
                "learnable": any(row["learnable"] is not False for row in (left, right)),
                "tcav_score_a": left["tcav_score"],
                "tcav_score_b": right["tcav_score"],
                "tcav_score_change": score.change,
                "tcav_ci_low": score.ci_low,
                "tcav_ci_high": score.ci_high,
            }
        )
    return rows


def _cells(run: Run) -> ScoreRows:
    rows = run.table("scores").to_pylist()
    if not rows:
        raise ConfigError(f"{run.url} has no scores to compare. Complete the run first.")
    return {tuple(row[name] for name in CELL_KEY): row for row in rows}


def _interval(row: dict[str, Any]) -> tuple[float, float, float]:
    return tuple(np.nan if row[n] is None else row[n] for n in EFFECT)  # type: ignore[return-value]


def _paired_layer(a: Run, b: Run, layer: str) -> dict[tuple[str, ...], Change]:
    """Return the changes of a layer's cells on the same clips; empty if the two runs' clips differ."""
    if a.config.scores.effect == "patch":
        return _paired_responses(a, b, layer)
    left, right = _side(a, layer), _side(b, layer)
    if left is None or right is None or left[1] != right[1] or left[2] != right[2]:
        return {}
    if _labels(a) != _labels(b):
        return {}  # they compare other clips
    settings, cells = a.config.scores, _layer_cells(a, layer)
    videos = [video for _, video in left[1]]
    labels_N = left_out_labels(a.stage("clips"), videos, a.config)
    found: dict[tuple[str, int], Change] = {}
    for names in [list(left[0].gradients)] if labels_N is None else [[name] for name in left[0].gradients]:
        some = LayerVectors(left[0].vectors_ND, {name: left[0].gradients[name] for name in names})
        found |= effect_changes(
            some,
            right[0],
            cells if labels_N is None else [without_class(cell, labels_N, names[0]) for cell in cells],
            pool_videos=videos,
            class_videos={name: [video for _, video in clips] for name, clips in left[2].items()},
            permutations=settings.permutations,
            bootstrap=settings.bootstrap,
            seed=a.config.seed,
        )
    return {(name, layer, cells[j].concept, cells[j].against): change for (name, j), change in found.items()}


def _paired_responses(a: Run, b: Run, layer: str) -> dict[tuple[str, ...], Change]:
    """Return the changes of patch effects on the same clips and reference clips; empty if these differ.

    A class's responses stand for the activations, and unit vectors for the gradients (`vtcav_ray.tcav.responses`).
    """
    sides = [_response_side(run, layer) for run in (a, b)]
    (pool, left, references, there), (other_pool, right, other_references, other_there) = sides
    if pool != other_pool or references != other_references:
        return {}
    settings, both_N = a.config.scores, there & other_there
    cells = [cell.among(both_N) for cell in _layer_cells(a, layer)]
    found: dict[tuple[str, ...], Change] = {}
    for name in left.keys() & right.keys():
        if {left[name].shape[1], right[name].shape[1]} != {len(references)}:  # a reference clip could not be decoded
            return {}
        units = {name: unit_gradients(len(references))}
        changes = effect_changes(
            LayerVectors(filled(left[name], both_N), units),
            LayerVectors(filled(right[name], both_N), units),
            cells,
            pool_videos=[video for _, video in pool],
            class_videos={name: references},
            permutations=settings.permutations,
            bootstrap=settings.bootstrap,
            seed=a.config.seed,
        )
        found |= {(name, layer, cells[j].concept, cells[j].against): change for (_, j), change in changes.items()}
    return found


def _response_side(run: Run, layer: str) -> tuple[Clips, dict[str, np.ndarray], list[str], np.ndarray]:
    """Return a run's pool at a layer, class -> responses, the reference videos, and which clips have responses."""
    stage = _accepted(run)
    pool = stage.read("activations", columns=("clip_id", "video_id"), layer=layer)
    gradients = stage.read("gradients", columns=("clip_id", "video_id", "class", "reference"), layer=layer)
    assert pool is not None, "the run has scores of this layer"
    assert gradients is not None, "the run has scores of this layer"
    clips = list(zip(pool["clip_id"].to_pylist(), pool["video_id"].to_pylist(), strict=True))
    ids = [clip for clip, _ in clips]
    read = ReadResponses(run.stage("responses"), stage, run.config)
    names = sorted(set(run.table("scores", columns=["class"])["class"].to_pylist()))
    videos = sorted(set(gradients.filter(gradients["reference"])["video_id"].to_pylist()))
    return clips, read.of_classes(layer, ids, gradients, names), videos, read.there(ids)


def _labels(run: Run) -> dict[str, str]:
    """Return which labels a run's concept and random clips have."""
    clips = run.config.clips
    return {"random_labels": clips.random_labels, "concept_labels": clips.concept_labels}


Clips = list[tuple[str, str]]  # (clip_id, video_id)


def _side(run: Run, layer: str) -> tuple[LayerVectors, Clips, dict[str, Clips]] | None:
    """Return a run's activations and gradients at a layer, with the clips they belong to; None: some are missing.

    The gradients are those of the run's own effects: see `scores.gradients_at`.
    """
    stage, taken_at = _accepted(run), run.config.scores.gradients_at
    pool = stage.read("activations", columns=("clip_id", "name", "video_id", "vector"), layer=layer)
    marks = ("reference",) if taken_at == "reference" else ()  # older runs lack the column
    gradients = stage.read("gradients", columns=("clip_id", "video_id", "class", *marks, "gain", "vector"), layer=layer)
    if pool is None or gradients is None:
        return None
    clips = list(zip(pool["clip_id"].to_pylist(), pool["video_id"].to_pylist(), strict=True))
    own = dict(zip(pool["clip_id"].to_pylist(), pool["name"].to_pylist(), strict=True))
    vectors = (vectors_of(gradients) * np.asarray(gradients["gain"])[:, None]).astype(np.float32)  # as in `scores`
    rows: dict[str, list[int]] = {}
    of_class: dict[str, Clips] = {}
    columns = (gradients[name].to_pylist() for name in ("class", "clip_id", "video_id"))
    referenced = gradients["reference"].to_pylist() if marks else [taken_at == "all"] * gradients.num_rows
    for i, (name, clip, video) in enumerate(zip(*columns, strict=True)):
        if referenced[i] or (taken_at == "own" and same_class(own.get(clip, ""), name)):
            rows.setdefault(name, []).append(i)
            of_class.setdefault(name, []).append((clip, video))
    return LayerVectors(vectors_of(pool), {name: vectors[some] for name, some in rows.items()}), clips, of_class


def _accepted(run: Run) -> AcceptedRows:
    """Return the run's activations without clips that a person rejected or that repeat another."""
    return AcceptedRows.of(run.stage("activations"), read_left_out(run.stage("cavs")))


def _layer_cells(run: Run, layer: str) -> list[Cell]:
    stage = _accepted(run)
    names = stage.read("activations", columns=("clip_id", *POOL_COLUMNS), layer=layer)
    assert names is not None, "the layer was read before"
    matching = matching_of(run.stage("clips"), run.config)
    jobs = read_plan(stage, layer, run.config, matching).jobs
    return find_cells(pool_of(names, matching), names["clip_id"].to_pylist(), jobs)


def _positive_shares(run: Run) -> dict[tuple[str, ...], dict[str, float]]:
    """Return (class, layer, concept) -> video -> share of CAVs against random sets with a positive sensitivity."""
    columns = ("class", "layer", "concept", "video_id", "positive")
    table = run.stage("scores").read("sensitivities", columns=columns)
    found: dict[tuple[str, ...], dict[str, float]] = {}
    if table is not None:
        for name, layer, concept, video, positive in zip(*(table[c].to_pylist() for c in columns), strict=True):
            found.setdefault((name, layer, concept), {})[video] = positive
    return found
