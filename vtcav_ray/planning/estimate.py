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
from vtcav_ray.cavs.plan import CavJob, Pool
from vtcav_ray.clips.corpus import Corpus
from vtcav_ray.config import Config
from vtcav_ray.pages.wording import duration
from vtcav_ray.planning.counts import (
    NOTHING,
    Range,
    backward_passes,
    classes_of,
    clip_range,
    concepts_of,
    gradient_range,
    response_passes,
    with_segments,
)
from vtcav_ray.planning.looked import looked_at
from vtcav_ray.planning.sample import Sample, Timed, planned_jobs, time_statistics
from vtcav_ray.runs.costs import BACKWARD, CheckSizes, Hours, price, stage_hours

# Statistics are timed on random vectors of the planned size. Real vectors need other numbers of iterations.
STATISTICS_FACTOR = 3.0


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


def gradient_note(config: Config, classes: Mapping[str, int], clips: Range) -> str:
    """Return a sentence on the backward passes if they cost more than the forward passes of all clips, or ""."""
    own, reference = backward_passes(config, classes, config.clips.per_class)
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
    corpus = Corpus.of(videos)
    config = with_segments(config, corpus)
    classes = classes_of(config, videos, known_classes)
    size = _size(config, videos.num_rows, corpus, concepts_of(config, given), classes, given)
    looked = looked_at(config, videos, sample.shown, known_classes)
    tracked = Range(*((float(size.videos),) * 3 if looked is None else looked))
    seconds, guessed = _worker_seconds(config, sample, size, tracked)
    resources = config.resources.model_dump()
    costs = _Costs.of(seconds, resources, rates)
    whole = None
    if looked is not None:
        of_all = per_item(sample.tracks)[0].times(float(size.videos))
        whole = _Costs.of({**seconds, "tracks": of_all}, resources, rates)
    notes = list(sample.notes)
    if guessed:
        notes.append("Where the sample has a single shard, the interval is a guess: half to twice the estimate.")
    notes += filter(None, (gradient_note(config, size.classes, size.clips),))
    notes.append(checks_note(config, len(size.classes), size.concepts, per_item(sample.activations)[0].estimate))
    of_tables = _bytes(sample, tracked.estimate, size.clips, size.gradients, len(size.jobs))
    return Plan(
        videos=size.videos,
        sampled=sample.videos,
        clips=size.clips,
        gradients=size.gradients,
        cavs=len(size.jobs) * size.layers,
        cells=size.cells,
        passes=size.passes,
        worker_seconds=seconds,
        cpu_hours=costs.cpu_hours,
        gpu_hours=costs.gpu_hours,
        bytes=of_tables + size.passes.times(4.0 * max(1, len(size.classes))),
        price=costs.price,
        currency=str(rates.get("currency", "EUR")),
        dominates=costs.dominates,
        notes=(*notes, *_device_notes(config)),
        looked_at=None if looked is None else tracked,
        whole_hours=None if whole is None else (whole.cpu_hours.estimate, whole.gpu_hours.estimate),
        whole_price=None if whole is None or whole.price is None else whole.price.estimate,
    )


@dataclass(frozen=True)
class _Size:
    """The numbers of things that a run computes.

    Attributes:
        videos: rows of the table `videos`; segments of one file count each.
        concepts: (name, kind) of each.
        classes: class -> number of videos.
        layers: number of layers.
        clips, gradients, passes: as in `Plan`.
        pool, jobs: the clips of one layer's CAVs, and these CAVs.
        compared: number of pairs of a concept and its other side.
        cells: of the scores table.
    """

    videos: int
    concepts: Sequence[tuple[str, str]]
    classes: Mapping[str, int]
    layers: int
    clips: Range
    gradients: Range
    passes: Range
    pool: Pool
    jobs: Sequence[CavJob]
    compared: int
    cells: int


def _size(
    config: Config,
    videos: int,
    corpus: Corpus,
    concepts: Sequence[tuple[str, str]],
    classes: Mapping[str, int],
    given: pa.Table | None,
) -> _Size:
    clips = clip_range(config, len(corpus.examples), classes, concepts, given)
    pool, jobs = planned_jobs(config, concepts, min(config.clips.random_pool, len(corpus.examples)))
    compared = len({(job.concept, job.against) for job in jobs if not job.is_null})
    layers = len(config.activations.layers)
    return _Size(
        videos=videos,
        concepts=concepts,
        classes=classes,
        layers=layers,
        clips=clips,
        gradients=gradient_range(config, classes),
        passes=response_passes(config, clips, classes) if config.scores.effect == "patch" else NOTHING,
        pool=pool,
        jobs=jobs,
        compared=compared,
        cells=compared * max(1, len(classes)) * (layers + 1),  # and those of the answer
    )


def _worker_seconds(config: Config, sample: Sample, size: _Size, tracked: Range) -> tuple[dict[str, Range], bool]:
    """Return stage -> seconds of its workers if `tracked` videos are tracked, and whether an interval is a guess."""
    (tracking, tracks_known), (cutting, clips_known), (extracting, passes_known) = (
        per_item(timed) for timed in (sample.tracks, sample.clips, sample.activations)
    )
    seconds: dict[str, Range] = {}
    if config.clips.need_tracks:  # otherwise all concepts are own clips
        seconds["tracks"] = tracking.times(tracked)
    seconds["clips"] = cutting.times(size.clips)
    seconds["activations"] = extracting.times(size.clips + size.gradients.times(BACKWARD))
    if config.scores.effect == "patch":
        seconds["responses"] = per_item(sample.responses)[0].times(size.passes)
    if size.jobs and sample.dims:
        times = time_statistics(config, size.jobs, size.pool, int(np.mean(sample.dims)))
        cavs = (len(size.jobs) + size.compared * CAVS) * size.layers
        seconds |= _statistics(times, cavs, max(1, len(size.classes)) * size.layers, size.cells)
    return seconds, not ((tracks_known or not config.clips.need_tracks) and clips_known and passes_known)


@dataclass(frozen=True)
class _Costs:
    """What the stages' seconds cost; the attributes are those of `Plan`."""

    cpu_hours: Range
    gpu_hours: Range
    price: Range | None
    dominates: str

    @classmethod
    def of(cls, seconds: Mapping[str, Range], resources: Mapping[str, Any], rates: Mapping[str, Any]) -> _Costs:
        held = {name: _hours(name, one, resources) for name, one in seconds.items()}
        total = [sum((hours[end] for hours in held.values()), Hours()) for end in range(3)]
        prices = [price(hours, rates) for hours in total]
        known = prices[1] is not None
        # Each stage's share of the price, or of the device hours if no price is known.
        weight = {name: price(h[1], rates) if known else h[1].cpu + h[1].gpu for name, h in held.items()}
        return cls(
            Range(*(hours.cpu for hours in total)),
            Range(*(hours.gpu for hours in total)),
            Range(*(one or 0.0 for one in prices)) if known else None,
            max(weight, key=lambda name: weight[name] or 0.0),
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
