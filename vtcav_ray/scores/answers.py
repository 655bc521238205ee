"""The row `answer` beside the layers: what the model answers to the concept's clips, and to the other side's.

The forward pass gave every clip's logits. So the vectors of this "layer" are the clips' values of each class, and the
gradient of class k is the k-th unit vector: the concept effect is then the difference of the mean values itself, at
gain 1, and every test, interval and margin of the layers applies as it is. No gradient is taken and no CAV is trained,
so cells have no TCAV score. The values are those of `activations.target`, in logits.

Legend: N rows of the pool, K classes of the run, M classes of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from vtcav_ray.activations.targets import Target, target_values
from vtcav_ray.cavs.plan import CavJob, Pool
from vtcav_ray.clips.classes import same_class
from vtcav_ray.errors import StageError
from vtcav_ray.rows import NullRow, ScoreRow
from vtcav_ray.scores.cells import Cell, find_cells, without_class
from vtcav_ray.scores.layer import all_effects, as_sentence, margin_of, null_row
from vtcav_ray.scores.layer_data import ClassGradients, LayerClips, ScoreOptions
from vtcav_ray.stages import ANSWER
from vtcav_ray.tables import classes_of
from vtcav_ray.tcav.arrays import video_means
from vtcav_ray.tcav.effect import ConceptEffect
from vtcav_ray.tcav.gains import margin


@dataclass(frozen=True)
class Answers:
    """The model's answers to the clips of a pool.

    Attributes:
        clips: with the values of K classes as vectors, and unit vectors as gradients.
        probabilities_NK: of these classes, among all M.
        num_videos_K: source videos of each class's own clips.
    """

    clips: LayerClips
    probabilities_NK: NDArray[np.float64]
    num_videos_K: Sequence[int]

    @classmethod
    def of(
        cls,
        table: pa.Table,
        names: Sequence[str],
        *,
        model: str,
        pool: Pool,
        clip_ids: Sequence[str],
        target: Target = "logit",
        there_N: NDArray[np.bool_] | None = None,
    ) -> Answers:
        """Take the answers to a pool's clips.

        Args:
            table: rows of `answers`, of these clips or more.
            names: the K classes.
            model, pool, clip_ids, there_N: as for `LayerClips`.
            target: as in the config.

        Raises:
            StageError: a class is not one of the model's, or a clip has no answer or one that is not finite.
        """
        classes = classes_of(table)
        if unknown := [name for name in names if name not in classes]:
            raise StageError(f"The model has no class {unknown[0]!r}, and the table `answers` no logit of it.")
        logits_NM = _logits(table, clip_ids)
        places = [classes.index(name) for name in names]
        values_NK = _targets(logits_NM, places, target)
        shifted = np.exp(logits_NM - logits_NM.max(axis=1, keepdims=True))
        found, videos_K = [], []
        for k, (name, place) in enumerate(zip(names, places, strict=True)):
            own = [i for i, s in enumerate(pool.set) if s == "class" and same_class(pool.name[i], name)]
            others = np.delete(logits_NM[own], place, axis=1)
            # No class video behind the gradient varies. Two equal ones, since one has no interval.
            gradients = np.tile(np.eye(len(names), dtype=np.float32)[k], (2, 1))
            videos_K.append(len({pool.video_id[i] for i in own}))
            found.append(
                ClassGradients(
                    name,
                    gradients,
                    ["0", "1"],
                    margin=margin(logits_NM[own, place] - others.max(axis=1)) if others.size else float("nan"),
                )
            )
        clips = LayerClips(ANSWER, model, pool, clip_ids, values_NK, found, there_N=there_N)
        return cls(clips, (shifted / shifted.sum(axis=1, keepdims=True))[:, places], videos_K)


def _logits(table: pa.Table, clip_ids: Sequence[str]) -> NDArray[np.float64]:
    """Return the logits of the clips, [N, M].

    Raises:
        StageError: a clip has none, or they are not finite.
    """
    row_of = {clip: i for i, clip in enumerate(table["clip_id"].to_pylist())}
    if missing := [clip for clip in clip_ids if clip not in row_of]:
        raise StageError(f"The clip {missing[0]} has activations and no answer. Run again: both will be computed.")
    rows = table["logits"].combine_chunks()
    every = rows.flatten().to_numpy(zero_copy_only=False).astype(np.float64).reshape(len(rows), -1)
    found = every[[row_of[clip] for clip in clip_ids]]
    if (bad := ~np.isfinite(found).all(axis=1)).any():
        raise StageError(f"The logits of the clip {clip_ids[int(bad.argmax())]} are NaN or infinite. Run again.")
    return found


def _targets(logits_NM: NDArray[np.float64], places: Sequence[int], target: Target) -> NDArray[np.float32]:
    """Return the target of each class at each clip, [N, K]."""
    logits = torch.from_numpy(logits_NM)
    columns = [target_values(logits, torch.full((len(logits),), place), target).numpy() for place in places]
    return np.stack(columns, axis=1).astype(np.float32)


def score_answers(
    answers: Answers, jobs: Sequence[CavJob], options: ScoreOptions, classes: Sequence[str]
) -> tuple[list[ScoreRow], list[NullRow]]:
    """Compute the rows of some classes, without the tests, which need all layers together.

    Args:
        answers: of the pool.
        jobs: of a layer's CAVs; they say what is compared with what.
        options: of the statistics.
        classes: names of the classes.
    """
    clips = answers.clips
    wanted = [k for k, one in enumerate(clips.classes) if one.name in set(classes)]
    some = LayerClips(
        clips.layer,
        clips.model,
        clips.pool,
        clips.clip_ids,
        clips.vectors_ND,
        [clips.classes[k] for k in wanted],
        there_N=clips.there_N,
    )
    cells = find_cells(clips.pool, clips.clip_ids, jobs)
    effects = all_effects(cells, some, options)
    rows: list[ScoreRow] = []
    nulls: list[NullRow] = []
    for place, k in enumerate(wanted):
        one, class_margin = clips.classes[k], margin_of(clips.classes[k], clips)
        for j, cell in enumerate(cells):
            compared = cell.among(clips.there_N)
            if options.labels_N is not None:
                compared = without_class(compared, options.labels_N, one.name)
            change = _mean_difference(answers.probabilities_NK[:, k], compared, clips.pool.video_id)
            about = (clips.model, answers.num_videos_K[k], class_margin, change)
            rows.append(_row(cell, one, effects[j][place], *about))
            nulls.append(null_row(ANSWER, cell, one.name, []))
    return rows, nulls


def _mean_difference(values_N: NDArray[np.float64], cell: Cell, videos: Sequence[str]) -> float:
    """Return the mean of the concept's source videos minus that of the other side's; NaN: a side has none."""
    means = []
    for rows in (cell.concept_rows, cell.other_rows):
        # The twins of a pair are grouped by the video of the concept's clip, which is their own.
        of = [videos[i] for i in rows]
        means.append(float(video_means(values_N[rows, None], of).mean()) if len(rows) else float("nan"))
    return means[0] - means[1]


def _row(
    cell: Cell,
    one: ClassGradients,
    effect: ConceptEffect,
    model: str,
    num_videos: int,
    class_margin: float,
    probability_change: float,
) -> ScoreRow:
    return ScoreRow(
        class_=one.name,
        layer=ANSWER,
        concept=cell.concept,
        against=cell.against,
        kind=cell.kind,
        effect=effect.effect,
        ci_low=effect.ci_low,
        ci_high=effect.ci_high,
        null_sd=effect.null_sd,
        z=effect.z,
        share_of_margin=effect.effect / one.margin,
        probability_change=probability_change,
        class_margin=class_margin,
        gain=one.gain,
        n=num_videos,
        R=0,
        n_concept=effect.n_concept,
        n_random=effect.n_random,
        degenerate=False,
        model=model,
        note=" ".join(filter(None, (as_sentence(cell.mark), as_sentence(effect.reason)))),
    )
