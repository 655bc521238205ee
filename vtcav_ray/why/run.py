"""`vtcav explain`: explain single videos with a run's concepts. See `vtcav_ray.why.pushes` for the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vtcav_ray.clips.corpus import Corpus, Example
from vtcav_ray.config import Config
from vtcav_ray.errors import ConfigError, EnvironmentFault, InputError
from vtcav_ray.runs.run import Run
from vtcav_ray.store.storage_errors import reason, storage_errors
from vtcav_ray.store.urls import check_url
from vtcav_ray.text.label_sets import join_labels, split_labels
from vtcav_ray.text.name_lists import NameIndex
from vtcav_ray.why.concepts import LayerPool, RunConcepts
from vtcav_ray.why.pushes import presence, push
from vtcav_ray.why.subjects import (
    Answers,
    Model,
    Subject,
    cut_example,
    likeliest,
    read_answers,
    stored_frames,
    subjects_from_tables,
)

NO_GRADIENT = "the tables have no gradient of its predicted class or of the runner-up"
NOT_AN_EXAMPLE = "it is no class example of the run"
NOT_OF_RUN = "it is no video of the run"


@dataclass(frozen=True)
class ConceptPush:
    """One concept at one layer in one video. Pushes are in units of the target, logits unless the config says else.

    Attributes:
        concept, layer: names.
        presence: share of its random clips in which there is less of the concept, in [0, 1].
        push, ci_low, ci_high: on the predicted class, with the interval over the runs.
        push_runner_up, runner_up_ci_low, runner_up_ci_high: the same on the runner-up.
    """

    concept: str
    layer: str
    presence: float
    push: float
    ci_low: float
    ci_high: float
    push_runner_up: float
    runner_up_ci_low: float
    runner_up_ci_high: float

    @property
    def weight(self) -> float:
        """Presence times the push towards the predicted class and away from the runner-up."""
        return self.presence * (self.push - self.push_runner_up)


@dataclass(frozen=True)
class Explanation:
    """One video's explanation.

    Attributes:
        video: its id in the run, or the given name of a file that is not of the run.
        label: true class, in the model's spelling if it has the class; of several, the text that
            `vtcav_ray.text.label_sets` makes; None: unknown.
        predicted, runner_up: the two likeliest classes.
        probabilities: class -> probability (softmax of the mean logits), the likeliest first.
        target: what a push is a change of: logit, log_odds or log_probability.
        source: where the numbers come from, in words.
        concepts: by the size of their weight, largest first.
    """

    video: str
    label: str | None
    predicted: str
    runner_up: str
    probabilities: dict[str, float]
    target: str
    source: str
    concepts: list[ConceptPush]

    def as_json(self) -> dict[str, Any]:
        """Return the explanation as plain values; a missing number is None."""
        found = asdict(self)
        for row, one in zip(found["concepts"], self.concepts, strict=True):
            row["weight"] = one.weight
            row.update(
                {name: None for name, value in row.items() if isinstance(value, float) and not np.isfinite(value)}
            )
        return found


@dataclass(frozen=True)
class Explained:
    """The explanations in the order of the given videos, and (video, message) of those that can't be explained."""

    explanations: list[Explanation]
    failures: list[tuple[str, str]]


def explain_videos(run: Run, config: Config, videos: Sequence[str]) -> Explained:
    """Explain videos with the concepts of a run.

    A class example is explained from the run's tables. If these lack the gradient of its predicted class or of the
    runner-up (they have every class only at the reference set), the model runs once on its stored clip. Any other video
    is cut like a class example, and the model runs once on it.

    Args:
        run: with finished CAVs.
        config: the run's, with the user's overrides: the model and the storage of the videos.
        videos: ids or URIs of the run's table `videos`, or paths or URLs of other files.

    Raises:
        ConfigError: the run has no CAVs, its activations are of an older version, or its model has changed.
    """
    concepts = RunConcepts.of(run)
    subjects, failures = _subjects(run, config, videos)
    rows: dict[str, list[ConceptPush]] = {video: [] for video in subjects}
    for layer in concepts.layers if subjects else ():
        pool = concepts.layer(layer)
        for video, subject in subjects.items():
            rows[video] += _pushes(concepts, pool, subject)
    found = [
        _explanation(subjects[video], rows[video], config.activations.target)
        for video in dict.fromkeys(videos)
        if video in subjects
    ]
    return Explained(found, failures)


def _subjects(run: Run, config: Config, videos: Sequence[str]) -> tuple[dict[str, Subject], list[tuple[str, str]]]:
    """Return the subjects by the given names, and the failures."""
    by_name = _examples_by_name(run)
    # A segment that is named is explained alone; its source video, by all its clips that are class examples.
    ids = {name: by_name[name][0].video_id for name in videos if name in by_name and not _names_segment(name, by_name)}
    answers = read_answers(run, list(ids.values())) if ids else {}
    from_tables = subjects_from_tables(run, list(answers.values())) if answers else {}
    model = Model(run, config)
    subjects: dict[str, Subject] = {}
    failures: list[tuple[str, str]] = []
    for name in dict.fromkeys(videos):
        video = ids.get(name)
        if video in from_tables:
            subjects[name] = from_tables[video]
            continue
        try:
            example = _example(run, config, name, by_name.get(name, ()), answers.get(video or ""))
        except (InputError, EnvironmentFault) as error:
            failures.append((name, str(error)))
            continue
        except storage_errors() as error:
            failures.append((name, f"{name} can't be read: {reason(error)}."))
            continue
        try:
            subjects[name] = model.subject(example.video, example.label, example.clips, example.why)
        except InputError as error:
            failures.append((name, str(error)))
    return subjects, failures


class _Example(NamedTuple):
    """A video for the model: its clips, and why the tables don't suffice."""

    video: str
    label: str | None
    clips: Sequence[NDArray[np.uint8]]
    why: str


def _examples_by_name(run: Run) -> dict[str, list[Example]]:
    """Map all names of the run's videos to what they name: ids, URIs, and segments as `FILE@START-END`."""
    found: dict[str, list[Example]] = {}
    for video, examples in Corpus.of(run.table("videos")).examples.items():
        found[video] = examples
        for file in {example.file for example in examples}:
            some = [example for example in examples if example.file == file]
            found[some[0].uri] = found[file] = some
            found |= {f"{file}@{one.segment.name}": [one] for one in some if one.segment is not None}
    return found


def _names_segment(name: str, by_name: Mapping[str, Sequence[Example]]) -> bool:
    one = by_name[name][0]
    return one.segment is not None and name == f"{one.file}@{one.segment.name}"


def _example(run: Run, config: Config, name: str, examples: Sequence[Example], answers: Answers | None) -> _Example:
    if answers is not None:
        return _Example(answers.video, answers.labels, stored_frames(run, answers.clip_ids), NO_GRADIENT)
    if len(examples) > 1:
        first = examples[0].file + (f"@{examples[0].segment.name}" if examples[0].segment else "")
        raise InputError("segment", f"{name} has {len(examples)} examples, and is no class example. Name one: {first}.")
    if examples:
        (one,) = examples
        clips = cut_example(config, one.uri, named=False, segment=one.segment)
        return _Example(name if one.segment else one.video_id, one.own, clips, NOT_AN_EXAMPLE)
    try:
        uri = check_url(name, "VIDEO")
    except ConfigError as error:
        raise InputError("refused", str(error)) from error
    return _Example(name, None, cut_example(config, uri, named=True), NOT_OF_RUN)


def _pushes(concepts: RunConcepts, pool: LayerPool, subject: Subject) -> list[ConceptPush]:
    activation, gain = subject.activations[pool.layer], subject.gains[pool.layer]
    of_class: list[NDArray[np.float64]] = [
        pool.vectors @ subject.gradients[pool.layer][name] for name in subject.likeliest
    ]
    rows = []
    for clips, v, random in zip(concepts.concepts, pool.directions, pool.random, strict=True):
        first, second = (push(values, concepts.videos, clips, gain) for values in of_class)
        rows.append(
            ConceptPush(
                concept=clips.concept,
                layer=pool.layer,
                presence=float(presence(activation @ v, random)),
                push=first.push,
                ci_low=first.ci_low,
                ci_high=first.ci_high,
                push_runner_up=second.push,
                runner_up_ci_low=second.ci_low,
                runner_up_ci_high=second.ci_high,
            )
        )
    return rows


def _explanation(subject: Subject, rows: list[ConceptPush], target: str) -> Explanation:
    return explanation_of(
        subject.video, subject.label, subject.classes, subject.logits, subject.source,
        sorted(rows, key=lambda row: -abs(row.weight)), target,
    )  # fmt: skip


def explanation_of(
    video: str,
    label: str | None,
    classes: Sequence[str],
    logits: NDArray[np.float64],
    source: str,
    rows: list[ConceptPush],
    target: str,
) -> Explanation:
    """Return an explanation of a video, with the probabilities of its mean logits.

    Args:
        video, label, source, target: as in `Explanation`.
        classes, logits: of the model, [K].
        rows: in their order.
    """
    shifted = np.exp(logits - logits.max())
    probabilities = shifted / shifted.sum()
    order = np.argsort(-probabilities, kind="stable")
    predicted, runner_up = likeliest(logits, classes)
    return Explanation(
        video=video,
        label=join_labels(NameIndex(classes).spelling(one) or one for one in split_labels(label, NameIndex(classes))),
        predicted=predicted,
        runner_up=runner_up,
        probabilities={classes[int(k)]: float(probabilities[k]) for k in order},
        target=target,
        source=source,
        concepts=rows,
    )
