"""Extrapolate a measured sample to a whole run: videos, clips, hours, bytes and price, each with an interval.

The interval of a stage's seconds is Student's t interval of the mean over the sample's shards, times the number of
items. The number of clips is known only within the minimum and maximum that the config allows, and both go into the
interval. A sample of one shard gives no interval: half to twice the estimate is used, and a note says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from vtcav_ray.cavs.chance import CAVS
from vtcav_ray.clips.corpus import Corpus
from vtcav_ray.clips.given import plan_given
from vtcav_ray.clips.kinds import control_of_given
from vtcav_ray.clips.select import SEGMENTS_A_VIDEO
from vtcav_ray.config import ConceptConfig, Config, Kind
from vtcav_ray.config.clips import GIVEN
from vtcav_ray.pages.wording import duration
from vtcav_ray.planning.looked import looked_at
from vtcav_ray.planning.sample import Sample, Timed, planned_jobs, time_statistics
from vtcav_ray.runs.costs import BACKWARD, CheckSizes, Hours, price, stage_hours
from vtcav_ray.text.name_lists import NameIndex, letters, spoken

# Statistics are timed on random vectors of the planned size. Real vectors need other numbers of iterations.
STATISTICS_FACTOR = 3.0


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


@dataclass(frozen=True)
class Plan:
    """The estimated cost of a run.

    Attributes:
        videos: number of videos in the corpus.
        sampled: number of videos that were measured.
        clips: number of clips to cut.
        gradients: number of backward passes.
        cavs: number of CAVs to train, over all layers.
        cells: number of cells of the scores table.
        passes: passes of the rest of the network for patch effects, over all layers, each with all views of one clip.
        worker_seconds: stage -> seconds of its workers.
        cpu_hours, gpu_hours: device hours reserved according to `resources`.
        bytes: size of the run folder.
        price: in `currency`; None: a required rate is not given.
        dominates: the stage with the largest share of the price (or, without a price, of the device hours).
        notes: explanations of the figures.
        looked_at: number of videos to track with `videos.enough`; None: all are tracked.
        whole_hours: CPU and GPU hours if all were tracked; None: they are.
        whole_price: in `currency`, likewise.
    """

    videos: int
    sampled: int
    clips: Range
    gradients: Range
    cavs: int
    cells: int
    passes: Range
    worker_seconds: Mapping[str, Range]
    cpu_hours: Range
    gpu_hours: Range
    bytes: Range
    price: Range | None
    currency: str
    dominates: str
    notes: tuple[str, ...]
    looked_at: Range | None = None
    whole_hours: tuple[float, float] | None = None
    whole_price: float | None = None


def per_item(timed: Timed) -> tuple[Range, bool]:
    """Return (seconds per item, whether the interval was measured)."""
    used = [(s, n) for s, n in zip(timed.seconds, timed.items, strict=True) if n]
    if not used:
        return NOTHING, False
    seconds, items = (np.array(column, float) for column in zip(*used, strict=True))
    rate = float(seconds.sum() / items.sum())
    if len(used) < 2:
        return Range(rate / 2, rate, rate * 2), False
    from scipy.stats import t

    # Ratio estimator: residuals of the shards from the common rate.
    residual = seconds - rate * items
    error = float(np.sqrt((residual**2).sum() / (len(used) - 1) / len(used)) / items.mean())
    half = float(t.ppf(0.975, len(used) - 1)) * error
    # Seconds can't be negative: bound the lower end by the factor of the upper end, so it stays above zero.
    return Range(max(rate - half, rate / (1 + half / rate)), rate, rate + half), True


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
    config: Config, num_videos: int, classes: Mapping[str, int], concepts: Sequence[tuple[str, str]]
) -> Range:
    """Return the minimum and maximum number of clips that config and videos allow. The estimate is the maximum."""
    clips = config.clips
    kinds = len({kind for _, kind in concepts})
    random_clips = min(clips.random_pool, num_videos)
    most = (
        sum(min(clips.per_class, n) * clips.class_views for n in classes.values())
        + len(concepts) * min(clips.per_concept, num_videos)
        + kinds * random_clips
    )
    least = (
        sum(min(clips.min_per_class, n) for n in classes.values())
        + (0 if clips.concepts == "auto" else len(concepts)) * min(clips.min_per_concept, num_videos)
        + kinds * min(random_clips, num_videos // 4)
    )
    return Range(float(min(least, most)), float(most), float(most))


def gradient_range(config: Config, classes: Mapping[str, int]) -> Range:
    """Return the minimum and maximum number of backward passes: one for each class example and differentiated class."""
    most = float(sum(_backward_passes(config, classes, config.clips.per_class)))
    least = float(sum(_backward_passes(config, classes, config.clips.min_per_class)))
    return Range(min(least, most), most, most)


def _backward_passes(config: Config, classes: Mapping[str, int], examples_each: int) -> tuple[int, int]:
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


def gradient_note(config: Config, classes: Mapping[str, int], clips: Range) -> str:
    """Return a sentence on the backward passes if they cost more than the forward passes of all clips, or ""."""
    own, reference = _backward_passes(config, classes, config.clips.per_class)
    cost = BACKWARD * (own + reference)
    if cost <= clips.estimate:
        return ""
    sentence = (
        f"{len(classes):,} classes take {own + reference:,} backward passes, {cost / (cost + clips.estimate):.0%} of "
        f"the stage `activations`: {own:,} at the classes' examples and {reference:,} more at the reference set."
    )
    fewer = ["name the classes that matter in clips.classes"]
    if reference:
        fewer.append("set activations.reference to fewer videos")
    if config.activations.classes != "label":
        fewer.append("set activations.classes to `label`")
    return f"{sentence} For fewer, {', or '.join(fewer)}."


def checks_note(config: Config, classes: int, concepts: Sequence[tuple[str, str]], seconds_a_pass: float) -> str:
    """Return a sentence on the cost of `vtcav faithful` at its default sizes, which the estimate leaves out."""
    kinds = len({kind for _, kind in concepts})
    passes = CheckSizes().passes(
        classes=classes, concepts=len(concepts), kinds=kinds, layers=len(config.activations.layers)
    )
    return (
        f"`vtcav faithful` afterwards takes at most {passes:,} passes of a part of the network, at most "
        f"{duration(passes * seconds_a_pass)} of one actor."
    )


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


def _with_segments(config: Config, corpus: Corpus) -> Config:
    """Return a config with as many views per class video as it has with the maximum of segments that are examples."""
    most = min(SEGMENTS_A_VIDEO, max((len(some) for some in corpus.examples.values()), default=1))
    if most == 1:
        return config
    clips = config.clips.model_copy(update={"class_views": config.clips.class_views * most})
    return config.model_copy(update={"clips": clips})


def estimate(
    config: Config,
    videos: pa.Table,
    sample: Sample,
    known_classes: Sequence[str] | None,
    rates: Mapping[str, Any],
    given: pa.Table | None = None,
) -> Plan:
    """Return the plan of a run.

    Args:
        config: config of the run.
        videos: VIDEOS table of the whole corpus.
        sample: measurements on a part of it.
        known_classes: class names of the model; None: not known.
        rates: `gpu_hour`, `cpu_hour` and `currency`.
        given: the own clips of its concepts; None: there are none.
    """
    notes = list(sample.notes)
    corpus = Corpus.of(videos)
    config = _with_segments(config, corpus)
    concepts, classes = concepts_of(config, given), classes_of(config, videos, known_classes)
    clips = clip_range(config, len(corpus.examples), classes, concepts)
    gradients = gradient_range(config, classes)
    num = float(videos.num_rows)
    tracking, measured = per_item(sample.tracks)
    cutting, cut_measured = per_item(sample.clips)
    extracting, extract_measured = per_item(sample.activations)
    looked = looked_at(config, videos, sample.shown, known_classes)
    to_track = Range(num, num, num) if looked is None else Range(*looked)
    seconds: dict[str, Range] = {
        "tracks": tracking.times(to_track),
        "clips": cutting.times(clips),
        "activations": extracting.times(clips + gradients.times(BACKWARD)),
    }
    if not config.clips.need_tracks:  # all concepts are own clips
        del seconds["tracks"]
        measured = True
    if not (measured and cut_measured and extract_measured):
        notes.append("Where the sample has a single shard, the interval is a guess: half to twice the estimate.")
    layers = len(config.activations.layers)
    passes = NOTHING
    if config.scores.effect == "patch":
        passes = response_passes(config, clips, classes)
        seconds["responses"] = per_item(sample.responses)[0].times(passes)
    pool, jobs = planned_jobs(config, concepts, min(config.clips.random_pool, len(corpus.examples)))
    compared = len({(j.concept, j.against) for j in jobs if not j.is_null})
    cells = compared * max(1, len(classes)) * (layers + 1)  # and those of the answer
    if jobs and sample.dims:
        times = time_statistics(config, jobs, pool, int(np.mean(sample.dims)))
        seconds |= _statistics(times, (len(jobs) + compared * CAVS) * layers, max(1, len(classes)) * layers, cells)
    resources = config.resources.model_dump()
    held = {name: _hours(name, one, resources) for name, one in seconds.items()}
    whole = None
    if looked is not None:
        whole = sum((h[1] for name, h in held.items() if name != "tracks"), Hours())
        whole += _hours("tracks", tracking.times(num), resources)[1]
    total = [sum((h[end] for h in held.values()), Hours()) for end in range(3)]
    prices = [price(hours, rates) for hours in total]
    # Each stage's share of the price, or of the device hours if no price is known.
    weight = {name: price(h[1], rates) if prices[1] is not None else h[1].cpu + h[1].gpu for name, h in held.items()}
    return Plan(
        videos=videos.num_rows,
        sampled=sample.videos,
        clips=clips,
        gradients=gradients,
        cavs=len(jobs) * layers,
        cells=cells,
        passes=passes,
        worker_seconds=seconds,
        cpu_hours=Range(*(hours.cpu for hours in total)),
        gpu_hours=Range(*(hours.gpu for hours in total)),
        bytes=_bytes(sample, to_track.estimate, clips, gradients, len(jobs)) + passes.times(4.0 * max(1, len(classes))),
        price=None if prices[1] is None else Range(*(p or 0.0 for p in prices)),
        currency=str(rates.get("currency", "EUR")),
        dominates=max(weight, key=lambda name: weight[name] or 0.0),
        notes=(
            *notes,
            *filter(None, (gradient_note(config, classes, clips),)),
            checks_note(config, len(classes), concepts, extracting.estimate),
            *_device_notes(config),
        ),
        looked_at=None if looked is None else to_track,
        whole_hours=None if whole is None else (whole.cpu, whole.gpu),
        whole_price=None if whole is None else price(whole, rates),
    )


def _statistics(times: tuple[float, float, float], cavs: int, classes: int, cells: int) -> dict[str, Range]:
    """Return the seconds of the stages `cavs` and `scores`.

    Args:
        times: seconds of one CAV, of one class in one layer, and of one cell.
        cavs: number of CAVs to train.
        classes: number of pairs of a class and a layer.
        cells: number of cells.
    """
    a_cav, a_class, a_cell = times
    stages = {"cavs": a_cav * cavs, "scores": a_class * classes + a_cell * cells}
    return {stage: Range(one / STATISTICS_FACTOR, one, one * STATISTICS_FACTOR) for stage, one in stages.items()}


def _hours(stage: str, seconds: Range, resources: Mapping[str, Any]) -> tuple[Hours, Hours, Hours]:
    low, middle, high = (stage_hours(stage, s, resources) for s in (seconds.low, seconds.estimate, seconds.high))
    return low, middle, high


def _bytes(sample: Sample, videos: float, clips: Range, gradients: Range, cavs_a_layer: int) -> Range:
    """Return the bytes of all tables. Clip sizes differ by about a third between parts of a corpus."""
    tracks = sample.tracks.bytes / max(1, sum(sample.tracks.items)) * videos
    a_clip, a_vector = (part.bytes / max(1, part.rows) for part in (sample.clips, sample.activations))
    of_clips = clips.times(a_clip) + (clips + gradients).times(a_vector)
    cavs = float(sum(4 * d * cavs_a_layer for d in sample.dims))
    return Range(tracks * 0.7 + of_clips.low * 0.7 + cavs, tracks + of_clips.estimate + cavs,
                 tracks * 1.4 + of_clips.high * 1.4 + cavs)  # fmt: skip


def _device_notes(config: Config) -> list[str]:
    import torch

    wants = [name for name in ("detect", "extract") if getattr(config.resources, name).gpus > 0]
    if wants and not torch.cuda.is_available():
        return [
            f"resources.{' and resources.'.join(wants)} ask for GPUs, and this machine has none: the sample was "
            "measured on the CPU, so the GPU hours are far too high. Run `vtcav plan` on a machine like those that "
            "will do the work."
        ]
    return []
