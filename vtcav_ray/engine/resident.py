"""Keep worker processes from stage to stage, in a Ray that was started on this machine for one run.

An actor's process ends with its stage. On a laptop that is most of the time between two stages: each stage's processes
import Ray, torch and the model's framework again, which takes seconds of every core. So there the shards are Ray tasks.
Ray keeps the processes of tasks, and each process makes a stage's worker once, at the stage's first shard. What a shard
goes through is the same in an actor and in a task (`vtcav_ray.engine.stream`).

Only where nothing else differs: all stages hold the same CPUs per process (torch and OpenMP take their numbers of
threads when they are imported), no GPU (Ray ends the process of a task that held one) and no memory limit (it would
also count what earlier stages left behind).
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
from collections.abc import Callable, Iterator, Mapping

import pyarrow as pa

from vtcav_ray.config import ResourcesConfig, StageResources

# Imported by the processes when Ray starts them, while the driver still checks the run. Missing ones are left out.
IMPORTS = ("ray.data", "vtcav_ray.engine.stream", "torch")
IDLE_SECONDS = 3600  # Ray would end processes that are idle for a second, which is between two stages

_kept: tuple[str, Callable[[pa.Table], pa.Table]] | None = None  # in a worker process: token, and what it made
_threads: int | None = None  # in the driver: of each process that is kept; None: none is kept


def can_keep(resources: ResourcesConfig) -> bool:
    """Return whether the processes of one stage suit all stages."""
    stages = (resources.detect, resources.cut, resources.extract, resources.statistics)
    same = len({stage.cpus for stage in stages}) == 1
    return same and not any(stage.gpus or stage.memory_gb is not None for stage in stages)


@contextlib.contextmanager
def keeping(resources: ResourcesConfig) -> Iterator[None]:
    """Let `keeps` return True inside the block, for stages with the CPUs of this config."""
    global _threads
    before, _threads = _threads, threads_of(resources.detect) if can_keep(resources) else None
    try:
        yield
    finally:
        _threads = before


def keeps(stage: StageResources) -> bool:
    """Return whether the shards of a stage run in processes that are kept."""
    return _threads == threads_of(stage) and not stage.gpus and stage.memory_gb is None


def threads_of(stage: StageResources) -> int:
    """Return the number of threads that Ray gives OpenMP in a process of a stage."""
    return max(1, math.floor(stage.cpus))


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables inside the block, for processes that are started there.

    Variables that the user has set stay.
    """
    ours = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]


def run_in_kept(batch: pa.Table, token: str, made_by: bytes) -> pa.Table:
    """Run one shard in this process, with the worker that it made for an earlier shard of the same call.

    Args:
        batch: as for the actor of `vtcav_ray.engine.stream`.
        token: of the call of `run_shards`.
        made_by: pickled function that makes the actor.
    """
    global _kept
    if _kept is None or _kept[0] != token:
        import ray.cloudpickle

        _kept = None  # first release the model of the stage before
        gc.collect()
        _kept = token, ray.cloudpickle.loads(made_by)()
    return _kept[1](batch)
