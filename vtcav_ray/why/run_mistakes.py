"""The table of mistakes of a run: see `vtcav_ray.why.mistakes` for the test.

Legend: V class examples, C cells (concept and layer), K classes with effects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vtcav_ray.clips.usable import read_left_out
from vtcav_ray.rows import MistakeRow, table_of
from vtcav_ray.runs.run import Run
from vtcav_ray.store.vectors import vectors_of
from vtcav_ray.tcav.arrays import video_means
from vtcav_ray.text.label_sets import split_labels
from vtcav_ray.text.name_lists import NameIndex
from vtcav_ray.why.concepts import RunConcepts
from vtcav_ray.why.pushes import presence
from vtcav_ray.why.subjects import Answers, read_answers

if TYPE_CHECKING:
    from vtcav_ray.why.mistakes import MistakeTests

# The arrangements of the direction's test are fewer in a run with so many concepts and classes that it would take long.
MOST_NUMBERS = 1 << 37  # products over all cells: about a minute of one core
FEWEST = 2000


@dataclass(frozen=True)
class Examples:
    """The class examples that the test uses: those whose true class and answer both have effects.

    Attributes:
        videos: their ids, sorted, [V].
        classes: the K classes.
        truth, rival: index of the class that each video is an example of, and of the likeliest class that is none of
            its labels, [V].
        mistaken: whether the answer is none of its labels, [V].
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
    from vtcav_ray.why.mistakes import mistake_tests

    concepts = RunConcepts.of(run)
    config = run.config
    cells = len(concepts.layers) * len(concepts.concepts)
    layers = [_layer(concepts, number, examples, cells) for number in range(len(concepts.layers))]
    tested = mistake_tests(
        np.concatenate([one.pushes for one in layers], axis=1),
        examples.mistaken,
        [examples.classes[k] for k in examples.truth],
        np.concatenate([one.p_direction for one in layers]),
        permutations=config.scores.permutations,
        seed=config.seed,
    )
    names = [(clips.concept, layer) for layer in concepts.layers for clips in concepts.concepts]
    present = np.concatenate([one.presence for one in layers], axis=1)
    return _table(names, tested, present, examples.mistaken, config.scores.alpha)


def read_examples(run: Run) -> Examples:
    """Read the class examples of a run that the test uses. Clips that are left out are not among them."""
    left_out = set(read_left_out(run.stage("cavs")))
    answers = {video: one for video, one in sorted(read_answers(run).items()) if not left_out & set(one.clip_ids)}
    classes = _classes_with_gradients(run)
    index = NameIndex(classes)
    videos, truth, rival, mistaken, used = [], [], [], [], []
    for video, one in answers.items():
        own = index.place(one.label)
        true = {index.place(label) for label in split_labels(one.labels, index)}
        order = [index.place(one.classes[int(k)]) for k in np.argsort(-one.logits, kind="stable")]
        others = [k for k in order if k is not None and k not in true]
        if own is None or order[0] is None or not others:
            continue  # there is no effect on its true class, on the answer, or on any other class
        videos.append(video)
        truth.append(own)
        rival.append(others[0])
        mistaken.append(order[0] not in true)
        used.append(one)
    return Examples(
        videos, classes, np.array(truth, np.int64), np.array(rival, np.int64), np.array(mistaken, bool), used
    )


def _classes_with_gradients(run: Run) -> list[str]:
    rows = run.table("gradients", columns=("class", "reference"), layer=run.config.activations.layers[0])
    if run.config.scores.gradients_at == "reference":
        rows = rows.filter(rows["reference"])
    return sorted(set(rows["class"].to_pylist()))


class _Layer(NamedTuple):
    """The J concepts at one layer: their presence in each video and their pushes, [V, J], and p of the direction."""

    presence: NDArray[np.float64]
    pushes: NDArray[np.float64]
    p_direction: NDArray[np.float64]


def _layer(concepts: RunConcepts, number: int, examples: Examples, cells: int) -> _Layer:
    from vtcav_ray.why.mistakes import Margins, direction_p, pushes_to_rival

    config, layer = concepts.run.config, concepts.layers[number]
    pool = concepts.layer(layer)
    gain = float(np.median([answer.gains[number] for answer in examples.answers]))
    gradients_Kd = gain * concepts.mean_gradients(layer, examples.classes)
    vectors_Vd = _vectors(concepts, layer, examples.videos)
    margins = Margins.of(vectors_Vd, gradients_Kd, examples.truth, examples.rival, examples.mistaken)
    videos = np.asarray(concepts.videos)
    found: list[tuple[NDArray[np.float64], NDArray[np.float64], float]] = []
    for clips, v, random in zip(concepts.concepts, pool.directions, pool.random, strict=True):
        own, other = (video_means(pool.vectors[rows], videos[rows]) for rows in (clips.own, clips.random))
        size = len(margins.coefficients) * (len(own) + len(other)) * cells
        found.append(
            (
                presence(vectors_Vd @ v, random),
                pushes_to_rival(vectors_Vd, v, other.mean(axis=0), gradients_Kd, examples.truth, examples.rival),
                direction_p(
                    margins,
                    own,
                    other,
                    permutations=min(config.scores.permutations, max(FEWEST, MOST_NUMBERS // max(1, size))),
                    seed=config.seed,
                    paired=clips.paired,
                ),
            )
        )
    present, pushes, p = zip(*found, strict=True)
    return _Layer(np.stack(present, axis=1), np.stack(pushes, axis=1), np.array(p))


def _vectors(concepts: RunConcepts, layer: str, videos: Sequence[str]) -> NDArray[np.float64]:
    """Return the mean activation of each class example, [V, d], in the order of the (sorted) videos."""
    rows = concepts.activations.read("activations", columns=("video_id", "set", "vector"), layer=layer)
    assert rows is not None, "the layer was read just now"
    wanted = set(videos)
    columns = zip(rows["video_id"].to_pylist(), rows["set"].to_pylist(), strict=True)
    keep = [i for i, (video, role) in enumerate(columns) if role == "class" and video in wanted]
    taken = rows.take(pa.array(keep, pa.int64()))
    return video_means(vectors_of(taken), taken["video_id"].to_pylist())


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
                p_examples=float(tested.p_examples[c]),
                p_direction=float(tested.p_direction[c]),
                p=float(tested.p[c]),
                q=float(tested.q[c]),
                significant=bool(tested.q[c] < alpha and tested.difference[c] > 0),
                n_mistakes=tested.num_mistakes,
                n_correct=tested.num_correct,
                note=tested.note[c],
            )
        )
    return table_of(rows, MistakeRow)
