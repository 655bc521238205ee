"""Shared parts of the tests that run the whole pipeline."""

from __future__ import annotations

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


def run_here(
    shards: list[Shard], make_worker: Callable[[], Worker], output: StageFolder, *_: object
) -> Iterator[dict[str, Any]]:
    """Replace `vtcav_ray.engine.run_shards`: run one shard after another in this process, without Ray."""
    worker = make_worker()
    for shard in shards:
        record = output.commit(shard.name, worker(shard.rows))
        yield {"shard": shard.name, "items": shard.rows.num_rows, "failures": record["failures"], "seconds": 0.0}


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


def here_except(*stages: str) -> Callable[..., Iterator[dict[str, Any]]]:
    """Like `run_here`, but run these stages on Ray, for tests of one stage that need the output of earlier stages."""
    from vtcav_ray.engine import run_shards

    def choose(
        shards: list[Shard], make_worker: Callable[[], Worker], output: StageFolder, *rest: Any
    ) -> Iterator[dict[str, Any]]:
        return (run_shards if output.stage in stages else run_here)(shards, make_worker, output, *rest)

    return choose


def facts(name: str, inputs: tuple[str, ...]) -> StageFacts:
    """Return the facts about a stand-in stage: those of the real stage with its name, with other inputs."""
    return replace(facts_of(name), inputs=inputs)
