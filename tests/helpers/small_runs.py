"""Shared parts of the tests that run the whole pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from vtcav_ray import engine
from vtcav_ray.runs.stage import Shard, Worker
from vtcav_ray.stages import StageFacts, facts_of
from vtcav_ray.store.commits import StageFolder

# Loading a model's packages takes longer here than using them. tests/engine tests pools of several actors.
ONE_ACTOR_A_STAGE = [f"resources.{stage}.max_actors=1" for stage in ("detect", "cut", "extract", "statistics")]

# All stages of configs/quickstart.yaml on few videos.
SMALLEST = [
    *ONE_ACTOR_A_STAGE,
    "videos.world.videos=24",
    "shard_videos=8",
    "tracks.frame_stride=2",  # the detector takes most of the time of a small run
    "clips.per_class=4",
    "clips.min_per_class=2",
    "clips.per_concept=5",
    "clips.min_per_concept=3",
    "clips.random_pool=10",
    "clips.concepts=[{name: cup, object: cup, kinds: [spatial]}, {name: ball, object: ball, kinds: [spatial]}]",
    "activations.layers=[late]",
    "cavs.random_sets=3",
    "scores.permutations=100",
    "scores.bootstrap=100",
]


def run_here(
    shards: list[Shard], make_worker: Callable[[], Worker], output: StageFolder, *_: object
) -> Iterator[dict[str, Any]]:
    """Replace `vtcav_ray.engine.run_shards`: run one shard after another in this process, without Ray."""
    worker = make_worker()
    for shard in shards:
        started = time.perf_counter()
        made = worker(shard.rows)
        made = replace(made, metrics={"seconds": time.perf_counter() - started, **made.metrics})  # as an actor does
        record = output.commit(shard.name, made)
        items = made.metrics.get(facts_of(output.stage).unit or "", 0.0)
        yield {"shard": shard.name, "failures": record["failures"], "seconds": 0.0, "items": items}


@contextmanager
def without_ray() -> Iterator[None]:
    """Run all shards in this process, with the real models, for tests of what the pipeline runs, not of how.

    That Ray does it is tested in tests/engine, tests/test_pipeline.py and tests/jobs/test_jobs.py.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in an actor with one CPU; two that wait for each other are slower here
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "run_shards", run_here)
        patch.setattr(engine.LazySession, "start", lambda self: None)
        yield
    torch.set_num_threads(threads)


def run_pickled(
    shards: list[Shard], make_worker: Callable[[], Worker], output: StageFolder, *rest: object
) -> Iterator[dict[str, Any]]:
    """Like `run_here`, but pickle the worker's constructor and the output, as on their way to an actor of Ray."""
    import ray.cloudpickle

    sent = ray.cloudpickle.loads(ray.cloudpickle.dumps((make_worker, output)))
    return run_here(shards, *sent, *rest)


def facts(name: str, inputs: tuple[str, ...]) -> StageFacts:
    """Return the facts about a stand-in stage: those of the real stage with its name, with other inputs."""
    return replace(facts_of(name), inputs=inputs)
