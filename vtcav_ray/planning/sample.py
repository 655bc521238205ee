"""A short measured sample: run a few videos through the stages' own workers in this process, and time each step.

The sample's tables are in a temporary folder, which is removed. Loading a model is not counted, since a run loads it
once per actor.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from vtcav_ray.activations.stage import STAGE as ACTIVATIONS
from vtcav_ray.cavs.layer_cavs import train_jobs
from vtcav_ray.cavs.layer_pool import LayerPool
from vtcav_ray.cavs.plan import RANDOM, CavJob, Pool, plan_cavs
from vtcav_ray.clips.corpus import Corpus
from vtcav_ray.clips.offers import Offer, offers_of
from vtcav_ray.clips.stage import STAGE as CLIPS
from vtcav_ray.config import ClipsConfig, Config
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.planning.looked import Shown
from vtcav_ray.responses.stage import STAGE as RESPONSES
from vtcav_ray.runs.costs import BACKWARD
from vtcav_ray.runs.stage import Context, Shard, Stage
from vtcav_ray.scores.cells import find_cells
from vtcav_ray.scores.families import Labels, Projections, family_tests
from vtcav_ray.scores.layer import score_layer
from vtcav_ray.scores.layer_data import ClassGradients, LayerData, ScoreOptions
from vtcav_ray.store.commits import ShardOutput, StageFolder, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.tracks.stage import STAGE as TRACKS

VIDEOS_A_SHARD = 2
TESTED_CELLS = 16  # cells of the family whose test is timed


@dataclass(frozen=True)
class Timed:
    """The cost of one stage on the sample.

    Attributes:
        seconds: per shard.
        items: videos, clips or passes per shard.
        bytes: stored by all shards.
        rows: clips and gradients of all shards, to which the bytes belong.
        failures: number of inputs that could not be used.
    """

    seconds: Sequence[float] = ()
    items: Sequence[int] = ()
    bytes: int = 0
    rows: int = 0
    failures: int = 0


@dataclass(frozen=True)
class Sample:
    """Measured seconds and bytes.

    Attributes:
        videos: number of measured videos.
        tracks, clips, activations: the stages' costs; items are videos, clips, and passes (see `passes`).
        responses: the cost of the stage `responses`, if the config asks for it; items are pairs of a pool clip and a
            reference clip, of which every layer has the same number.
        dims: length of a vector, by layer.
        shown: the concepts that its videos show, for the number of videos that `videos.enough` looks at.
        notes: what could not be measured, and why.
    """

    videos: int
    tracks: Timed
    clips: Timed = Timed()
    activations: Timed = Timed()
    responses: Timed = Timed()
    dims: tuple[int, ...] = ()
    shown: Shown = field(default_factory=Shown)
    notes: tuple[str, ...] = field(default=())


def measure(config: Config, videos: pa.Table, count: int, given: pa.Table | None = None) -> Sample:
    """Run `count` random (seeded) videos through tracks, clips and activations.

    Args:
        config: config of the planned run.
        videos: the VIDEOS table of its whole corpus.
        count: size of the sample; capped at the number of videos.
        given: the own clips of its concepts; None: there are none.

    Raises:
        StageError: no video of the sample could be used.
    """
    chosen = np.sort(np.random.default_rng(config.seed).permutation(videos.num_rows)[:count])
    small = config.model_copy(update={"shard_videos": VIDEOS_A_SHARD, "clips": _small(config.clips, len(chosen))})
    with tempfile.TemporaryDirectory(prefix="vtcav-plan-") as place:
        run = Folder(place)
        listed = stage_folder(run, "videos", "sample")
        own = {} if given is None else {"given": given}
        listed.commit("all", ShardOutput({"videos": videos.take(pa.array(chosen)), **own}))
        listed.finish({}, {"notes": {}, "warnings": []})
        inputs: dict[str, StageFolder] = {"videos": listed}
        tracked = _run(TRACKS, small, run, inputs, VIDEOS_A_SHARD) if config.clips.need_tracks else Timed()
        found = Sample(len(chosen), tracked, shown=_shown(config, inputs))
        try:
            found = replace(found, clips=_run(CLIPS, small, run, inputs))
            found = replace(found, activations=_run(ACTIVATIONS, small, run, inputs))
        except StageError as error:
            return replace(found, notes=(f"Only tracking could be measured: {error}",))
        found = replace(found, dims=_dims(config, inputs["activations"]))
        if config.scores.effect == "first_order":
            return found
        try:
            return replace(found, responses=_run_responses(small, run, inputs))
        except (ConfigError, StageError) as error:
            return replace(found, notes=(f"The passes of the patch effects could not be measured: {error}",))


def _shown(config: Config, inputs: Mapping[str, StageFolder]) -> Shown:
    """Return what the tracked videos show."""
    tracks = inputs.get(TRACKS.name)
    if tracks is None or not config.stops_at_enough:
        return Shown()
    videos, failed = inputs["videos"].read("videos"), tracks.read("failures", columns=["video_id"])
    assert videos is not None, "the sample has videos"
    left_out = set(failed["video_id"].to_pylist()) if failed is not None else ()
    corpus = Corpus.of(videos, left_out, tracks.read("segments"))
    offers: dict[str, Offer] = {}
    for _, part in tracks.iter_tables("tracks"):
        for video_id, offer in offers_of(corpus, part, config.clips).items():
            offers[video_id] = offers.get(video_id, Offer()) | offer
    return Shown.of(len(corpus.examples), [offer.concepts for offer in offers.values()])


def _small(clips: ClipsConfig, videos: int) -> ClipsConfig:
    """Limit the config to a few clips of every kind in the run. A class needs only one video."""
    return clips.model_copy(
        update={"min_per_class": 1, "min_per_concept": 1, "per_class": 2, "per_concept": max(1, videos // 4),
                "random_pool": max(2, videos // 2)}
    )  # fmt: skip


def _run(
    stage: Stage, config: Config, run: Folder, inputs: dict[str, StageFolder], items_a_shard: int | None = None
) -> Timed:
    context = Context(config, run, dict(inputs))
    work = stage.prepare(context)
    output = stage_folder(run, stage.name, "sample")
    cpus = work.resources.cpus if work.resources is not None else 1
    worker = work.make_worker()
    _warm_up(worker, work.shards)
    seconds, items, rows, failures = [], [], 0, 0
    for shard in work.shards:
        with _threads(cpus):
            started = time.perf_counter()
            result = worker(shard.rows)
            seconds.append(time.perf_counter() - started)
        record = output.commit(shard.name, result)
        failures += record["failures"]
        clips, gradients = (int(result.metrics.get(name, 0)) for name in ("clips", "gradients"))
        items.append(int(shard.rows.num_rows) if items_a_shard else int(passes(clips, gradients)))
        rows += clips + gradients
    manifest = output.finish({}, {"notes": dict(work.notes), "warnings": []})
    inputs[stage.name] = output
    return Timed(seconds, items, manifest["bytes"], rows, failures)


def _run_responses(config: Config, run: Folder, inputs: dict[str, StageFolder]) -> Timed:
    """Time the stage `responses`. A pair of a pool clip and a reference clip has a pass for each view."""
    found = _run(RESPONSES, config, run, inputs)
    references = int(inputs[RESPONSES.name].manifest()["notes"]["references"])
    return replace(found, items=[references * clips for clips in found.items])


def passes(clips: float, gradients: float) -> float:
    """Return the cost of some clips and gradients in forward passes. The stage `clips` has no gradients."""
    return clips + BACKWARD * gradients


@contextlib.contextmanager
def _threads(cpus: float) -> Iterator[None]:
    """Set the number of threads that Ray gives an actor with `cpus` CPUs."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, int(cpus)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _warm_up(worker: object, shards: Sequence[Shard]) -> None:
    """Process the first shard once without timing it: the first call allocates, compiles and fills caches."""
    if shards:
        worker(shards[0].rows)  # type: ignore[operator]


def _dims(config: Config, activations: StageFolder) -> tuple[int, ...]:
    found = []
    for layer in config.activations.layers:
        table = activations.read("activations", columns=("vector",), layer=layer)
        if table is not None:
            found.append(table["vector"].type.list_size)
    return tuple(found)


def time_statistics(config: Config, jobs: Sequence[CavJob], pool: Pool, dim: int) -> tuple[float, float, float]:
    """Return (seconds per CAV, per class, per cell) at a layer of dimension `dim`, on random vectors of this pool.

    These are CPU seconds of this process, which other work on the machine does not affect. The time of a layer's scores
    has a part per class (the sign counts of all its CAVs) and a part per cell. Two timings separate them.
    """
    rng = np.random.default_rng(config.seed)
    first = jobs[0]
    null = [j for j in jobs if j.is_null and (j.kind, j.profile) == (first.kind, first.profile)]
    concepts = list(dict.fromkeys(j.concept for j in jobs if not j.is_null and j.kind == first.kind))[:2]
    own = {name: [j for j in jobs if j.concept == name and j.against == RANDOM] for name in concepts}
    vectors = rng.normal(size=(len(pool.video_id), dim)).astype(np.float32)
    some = [*own[concepts[0]], *null]
    started = time.process_time()
    layer = LayerPool(vectors, pool.video_id, pool.learnable())
    trained = train_jobs(layer, some, config.cavs, config.seed)
    cav_seconds = (time.process_time() - started) / len(some)
    cavs = np.concatenate([part.vectors for part in trained]).astype(np.float32)
    n = config.clips.per_class
    gradients = ClassGradients("class", rng.normal(size=(n, dim)).astype(np.float32), [f"class {i}" for i in range(n)])
    options = ScoreOptions(config.scores.bootstrap, config.scores.permutations, config.seed)

    def seconds(names: Sequence[str]) -> float:
        used = [*(j for name in names for j in own[name]), *null]
        vectors_of = np.concatenate([cavs[: len(own[name])] for name in names] + [cavs[len(own[concepts[0]]) :]])
        data = LayerData(
            "layer", "model", pool, [str(i) for i in range(len(pool.video_id))], vectors, [gradients], used,
            vectors_of, rng.uniform(0.4, 0.9, len(used)),
        )  # fmt: skip
        begun = time.process_time()
        score_layer(data, options)
        return time.process_time() - begun

    seconds(concepts[:1])  # one-time work of the first call is not counted
    one = seconds(concepts[:1])
    test = _seconds_per_test(pool, own[concepts[0]], options)
    if len(concepts) < 2:
        return cav_seconds, 0.0, one + test
    cell = max(0.0, seconds(concepts) - one)
    return cav_seconds, max(0.0, one - cell), cell + test


def _seconds_per_test(pool: Pool, jobs: Sequence[CavJob], options: ScoreOptions) -> float:
    """Return the CPU seconds of one cell's test in a family of several; the family's permutations are drawn once."""
    clip_ids = [str(i) for i in range(len(pool.video_id))]
    values = np.random.default_rng(0).normal(size=(len(clip_ids), TESTED_CELLS)).astype(np.float32)
    projections = Projections(
        [(str(c), "layer") for c in range(TESTED_CELLS)], values, np.zeros(TESTED_CELLS), np.ones(TESTED_CELLS)
    )
    begun = time.process_time()
    family_tests(find_cells(pool, clip_ids, jobs)[0], projections, pool, Labels.of(pool, {}), options)
    return (time.process_time() - begun) / TESTED_CELLS


def planned_pool(concepts: Sequence[tuple[str, str]], per_concept: int, random_pool: int) -> Pool:
    """Return the pool of a run in which every concept (name, kind) has its maximum number of clips."""
    rows: list[tuple[str, str, str, str]] = []
    for name, kind in concepts:
        rows += [("concept", f"{name}/{kind}", kind, f"{name}/{i}") for i in range(per_concept)]
    for kind in dict.fromkeys(kind for _, kind in concepts):
        rows += [("random", f"random/{kind}", kind, f"random/{i}") for i in range(random_pool)]
    role, name_, kind_, video = (list(column) for column in zip(*rows, strict=True))
    return Pool(role, name_, kind_, video)


def planned_jobs(config: Config, concepts: Sequence[tuple[str, str]], random_pool: int) -> tuple[Pool, list[CavJob]]:
    """Return the pool and every CAV of a layer."""
    pool = planned_pool(concepts, config.clips.per_concept, random_pool)
    return pool, plan_cavs(pool, config.cavs.random_sets, config.cavs.relative, config.seed).jobs
