"""Shards streamed through an actor pool, each committed by the actor that made it.

One row of the Ray dataset is one shard: what it names goes in (ids and URLs, never pixels), a summary comes out.
Videos are fetched and decoded inside the actor, next to the model, so no frame ever crosses the object store; and since
a shard is one file and one commit record, whatever dies can be started again without a row lost or doubled. Ray retries
an actor that dies; what our code raises is handled here.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from vtcav_ray import logs
from vtcav_ray.config import StageResources
from vtcav_ray.engine import observe
from vtcav_ray.engine.session import cluster_slots
from vtcav_ray.errors import StageError, VtcavError
from vtcav_ray.stage import Shard, Worker
from vtcav_ray.storage import StageFolder

logger = logging.getLogger(__name__)


# Errors of storage and network: not a property of one video. Most may pass, so the whole shard is tried again.
STORAGE_ERRORS = (OSError, TimeoutError)
FINAL = (PermissionError, FileNotFoundError)


def run_shards(
    shards: Sequence[Shard],
    make_worker: Callable[[], Worker],
    output: StageFolder,
    resources: StageResources,
) -> Iterator[dict[str, Any]]:
    """Run every shard and yield its commit record, in the order in which they finish.

    Args:
        shards: what is still to be done.
        make_worker: makes the worker, in the actor; must be picklable.
        output: where the actor commits the shard.
        resources: of one actor, and how many.

    Raises:
        StageError: a shard can't be completed: the worker said so, or it failed `resources.attempts` times.
    """
    if not shards:
        return
    import ray.data
    import ray.exceptions
    from ray.data import ActorPoolStrategy

    limit = resources.max_actors or cluster_slots(resources.cpus, resources.gpus)
    pool = max(1, min(limit, len(shards)))
    floor = min(resources.min_actors, pool)
    items = [{"name": shard.name, "rows": _to_ipc(shard.rows)} for shard in shards]
    memory = int(resources.memory_gb * 1e9) if resources.memory_gb is not None else None
    dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        _ShardActor,
        fn_constructor_kwargs={"make_worker": make_worker, "output": output, "attempts": resources.attempts},
        batch_size=1,
        batch_format="pyarrow",
        # All actors from the start: a pool grows by one a decision, and here the work to come is known.
        compute=ActorPoolStrategy(min_size=floor, max_size=pool, initial_size=pool),
        num_cpus=resources.cpus,
        num_gpus=resources.gpus,
        memory=memory,
    )
    try:
        for row in dataset.iter_rows():
            if row["error"]:
                raise StageError(row["error"])
            yield {"shard": row["shard"], "failures": row["failures"], "seconds": row["seconds"]}
    except ray.exceptions.RayError as error:
        raise StageError(
            f"Ray could not go on with the stage {output.stage}: {_last_line(error)} "
            "Finished shards are kept: run again."
        ) from error


class _ShardActor:
    """The Ray side of a worker: attempts, commit, summary."""

    def __init__(self, make_worker: Callable[[], Worker], output: StageFolder, attempts: int) -> None:
        self.output = output
        self.attempts = attempts
        self.worker: Worker | None = None
        self.setup_error = ""
        logs.configure()
        try:
            self.worker = make_worker()
        except VtcavError as error:  # a crash here would only be seen as "actor died": hand the sentence on
            self.setup_error = str(error)

    def __call__(self, batch: pa.Table) -> pa.Table:
        with logs.context(run=self.output.run.url, stage=self.output.stage):
            return pa.Table.from_pylist([self._run(row) for row in batch.to_pylist()])

    def _run(self, row: dict[str, Any]) -> dict[str, Any]:
        started = time.perf_counter()
        summary: dict[str, Any] = {"shard": row["name"], "failures": 0, "seconds": 0.0, "error": self.setup_error}
        if self.worker is None:
            return summary
        rows = _from_ipc(row["rows"])
        for attempt in range(1, self.attempts + 1):
            try:
                result = self.worker(rows)
                metrics = {"seconds": time.perf_counter() - started, **result.metrics}
                record = self.output.commit(row["name"], dataclasses.replace(result, metrics=metrics))
                seconds = time.perf_counter() - started
                observe.shard_done(self.output.stage, row["name"], rows, result, seconds)
                return summary | {"failures": record["failures"], "seconds": seconds}
            except VtcavError as error:
                return summary | {"error": str(error)}
            except STORAGE_ERRORS as error:
                logger.warning("shard %s, attempt %d of %d: %s", row["name"], attempt, self.attempts, error)
                if attempt == self.attempts or isinstance(error, FINAL):
                    return summary | {
                        "error": f"Shard {row['name']} of stage {self.output.stage} failed at attempt {attempt}: "
                        f"{type(error).__name__}: {error}. Check that storage can be reached and has room; run again."
                    }
                time.sleep(min(30.0, 0.5 * 2**attempt))
        raise AssertionError("unreachable: the last attempt returns")


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
