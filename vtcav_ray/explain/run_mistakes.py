"""The table of mistakes of a run: see `vtcav_ray.explain.mistakes` for the test.

Legend: V class examples, C cells (concept and layer), K classes with effects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vtcav_ray.clips.classes import normal_label
from vtcav_ray.clips.usable import read_left_out
from vtcav_ray.explain.concepts import RunConcepts
from vtcav_ray.explain.mistakes import MistakeTests, mistake_tests, pushes_to_rival
from vtcav_ray.explain.pushes import presence
from vtcav_ray.explain.subjects import Answers, read_answers
from vtcav_ray.rows import MistakeRow, table_of
from vtcav_ray.runs.run import Run
from vtcav_ray.store.vectors import vectors_of
from vtcav_ray.tcav.arrays import video_means


@dataclass(frozen=True)
class Examples:
    """The class examples that the test uses: those whose true class and answer both have effects.

    Attributes:
        videos: their ids, sorted, [V].
        classes: the K classes.
        truth, rival: index of each video's true class, and of the likeliest other one, [V].
        mistaken: whether the answer is wrong, [V].
        answers: of each video.
    """

    videos: Sequence[str]
    classes: Sequence[str]
    truth: NDArray[np.int64]
    rival: NDArray[np.int64]
    mistaken: NDArray[np.bool_]
    answers: Sequence[Answers]


def mistakes_of_run(run: Run) -> pa.Table:
    """Return the table `mistakes` of a run with finished CAVs: rows of `tables.MISTAKES`, the first rank first.

    It has no rows if no class example with effects is misclassified.

    Raises:
        ConfigError: the run has not reached its CAVs, or its activations are of an older version.
    """
    examples = read_examples(run)
    if not examples.mistaken.any():
        return table_of([], MistakeRow)
    concepts = RunConcepts.of(run)
    presences, pushes = [], []
    for number, layer in enumerate(concepts.layers):
        presence_VJ, effects_JK = _layer(concepts, layer, examples.videos, examples.classes)
        gain = float(np.median([answer.gains[number] for answer in examples.answers]))
        presences.append(presence_VJ)
        pushes.append(pushes_to_rival(presence_VJ, gain * effects_JK, examples.truth, examples.rival))
    config = run.config
    tested = mistake_tests(
        np.concatenate(pushes, axis=1),
        examples.mistaken,
        [examples.classes[k] for k in examples.truth],
        permutations=config.scores.permutations,
        seed=config.seed,
    )
    cells = [(clips.concept, layer) for layer in concepts.layers for clips in concepts.concepts]
    return _table(cells, tested, np.concatenate(presences, axis=1), examples.mistaken, config.scores.alpha)


def read_examples(run: Run) -> Examples:
    """Read the class examples of a run that the test uses. Clips that are left out are not among them."""
    left_out = set(read_left_out(run.stage("cavs")))
    answers = {video: one for video, one in sorted(read_answers(run).items()) if not left_out & set(one.clip_ids)}
    classes = _classes_with_gradients(run)
    index = {normal_label(name): k for k, name in enumerate(classes)}
    videos, truth, rival, mistaken, used = [], [], [], [], []
    for video, one in answers.items():
        own = index.get(normal_label(one.label))
        order = [index.get(normal_label(one.classes[int(k)])) for k in np.argsort(-one.logits, kind="stable")]
        others = [k for k in order if k is not None and k != own]
        if own is None or order[0] is None or not others:
            continue  # there is no effect on its true class, on the answer, or on any other class
        videos.append(video)
        truth.append(own)
        rival.append(others[0])
        mistaken.append(order[0] != own)
        used.append(one)
    return Examples(
        videos, classes, np.array(truth, np.int64), np.array(rival, np.int64), np.array(mistaken, bool), used
    )


def _classes_with_gradients(run: Run) -> list[str]:
    rows = run.table("gradients", columns=("class", "reference"), layer=run.config.activations.layers[0])
    if run.config.scores.gradients_at == "reference":
        rows = rows.filter(rows["reference"])
    return sorted(set(rows["class"].to_pylist()))


def _layer(
    concepts: RunConcepts, layer: str, videos: Sequence[str], classes: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the presence of the J concepts in each video, [V, J], and their effects on each class, [J, K]."""
    pool = concepts.layer(layer)
    effects_JK = pool.directions @ concepts.mean_gradients(layer, classes).T
    rows = concepts.activations.read("activations", columns=("video_id", "set", "vector"), layer=layer)
    assert rows is not None, "the layer was read just now"
    wanted = set(videos)
    columns = zip(rows["video_id"].to_pylist(), rows["set"].to_pylist(), strict=True)
    keep = [i for i, (video, role) in enumerate(columns) if role == "class" and video in wanted]
    taken = rows.take(pa.array(keep, pa.int64()))
    vectors_VD = video_means(vectors_of(taken), taken["video_id"].to_pylist())  # in the order of their sorted ids
    values_VJ = vectors_VD @ pool.directions.T
    found = [presence(values_VJ[:, j], random) for j, random in enumerate(pool.random)]
    return np.stack(found, axis=1), effects_JK


def _table(
    cells: Sequence[tuple[str, str]],
    tested: MistakeTests,
    presence_VC: NDArray[np.float64],
    mistaken_V: NDArray[np.bool_],
    alpha: float,
) -> pa.Table:
    present, correct = (
        presence_VC[some].mean(axis=0) if some.any() else np.full(len(cells), np.nan)
        for some in (mistaken_V, ~mistaken_V)
    )
    rows = []
    for rank, c in enumerate(tested.ranking(), 1):
        concept, layer = cells[c]
        rows.append(
            MistakeRow(
                rank=rank,
                concept=concept,
                layer=layer,
                push=float(tested.push[c]),
                push_correct=float(tested.push_correct[c]),
                difference=float(tested.difference[c]),
                presence=float(present[c]),
                presence_correct=float(correct[c]),
                p=float(tested.p[c]),
                q=float(tested.q[c]),
                significant=bool(tested.q[c] < alpha and tested.difference[c] > 0),
                n_mistakes=tested.num_mistakes,
                n_correct=tested.num_correct,
                note=tested.note[c],
            )
        )
    return table_of(rows, MistakeRow)
