"""Keep worker processes from stage to stage, in a Ray that was started on this machine for one run.

The process of a Ray actor ends with its stage. On a laptop that is most of the time between two stages: the next
stage's processes import torch and the model's framework again, which takes seconds of every core. So here a shard is a
Ray task. Ray keeps the processes of tasks. A process creates a stage's worker at the stage's first shard, and drops it
at the first shard of the next stage. A shard goes through the same code in a task and in an actor
(`vtcav_ray.engine.stream`): Ray repeats a task whose process died, without end, and
`vtcav_ray.engine.attempts` finds the video that caused it.

Processes are kept only where nothing else differs from actors (`can_keep`, `keeps`):

- All stages hold the same number of CPUs per process, at least one. torch and OpenMP take their numbers of threads when
  they are imported, and Ray ends idle processes if there are more of them than CPUs.
- No stage holds a GPU: Ray ends the process of a task that held one.
- No stage has a memory limit, and none tries batch sizes: both would count what earlier stages left behind.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from vtcav_ray.config import ResourcesConfig, StageResources
from vtcav_ray.engine.feed import Feed
from vtcav_ray.errors import EnvironmentFault, VtcavError
from vtcav_ray.registry import with_added
from vtcav_ray.runs import logs
from vtcav_ray.runs.stage import Shard
from vtcav_ray.tracks.freed_memory import return_freed_memory

Row = dict[str, Any]  # of one shard: `name`, and `rows` as bytes; or its summary

_kept: tuple[str, Callable[[Row], Row]] | None = None  # in a worker process: id of a call, and what was made for it
_threads: int | None = None  # in the driver: threads of each process that is kept; None: none is kept


def can_keep(resources: ResourcesConfig) -> bool:
    """Return whether the processes of one stage suit all stages."""
    stages = (resources.detect, resources.cut, resources.extract, resources.statistics)
    same = len({stage.cpus for stage in stages}) == 1
    return same and resources.detect.cpus >= 1 and all(_plain(stage) for stage in stages)


def _plain(stage: StageResources) -> bool:
    return not stage.gpus and stage.memory_gb is None and stage.batch_size != "auto"


@contextlib.contextmanager
def keeping(resources: ResourcesConfig) -> Iterator[None]:
    """Let `keeps` return True inside the block, for stages with the CPUs of this config."""
    global _threads
    before, _threads = _threads, threads_of(resources.detect)
    try:
        yield
    finally:
        _threads = before


def keeps(stage: StageResources) -> bool:
    """Return whether the shards of a stage run in processes that are kept."""
    return _threads is not None and _threads == threads_of(stage) and _plain(stage)


def threads_of(stage: StageResources) -> int:
    """Return the number of threads that Ray gives OpenMP in a process of a stage."""
    return max(1, math.floor(stage.cpus))


def import_early(imports: Callable[[], None], resources: StageResources, count: int) -> None:
    """Let worker processes import modules while the driver still checks the run. Return at once.

    Args:
        imports: imports what the first shards will need. If it fails, nothing is reported here: the worker that needs a
            module says what is missing.
        resources: of one process.
        count: number of processes.
    """
    import ray

    task = ray.remote(_import).options(num_cpus=resources.cpus, max_retries=0)
    for _ in range(count):
        task.remote(imports)


def _import(imports: Callable[[], None]) -> None:
    with contextlib.suppress(ImportError, VtcavError):
        imports()


def submit(calls: Sequence[Callable[[], Any]], resources: StageResources) -> list[Any]:
    """Let worker processes call functions, each one function. Return at once, with what `results` takes.

    Args:
        calls: picklable, and so are their results and errors.
        resources: of one process.
    """
    import ray

    task = ray.remote(_call).options(num_cpus=resources.cpus, max_retries=0)
    return [task.remote(with_added(call)) for call in calls]


def results(submitted: Sequence[Any]) -> list[Any]:
    """Wait for submitted functions and return their results. Log here what the functions logged.

    Raises:
        EnvironmentFault: a process died. Otherwise what a function raised.
    """
    import ray
    import ray.exceptions

    try:
        found = ray.get(list(submitted))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
        raise EnvironmentFault(
            "A process died that checked the detector or the model. Does this machine have enough memory for them? "
            "`vtcav run CONFIG --dry-run` makes the same checks without other processes."
        ) from error
    for record in (record for _, records in found for record in records):
        logging.getLogger(record.name).handle(record)
    return [result for result, _ in found]


def _call(call: Callable[[], Any]) -> tuple[Any, list[logging.LogRecord]]:
    """Return the result of a function, and what it logged."""
    with logs.kept() as records:
        return call(), records


def run_kept(
    feed: Feed,
    row_of: Callable[[Shard], Row],
    made_by: bytes,
    call: str,
    *,
    name: str,
    resources: StageResources,
    at_once: int,
) -> Iterator[Row]:
    """Run every shard of a feed as a task, and yield the summaries in the order in which the shards finish.

    Args:
        feed: the shards; the caller may add more between two summaries, until it closes the feed.
        row_of: turns a shard into a row.
        made_by: pickled function that creates what turns a shard's row into its summary.
        call: id of this call of `run_shards`.
        name: of the tasks; a process shows it while it works.
        resources: of one process.
        at_once: maximum number of shards that Ray has at a time.
    """
    import ray
    import ray.exceptions

    task = ray.remote(_run).options(
        name=name,
        num_cpus=resources.cpus,
        max_retries=-1,  # no limit
        retry_exceptions=[ray.exceptions.RaySystemError],
    )
    maker = ray.put(made_by)
    running: list[Any] = []
    while True:
        while len(running) < at_once and (shard := feed.take()) is not None:
            running.append(task.remote(row_of(shard), call, maker))
        if not running:
            assert feed.closed, "nothing is running, so nothing can be added"
            return
        (done,), running = ray.wait(running, num_returns=1)
        yield ray.get(done)


def _run(row: Row, call: str, made_by: bytes) -> Row:
    """Run one shard in this process, with what was made here for an earlier shard of the same call."""
    global _kept
    if _kept is None or _kept[0] != call:
        import ray.cloudpickle

        _kept = None  # release the model of the stage before
        gc.collect()
        return_freed_memory()
        _kept = call, ray.cloudpickle.loads(made_by)()
    return _kept[1](row)
