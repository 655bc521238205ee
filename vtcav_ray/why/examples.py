"""Explain the class examples of a run from its tables alone, all together, as the report shows them.

The figures are those of `vtcav_ray.why.run.explain_videos`. Where the tables have the gradients of an example's
predicted class and of its runner-up (they have every class only at the reference set), the pushes are those at this
clip. Elsewhere they are those of the classes' mean gradients, at the clips at which the scores take them.

Legend: V examples, J concepts, L layers, C = J·L cells, K classes, R runs, d numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vtcav_ray.clips.usable import read_left_out
from vtcav_ray.runs.run import Run
from vtcav_ray.store.vectors import vectors_of
from vtcav_ray.text.name_lists import NameIndex
from vtcav_ray.why.concepts import LayerPool, RunConcepts
from vtcav_ray.why.pushes import ConceptClips, direction, interval, presence
from vtcav_ray.why.run import ConceptPush, Explanation, explanation_of
from vtcav_ray.why.subjects import FROM_TABLES, Answers, likeliest, read_answers

MOST_EXAMPLES = 4000
MOST_ROWS = 200_000  # of (example, concept, layer): about 2 MB of a report
LEAST_ROWS = 5  # of one example
MOST_NUMBERS = 1 << 27  # of the examples' gradients at one layer: 0.5 GB
AT_REFERENCE = (
    "the run's tables; the pushes are means over the reference clips, as the tables have no gradient of both classes "
    "at this clip"
)
_FIELDS = ("presence", "push", "ci_low", "ci_high", "push_runner_up", "runner_up_ci_low", "runner_up_ci_high")


@dataclass(frozen=True)
class ExplainedExample:
    """One class example.

    Attributes:
        name: its class, as the run's tables spell it.
        explanation: with the rows of the largest weights, at most.
        at_clip: the pushes are those at this clip, not means over the reference clips.
    """

    name: str
    explanation: Explanation
    at_clip: bool

    @property
    def mistaken(self) -> bool:
        """Whether the model's answer is not the true class."""
        return self.explanation.label != self.explanation.predicted


@dataclass(frozen=True)
class ExplainedExamples:
    """The class examples of a run.

    Attributes:
        examples: by class, then by video.
        left_out: number of class examples that are not explained, to keep a report small.
        rows_left_out: number of rows (concept and layer) that each example lacks, those of the smallest weights.
    """

    examples: Sequence[ExplainedExample] = ()
    left_out: int = 0
    rows_left_out: int = 0


def explain_examples(
    run: Run, first: Sequence[str] = (), *, most_examples: int = MOST_EXAMPLES, most_rows: int = MOST_ROWS
) -> ExplainedExamples:
    """Explain the class examples of a run with finished CAVs. The model does not run.

    Args:
        run: of these class examples.
        first: video ids that have precedence if there are too many; then come the misclassified ones, then the others,
            class by class in turn.
        most_examples: to explain.
        most_rows: of all examples together.

    Raises:
        ConfigError: the run has not reached its CAVs, or its activations are of an older version.
    """
    concepts = RunConcepts.of(run)
    left_out = set(read_left_out(run.stage("cavs")))
    answers = {video: one for video, one in read_answers(run).items() if not left_out & set(one.clip_ids)}
    answers = {video: one for video, one in answers.items() if len(one.classes) > 1}
    d = concepts.activations.read("activations", columns=("vector",), layer=concepts.layers[0])
    assert d is not None, "the CAVs were made from this table"
    room = MOST_NUMBERS // (2 * max(1, d.schema.field("vector").type.list_size))
    chosen = _choose(answers, first, max(1, min(most_examples, room)))
    if not chosen or not concepts.concepts:
        return ExplainedExamples(left_out=len(answers) - len(chosen))
    examples = _Examples.of(concepts, chosen)
    typical = np.median([one.gains for one in answers.values()], axis=0)
    figures = np.concatenate(  # [7, V, C]
        [_layer(concepts, number, examples, float(typical[number])) for number in range(len(concepts.layers))],
        axis=2,
    )
    cells = [(clips.concept, layer) for layer in concepts.layers for clips in concepts.concepts]
    each = min(len(cells), max(LEAST_ROWS, most_rows // len(chosen)))
    found = [
        _example(one, figures[:, v], cells, each, bool(examples.at_clip[v]), run.config.activations.target)
        for v, one in enumerate(chosen)
    ]
    return ExplainedExamples(found, len(answers) - len(chosen), len(cells) - each)


def _choose(answers: dict[str, Answers], first: Sequence[str], most: int) -> list[Answers]:
    """Return at most so many examples, by class and video."""
    turns: dict[str, int] = {}
    order = []
    wanted = set(first)
    for video, one in sorted(answers.items()):
        turn = turns[one.label] = turns.get(one.label, -1) + 1
        right = NameIndex(one.classes).spelling(one.label) == likeliest(one.logits, one.classes)[0]
        order.append((video not in wanted, right, turn, one.label, video))
    return sorted((answers[video] for *_, video in sorted(order)[:most]), key=lambda one: (one.label, one.video))


@dataclass(frozen=True)
class _Examples:
    """V examples: their answers, predicted class and runner-up, and whether the tables have both gradients, [V]."""

    answers: Sequence[Answers]
    pairs: Sequence[tuple[str, str]]
    at_clip: NDArray[np.bool_]

    @classmethod
    def of(cls, concepts: RunConcepts, answers: Sequence[Answers]) -> _Examples:
        pairs = [likeliest(one.logits, one.classes) for one in answers]
        return cls(answers, pairs, _at_clip(concepts, answers, pairs))


def _at_clip(concepts: RunConcepts, chosen: Sequence[Answers], pairs: Sequence[tuple[str, str]]) -> NDArray[np.bool_]:
    """Return whether the tables have the gradients of both classes at each example and every layer, [V]."""
    there: set[tuple[str, str]] | None = None
    for layer in concepts.layers:
        rows = concepts.activations.read("gradients", columns=("video_id", "class"), layer=layer)
        assert rows is not None, "class examples have gradients"
        found = set(zip(rows["video_id"].to_pylist(), rows["class"].to_pylist(), strict=True))
        there = found if there is None else there & found
    known = there or set()
    return np.array([all((one.video, name) in known for name in pair) for one, pair in zip(chosen, pairs, strict=True)])


def _layer(concepts: RunConcepts, number: int, examples: _Examples, typical: float) -> NDArray[np.float32]:
    """Return the figures of one layer, [7, V, J], in the order of `_FIELDS`; `typical`: the layer's usual gain."""
    layer = concepts.layers[number]
    pool = concepts.layer(layer)
    vectors = _means(pool, concepts, examples.answers)
    gradients = _gradients(concepts, number, examples, typical)
    videos = np.asarray(concepts.videos)
    found = np.empty((len(_FIELDS), len(examples.answers), len(concepts.concepts)), np.float32)
    for j, (clips, v, random) in enumerate(zip(concepts.concepts, pool.directions, pool.random, strict=True)):
        found[0, :, j] = presence(vectors @ v, random)
        runs = _run_directions(pool, videos, clips)
        for which in (0, 1):
            low, high = interval(gradients[:, which] @ runs.T)
            found[1 + 3 * which, :, j] = gradients[:, which] @ v
            found[2 + 3 * which, :, j], found[3 + 3 * which, :, j] = low, high
    return found


def _run_directions(pool: LayerPool, videos: NDArray[np.str_], clips: ConceptClips) -> NDArray[np.float64]:
    """Return v of each run, [R, d]."""
    runs = [direction(pool.vectors, videos, ConceptClips(clips.concept, own, random, ())) for own, random in clips.runs]
    return np.stack(runs) if runs else np.zeros((0, pool.vectors.shape[1]))


def _means(pool: LayerPool, concepts: RunConcepts, chosen: Sequence[Answers]) -> NDArray[np.float64]:
    """Return the mean activation of each example's clips, [V, d]."""
    rows = concepts.activations.read("activations", columns=("clip_id",), layer=pool.layer)
    assert rows is not None, "the layer was read just now"
    place = {clip: i for i, clip in enumerate(rows["clip_id"].to_pylist())}
    return np.stack([pool.vectors[[place[c] for c in one.clip_ids]].astype(np.float64).mean(axis=0) for one in chosen])


def _gradients(concepts: RunConcepts, number: int, examples: _Examples, typical: float) -> NDArray[np.float64]:
    """Return the gradients times the gain, of the predicted class and the runner-up, [V, 2, d]; NaN: there is none."""
    layer, at_clip = concepts.layers[number], examples.at_clip
    rows = concepts.activations.read("gradients", columns=("video_id", "class", "vector"), layer=layer)
    assert rows is not None, "class examples have gradients"
    d = rows["vector"].type.list_size
    found = np.full((len(examples.answers), 2, d), np.nan)
    place: dict[tuple[str, str], list[int]] = {}
    inside = pa.array([one.video for one, own in zip(examples.answers, at_clip, strict=True) if own], pa.string())
    part = rows.filter(pc.is_in(rows["video_id"], inside))
    for i, key in enumerate(zip(part["video_id"].to_pylist(), part["class"].to_pylist(), strict=True)):
        place.setdefault(key, []).append(i)
    vectors = vectors_of(part) if part.num_rows else np.zeros((0, d))
    elsewhere = sorted({name for pair, own in zip(examples.pairs, at_clip, strict=True) if not own for name in pair})
    means = concepts.mean_gradients(layer, elsewhere) if elsewhere else np.zeros((0, d))
    for v, (one, pair) in enumerate(zip(examples.answers, examples.pairs, strict=True)):
        for which, name in enumerate(pair):
            if at_clip[v]:
                found[v, which] = one.gains[number] * vectors[place[one.video, name]].astype(np.float64).mean(axis=0)
            else:
                found[v, which] = typical * means[elsewhere.index(name)]
    return found


def _example(
    one: Answers,
    figures_7C: NDArray[np.float32],
    cells: Sequence[tuple[str, str]],
    each: int,
    at_clip: bool,
    target: str,
) -> ExplainedExample:
    present, push, other = (figures_7C[i].astype(np.float64) for i in (0, 1, 4))
    # The push on a class that the tables do not have at all is not known, and does not order the rows.
    weight = np.abs(present * (np.nan_to_num(push) - np.nan_to_num(other)))
    rows = [
        ConceptPush(*cells[c], *(float(x) for x in figures_7C[:, c]))
        for c in np.argsort(-weight, kind="stable")[:each].tolist()
        if np.isfinite(push[c]) or np.isfinite(other[c])
    ]
    source = FROM_TABLES if at_clip else AT_REFERENCE
    found = explanation_of(one.video, one.label, one.classes, one.logits, source, rows, target)
    return ExplainedExample(one.label, found, at_clip)
