"""Stream shards through an actor pool. The actor that computes a shard also commits it.

One row of the Ray dataset is one shard: ids and URLs go in (never pixels), a summary comes out. The actor fetches and
decodes videos next to the model, so frames never cross the object store. A shard is one file and one commit record, so
work that dies can be restarted without losing or repeating a row. Ray restarts an actor that dies, without end;
`vtcav_ray.engine.attempts` finds the video that caused it. Exceptions of our code are handled here. docs/engine.md
shows which operators run where.

In a Ray that was started for one run, tasks take the place of actors (`vtcav_ray.engine.resident`).
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import tenacity

from vtcav_ray.config import DecodeLimits, StageResources
from vtcav_ray.engine import observe, resident
from vtcav_ray.engine.attempts import Attempts, Rehearsal
from vtcav_ray.engine.caught import Caught, described, of_shard
from vtcav_ray.engine.feed import NOTHING, Feed, dataset_of, start_board
from vtcav_ray.engine.session import check_demand, cluster_slots, configure_data, node_is_there
from vtcav_ray.errors import EnvironmentFault, StageError, VtcavError
from vtcav_ray.registry import with_added
from vtcav_ray.rows import Failure
from vtcav_ray.runs import logs
from vtcav_ray.runs.stage import Shard, Worker
from vtcav_ray.stages import facts_of
from vtcav_ray.store.access import storage_errors
from vtcav_ray.store.commits import ShardOutput, StageFolder
from vtcav_ray.video.guard import Guard

if TYPE_CHECKING:
    from ray.data import Dataset

logger = logging.getLogger(__name__)


# Storage errors that outlasted the retries of `vtcav_ray.store.access` do not concern one video. Most are transient, so
# the whole shard is retried. These are not:
FINAL = (PermissionError, FileNotFoundError)
FINAL_ERRNO = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
# A shard takes seconds to minutes: one queued shard per actor is enough, a second would only wait behind a slow one.
TASKS_IN_FLIGHT = 2

Begun = tuple[pa.Table, list[Failure]]  # the rows to compute, and failures of rows that harm the process


def run_shards(
    shards: Sequence[Shard] | Feed,
    make_worker: Callable[[], Worker],
    output: StageFolder,
    resources: StageResources,
    rehearsal: Rehearsal | None = None,
) -> Iterator[dict[str, Any]]:
    """Run every shard and yield its summary (shard, failures, seconds, items), in the order in which they finish.

    Args:
        shards: remaining shards; a `Feed` to add more while they run, by the caller, between two summaries.
        make_worker: creates the worker, in the actor; must be picklable.
        output: where the actor commits the shard.
        resources: of one actor, and the number of actors.
        rehearsal: how to check the videos of a shard whose actor died; None: the shards contain no videos.

    Raises:
        StageError: a shard can't be completed: the worker raised it, or the shard failed `resources.attempts` times.
            EnvironmentFault if storage or the cluster is to blame.
    """
    if not shards:
        return
    import ray.exceptions

    check_demand(output.stage, resources)
    limit = resources.max_actors or cluster_slots(resources.cpus, resources.gpus)
    pool = max(1, min(limit, len(shards)))
    actor = {
        "make_worker": with_added(make_worker),
        "output": output,
        "resources": resources,
        "rehearsal": rehearsal,
        "run": uuid.uuid4().hex,
    }
    try:
        for row in _kept_rows(shards, actor, pool) if resident.keeps(resources) else _pool_rows(shards, actor, pool):
            if row["error"]:
                raise (EnvironmentFault if row["environment"] else StageError)(row["error"])
            if row["shard"] == NOTHING:
                continue
            yield {name: row[name] for name in ("shard", "failures", "seconds", "items")}
    except ray.exceptions.RayError as error:
        # Errors raised in an actor, or that ended it for good, concern the work; all others concern the cluster.
        of_the_work = ray.exceptions.UserCodeException | ray.exceptions.RayTaskError | ray.exceptions.RayActorError
        ours = isinstance(error, of_the_work)
        raise (StageError if ours else EnvironmentFault)(
            f"Ray could not continue the stage {output.stage}: {_last_line(error)} Finished shards are kept: run again."
        ) from error


def _pool_rows(shards: Sequence[Shard] | Feed, actor: Mapping[str, Any], pool: int) -> Iterator[dict[str, Any]]:
    """Run shards in a pool of actors, and yield their summaries.

    Args:
        shards: as for `run_shards`.
        actor: arguments of `_ShardActor`.
        pool: maximum number of actors.
    """
    from ray.data import ActorPoolStrategy

    configure_data()
    resources: StageResources = actor["resources"]
    floor = min(resources.min_actors, pool)
    # An actor that restarts queues for a place behind all that never started, and keeps its shards meanwhile. So ask
    # only for those that have a place now. The pool grows when nodes come.
    first = max(floor, min(pool, cluster_slots(resources.cpus, resources.gpus)))
    board = start_board(shards) if isinstance(shards, Feed) else None
    dataset = dataset_of(board, _to_ipc) if isinstance(shards, Feed) else _dataset(shards)
    return dataset.map_batches(
        _ShardActor,
        fn_constructor_kwargs={**actor, "board": board},
        batch_size=1,
        batch_format="pyarrow",
        # Start them at once: a pool grows by one per decision, but here the amount of work is known.
        compute=ActorPoolStrategy(
            min_size=floor, max_size=pool, initial_size=first, max_tasks_in_flight_per_actor=TASKS_IN_FLIGHT
        ),
        num_cpus=resources.cpus,
        num_gpus=resources.gpus,
        memory=int(resources.memory_gb * 1e9) if resources.memory_gb is not None else None,
    ).iter_rows()


def _kept_rows(shards: Sequence[Shard] | Feed, actor: Mapping[str, Any], pool: int) -> Iterator[dict[str, Any]]:
    """Run shards as tasks in processes that are kept, and yield their summaries. Arguments as for `_pool_rows`."""
    import ray.cloudpickle

    feed = shards if isinstance(shards, Feed) else Feed.of(shards)
    made_by = ray.cloudpickle.dumps(functools.partial(_make_runner, **actor))
    resources: StageResources = actor["resources"]
    # One more waits, so that no process waits for the driver; but Ray would run it at once if a CPU is free.
    at_once = pool + (pool >= cluster_slots(resources.cpus, resources.gpus))
    name = f"shard of {actor['output'].stage}"
    return resident.run_kept(feed, _row, made_by, actor["run"], name=name, resources=resources, at_once=at_once)


def _make_runner(**actor: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return _ShardActor(**actor).run


def _dataset(shards: Iterable[Shard]) -> Dataset:
    """Return the dataset of a fixed list of shards."""
    import ray.data

    items = [_row(shard) for shard in shards]
    return ray.data.from_items(items, override_num_blocks=len(items))


def _row(shard: Shard) -> dict[str, Any]:
    return {"name": shard.name, "rows": _to_ipc(shard.rows)}


class _ShardActor:
    """The Ray side of a worker: attempts, commit, summary. An actor, or an object in a process that is kept."""

    def __init__(
        self,
        make_worker: Callable[[], Worker],
        output: StageFolder,
        resources: StageResources,
        rehearsal: Rehearsal | None,
        run: str,
        board: Any = None,
    ) -> None:
        import ray

        self._board = board
        node = ray.get_runtime_context().get_node_id()
        self.output = output
        self.tries = resources.attempts
        self.attempts = Attempts(output, resources.attempts, run, node, node_is_there, rehearsal)
        self.guard = Guard(
            rehearsal.limits.stall_seconds if rehearsal is not None else DecodeLimits().stall_seconds,
            resources.memory_gb * 1e9 if resources.memory_gb is not None else None,
        )
        self.worker: Worker | None = None
        self.setup_error, self.setup_environment = "", False
        logs.configure()
        caught = Caught()
        try:
            with caught:
                self.worker = make_worker()
        except VtcavError as error:  # raised here, it would only show as "actor died": pass the message on
            self.setup_environment = isinstance(error, EnvironmentFault)
            # No shard is to blame: the worker did not start.
            self.setup_error = f"{error} ({type(error).__name__} at the start of stage {output.stage})"
        except storage_errors() as error:
            self.setup_environment = True
            self.setup_error = f"Stage {output.stage} can't start: {type(error).__name__}: {error}. Run again."
        if caught.error is not None:
            self.setup_error = f"Stage {output.stage} can't start: {described(caught.error)}"

    def __call__(self, batch: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([self.run(row) for row in batch.to_pylist()])

    def run(self, row: dict[str, Any]) -> dict[str, Any]:
        """Run one shard, from a row with `name` and `rows` to its summary."""
        with self.guard, logs.context(run=self.output.run.url, stage=self.output.stage):
            return self._run(row)

    def _run(self, row: dict[str, Any]) -> dict[str, Any]:
        started, name, worker = time.perf_counter(), row["name"], self.worker
        summary: dict[str, Any] = {"shard": name, "failures": 0, "seconds": 0.0, "items": 0.0}
        summary |= {"error": self.setup_error, "environment": self.setup_environment}
        if worker is None:
            return summary
        if name == NOTHING or not self._wanted(name):
            return summary | {"shard": NOTHING}
        # Cached: a retry after it succeeded does not begin again.
        begin = functools.cache(lambda: self.attempts.begin(name, _from_ipc(row["rows"]), worker))
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_of_storage),
            wait=tenacity.wait_exponential(multiplier=1.0, max=30.0),
            stop=lambda state: state.attempt_number >= self.tries or _is_final(state),
            after=lambda state: logger.warning(
                "shard %s, attempt %d of %d: %s", name, state.attempt_number, self.tries, _error(state)
            ),
            reraise=True,
        )
        caught, done = Caught(), dict[str, Any]()
        try:
            with caught:
                done = attempts(self._compute, name, worker, begin, started)
        except VtcavError as error:
            self.attempts.end(name)
            environment = isinstance(error, EnvironmentFault)
            return summary | {"error": of_shard(error, self.output.stage, name), "environment": environment}
        except storage_errors() as error:
            return summary | {
                "environment": True,
                "error": f"Shard {name} of stage {self.output.stage} failed at attempt "
                f"{attempts.statistics['attempt_number']}: {type(error).__name__}: {error}. Check that storage can be "
                "reached and has room; run again.",
            }
        if caught.error is not None:
            self.attempts.end(name)
            return summary | {"error": f"Shard {name} of stage {self.output.stage} failed: {described(caught.error)}"}
        return summary | done

    def _wanted(self, name: str) -> bool:
        """Return whether a shard is still wanted: the driver may have seen enough while it waited."""
        if self._board is None:
            return True
        import ray

        return bool(ray.get(self._board.wants.remote(name)))

    def _compute(self, name: str, worker: Worker, begin: Callable[[], Begun], started: float) -> dict[str, Any]:
        """Compute and commit one shard. Return its failures and seconds."""
        rows, lost = begin()
        result = worker(rows) if rows.num_rows else ShardOutput({})
        result = dataclasses.replace(
            result,
            failures=[*result.failures, *lost],
            metrics={"seconds": time.perf_counter() - started, **result.metrics},
        )
        record = self.output.commit(name, result)
        seconds = time.perf_counter() - started
        observe.shard_done(self.output.stage, name, rows, result, seconds)
        items = float(result.metrics.get(facts_of(self.output.stage).unit or "", 0.0))
        return {"failures": record["failures"], "seconds": seconds, "items": items}


def _error(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _is_of_storage(error: BaseException) -> bool:
    return isinstance(error, storage_errors()) and not isinstance(error, VtcavError)


def _is_final(state: tenacity.RetryCallState) -> bool:
    error = _error(state)
    return isinstance(error, FINAL) or getattr(error, "errno", None) in FINAL_ERRNO


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]


def _to_ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _from_ipc(data: bytes) -> pa.Table:
    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()
