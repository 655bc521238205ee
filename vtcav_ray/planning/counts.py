"""Count what a run would compute: concepts, classes, clips, backward passes, and passes for patch effects.

The number of clips is known only within the minimum and maximum that the config allows, so most counts are intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from vtcav_ray.clips.corpus import Corpus
from vtcav_ray.clips.given import plan_given
from vtcav_ray.clips.kinds import control_of_given
from vtcav_ray.clips.plan_table import PlanRows
from vtcav_ray.clips.select import SEGMENTS_A_VIDEO
from vtcav_ray.config import ConceptConfig, Config, Kind
from vtcav_ray.config.clips import GIVEN
from vtcav_ray.text.name_lists import NameIndex, letters, spoken


@dataclass(frozen=True)
class Range:
    """An estimate with both ends of an interval of about 95 %."""

    low: float
    estimate: float
    high: float

    def times(self, other: Range | float) -> Range:
        other = other if isinstance(other, Range) else Range(other, other, other)
        return Range(self.low * other.low, self.estimate * other.estimate, self.high * other.high)

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.estimate + other.estimate, self.high + other.high)


NOTHING = Range(0.0, 0.0, 0.0)


def given_concepts(config: Config, given: pa.Table) -> list[tuple[str, str]]:
    """Return (name, kind) of every concept of own clips, and of its motion controls."""
    plan = plan_given(given, (), config.clips, config.seed)
    controls = [
        (name, control_of_given(control))
        for name, kind in plan.concepts
        if kind == GIVEN
        for control in plan.controls[name]
    ]
    return [*plan.concepts, *controls]


def concepts_of(config: Config, given: pa.Table | None = None) -> list[tuple[str, str]]:
    """Return (name, kind) of every concept that the config can give; for `auto`, as many as it may propose."""
    concepts: Sequence[ConceptConfig]
    found = given_concepts(config, given) if given is not None else []
    if config.clips.concepts == "auto":
        kinds: tuple[Kind, ...] = ("spatial", "spatiotemporal")
        concepts = [ConceptConfig(name=f"concept {i}", kinds=kinds) for i in range(config.clips.max_concepts)]
    else:
        concepts = config.clips.tracked
    for concept in concepts:
        found += [(concept.name, kind) for kind in concept.kinds]
        if "spatiotemporal" in concept.kinds:  # controls are made only from these clips
            controls = config.clips.controls if concept.controls is None else concept.controls
            found += [(concept.name, control) for control in controls]
    return found


def classes_of(config: Config, videos: pa.Table, known: Sequence[str] | None) -> dict[str, int]:
    """Return class -> number of videos, for the classes that would be explained."""
    names = NameIndex(known) if known is not None else None
    wanted = NameIndex(config.clips.classes) if config.clips.classes else None
    counts: dict[str, int] = {}
    shown: dict[str, str] = {}
    for label in Corpus.of(videos).labels(names):
        if label is not None:
            name = shown.setdefault(letters(label) or label, spoken(label))
            counts[name] = counts.get(name, 0) + 1
    return {
        name: n
        for name, n in counts.items()
        if n >= config.clips.min_per_class and (names is None or name in names) and (wanted is None or name in wanted)
    }


def clip_range(
    config: Config,
    num_videos: int,
    classes: Mapping[str, int],
    concepts: Sequence[tuple[str, str]],
    given: pa.Table | None = None,
) -> Range:
    """Return the minimum and maximum number of clips that config and videos allow. The estimate is the maximum.

    Args:
        config: of the run.
        num_videos: number of source videos of the corpus.
        classes: class -> number of its videos.
        concepts: (name, kind) of every concept.
        given: the own clips of the concepts; None: there are none.
    """
    clips = config.clips
    own, pools = _random_pools(config, concepts, given)
    random_clips = min(clips.random_pool, num_videos)
    most = (
        sum(min(clips.per_class, n) * clips.class_views for n in classes.values())
        + len(concepts) * min(clips.per_concept, num_videos)
        + pools * random_clips
        + own
    )
    least = (
        sum(min(clips.min_per_class, n) for n in classes.values())
        + (0 if clips.concepts == "auto" else len(concepts)) * min(clips.min_per_concept, num_videos)
        + pools * min(random_clips, num_videos // 4)
        + own
    )
    return Range(float(min(least, most)), float(most), float(most))


def _random_pools(config: Config, concepts: Sequence[tuple[str, str]], given: pa.Table | None) -> tuple[int, int]:
    """Return the number of random clips that are own clips, and the number of pools that the corpus has to fill."""
    kinds = {kind for _, kind in concepts}
    if given is None:
        return 0, len(kinds)
    plan, rows = plan_given(given, (), config.clips, config.seed), PlanRows(config.seed, 1)
    plan.add_to(rows)
    own = pc.sum(pc.equal(rows.table()["set"], "random")).as_py() or 0
    of_given = {kind for _, kind in given_concepts(config, given)}
    return own, len(kinds - of_given) + sum(1 + len(controls) for _, _, controls in plan.from_corpus)


def gradient_range(config: Config, classes: Mapping[str, int]) -> Range:
    """Return the minimum and maximum number of backward passes: one for each class example and differentiated class."""
    most = float(sum(backward_passes(config, classes, config.clips.per_class)))
    least = float(sum(backward_passes(config, classes, config.clips.min_per_class)))
    return Range(min(least, most), most, most)


def backward_passes(config: Config, classes: Mapping[str, int], examples_each: int) -> tuple[int, int]:
    """Return the numbers of backward passes at class examples as such, and, beyond these, at the reference set.

    Args:
        config: of the run.
        classes: class -> number of its videos.
        examples_each: maximum number of examples per class.
    """
    clips, settings = config.clips, config.activations
    examples = sum(min(examples_each, n) for n in classes.values())
    if settings.classes == "listed":
        return examples * len(classes) * clips.class_views, 0
    own = int(settings.classes.removeprefix("top-")) if settings.classes.startswith("top-") else 1
    reference = min(clips.per_class if settings.reference is None else settings.reference, examples)
    return examples * own * clips.class_views, reference * max(0, len(classes) - own) * clips.class_views


def reference_clips(config: Config, classes: Mapping[str, int]) -> int:
    """Return the number of reference clips, if no class example fails."""
    clips, size = config.clips, config.activations.reference
    examples = sum(min(clips.per_class, n) for n in classes.values())
    return min(clips.per_class if size is None else size, examples) * clips.class_views


def response_passes(config: Config, clips: Range, classes: Mapping[str, int]) -> Range:
    """Return the passes of the rest of the network: pool clips x reference clips x layers.

    Args:
        config: config of the run.
        clips: all clips, from `clip_range`; those that are no class examples are the pool.
        classes: class -> number of videos.
    """
    per_class = config.clips.per_class, config.clips.min_per_class
    most = sum(min(per_class[0], n) for n in classes.values()) * config.clips.class_views
    least = sum(min(per_class[1], n) for n in classes.values())
    pool = Range(max(0.0, clips.low - least), clips.estimate - most, clips.high - most)
    return pool.times(float(reference_clips(config, classes) * len(config.activations.layers)))


def with_segments(config: Config, corpus: Corpus) -> Config:
    """Return a config with as many views per class video as it has with the maximum of segments that are examples."""
    most = min(SEGMENTS_A_VIDEO, max((len(some) for some in corpus.examples.values()), default=1))
    if most == 1:
        return config
    clips = config.clips.model_copy(update={"class_views": config.clips.class_views * most})
    return config.model_copy(update={"clips": clips})
