"""A Ray cluster to run on: connect to an address, or start Ray on this machine and stop it at the end."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tenacity

from vtcav_ray.config import ResourcesConfig, StageResources
from vtcav_ray.engine import resident
from vtcav_ray.engine.fewer_processes import without_unused_processes
from vtcav_ray.engine.stray import LOG_LEVEL_LINE, without_line
from vtcav_ray.errors import EnvironmentFault
from vtcav_ray.runs import logs
from vtcav_ray.runs.interrupt import interrupter, own_sigterm

logger = logging.getLogger(__name__)

STARTS_TRIED = 3  # to start Ray on this machine: a busy one may need more than Ray's limit of 30 s
WATCH_SECONDS = 0.5
# Threads that Ray Data starts in the driver, by the start of their names. They run on for a moment after the iteration
# ends, and call Ray. A call after `ray.shutdown()` ends the process with status 1 and no message
# (ray-project/ray#19115).
DATA_THREADS = ("StreamingExecutor-", "Prefetcher", "iter_threaded", "map_tp_", "ray-data-")
DATA_THREADS_SECONDS = 10.0
EARLY_PROCESSES = 32  # that import packages before there is work: a small corpus has about as many shards
VITAL = ("raylet", "gcs_server")
TASK_LINES = r"_ShardActor|infinite retries remaining|A worker died or was killed while executing"
# Nothing may be downloaded or installed at run time, on any node, and Ray must not send usage statistics.
WORKER_ENVIRONMENT = {
    "YOLO_OFFLINE": "true",
    "YOLO_AUTOINSTALL": "false",
    "YOLO_VERBOSE": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}


@contextlib.contextmanager
def ray_session(
    resources: ResourcesConfig, on_death: Callable[[str], None] | None = None, *, keep: bool = False
) -> Iterator[None]:
    """Connect to `resources.address` or RAY_ADDRESS, or start Ray on this machine for the duration of the block.

    If this process is already connected to Ray, use that connection and leave it open.

    Args:
        resources: address or size of the cluster.
        on_death: called from another thread when a vital process of the Ray started here has died, with the name of
            the process.
        keep: keep worker processes from stage to stage, if Ray is started here and the stages suit each other
            (`vtcav_ray.engine.resident`). Only for one run: the processes keep the modules that they have imported.

    Raises:
        EnvironmentFault: no cluster answers at the address, or metrics are requested and their packages are missing.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray 2.60 warns about a coming change for CUDA_VISIBLE_DEVICES each time a CPU actor starts. Users don't need it.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray prints what happens to single tasks. The engine repeats them itself, and reports what matters.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", TASK_LINES)
    address = resources.address or os.environ.get("RAY_ADDRESS")
    if not address:
        # Only for a Ray that lives for this run: Ray Data's actors make its core log an "error" at every start
        # (ray-project/ray#53727), about arguments that outlive the run.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    if ray.is_initialized():
        yield
        return
    options: dict[str, object] = {"logging_level": logging.ERROR, "log_to_driver": False}
    variables = {**WORKER_ENVIRONMENT, **logs.environment()}
    keep = keep and not address and resident.can_keep(resources)
    if address:
        options |= {"address": address, "runtime_env": {"env_vars": variables}}
    else:
        # No dashboard, and therefore no job server: anyone who can reach these can run code here.
        options |= {"address": "local", "include_dashboard": False, "num_cpus": resources.num_cpus}
        if resources.metrics_port is not None:
            _check_metrics()
            options["_metrics_export_port"] = resources.metrics_port
        if resources.object_store_gb is not None:
            options["object_store_memory"] = int(resources.object_store_gb * 1e9)
        if keep and "OMP_NUM_THREADS" not in os.environ:  # as Ray sets it in the process of an actor
            variables["OMP_NUM_THREADS"] = str(resident.threads_of(resources.detect))
    # Processes of a Ray that starts here inherit the variables. With a runtime environment, Ray would not use the
    # processes that it starts first, and would ask another process before it starts one.
    with environment({} if address else variables):
        _start(options, address)
    try:
        with (
            resident.keeping(resources) if keep else contextlib.nullcontext(),
            _watched(on_death) if on_death is not None and not address else contextlib.nullcontext(),
        ):
            yield
    finally:
        _wait_for_data_threads()
        ray.shutdown()


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables inside the block, for processes that are started there."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _wait_for_data_threads() -> None:
    deadline = time.monotonic() + DATA_THREADS_SECONDS
    for thread in threading.enumerate():
        if thread.name.startswith(DATA_THREADS):
            thread.join(max(0.0, deadline - time.monotonic()))


def _check_metrics() -> None:
    """Check that Ray can serve metrics. Without the packages, Ray starts, logs to a file and leaves the port closed."""
    try:
        importlib.import_module("ray.dashboard.optional_deps")  # Ray makes the same check
    except ImportError as error:
        raise EnvironmentFault(
            f"`resources.metrics_port` needs packages that are not installed ({error}). Install them: "
            "pip install 'vtcav-ray[cluster]'. Or leave `resources.metrics_port` unset."
        ) from error


@contextlib.contextmanager
def _watched(on_death: Callable[[str], None]) -> Iterator[None]:
    """Watch the processes of the Ray that was started here.

    When its raylet is gone, a driver waits, and Ray's core ends it after about 20 s without an exception. So this
    watcher has to notice the death in time to record what happened.
    """
    import ray._private.worker

    node = ray._private.worker._global_node
    over = threading.Event()

    def look() -> None:
        while not over.wait(WATCH_SECONDS):
            if dead := [name for name, _ in node.dead_processes() if name in VITAL]:
                if not over.is_set():
                    on_death(dead[0])
                return

    thread = threading.Thread(target=look, name="ray-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _start(options: dict[str, object], address: str | None) -> None:
    import ray

    tries = 1 if address else STARTS_TRIED

    def stop_started(state: tenacity.RetryCallState) -> None:
        ray.shutdown()
        error = state.outcome.exception() if state.outcome else None
        logger.warning("Ray did not start, attempt %d of %d: %s", state.attempt_number, tries, error)

    starting = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_slow),
        stop=tenacity.stop_after_attempt(tries),
        before_sleep=stop_started,
        reraise=True,
    )
    try:
        # With an address, no process starts.
        fewer = contextlib.nullcontext() if address else without_unused_processes()
        with own_sigterm(), without_line(LOG_LEVEL_LINE), fewer:
            starting(ray.init, **options)
    except Exception as error:
        if not _is_slow(error) and not isinstance(error, (ConnectionError, RuntimeError, ValueError, TimeoutError)):
            raise
        ray.shutdown()
        advice = (
            "Check `resources.address` and RAY_ADDRESS; leave both unset to run on this machine."
            if address
            else "Is the machine too busy, or out of memory? Finished work is kept: run again."
        )
        raise EnvironmentFault(f"No Ray cluster at {address or 'this machine'}: {error} {advice}") from error


def _is_slow(error: BaseException) -> bool:
    return type(error) is Exception  # Ray raises this if a node did not start within 30 s


def configure_data() -> None:
    """Set what Ray Data does in this process. Call this before it is used: its import takes a second."""
    from ray.data import DataContext

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A dropped block would be a lost shard. Our code catches errors per video, so Ray must not.
    context.max_errored_blocks = 0
    # The loss of a machine while its actors load their models must not end the run; a model that crashes must.
    if hasattr(context, "max_consecutive_actor_init_deaths"):
        context.max_consecutive_actor_init_deaths = 8


def cluster_slots(cpus: float, gpus: float) -> int:
    """Return how many actors with these needs the cluster can hold now; at least 1."""
    import ray

    have = ray.cluster_resources()
    slots = have.get("CPU", 0.0) / cpus
    if gpus > 0:
        slots = min(slots, have.get("GPU", 0.0) / gpus)
    return max(1, int(slots + 1e-6))


def node_is_there(node: str) -> bool:
    """Return whether a node, by its hex id, is still part of the cluster."""
    import ray

    return any(found["NodeID"] == node and found["Alive"] for found in ray.nodes())


def check_demand(stage: str, resources: StageResources) -> None:
    """Check that some node can hold one actor. Ray would wait for such a node without end.

    Raises:
        EnvironmentFault: no node can, and this Ray was started for this run only, so none will join.
    """
    import ray

    wants = {"CPU": resources.cpus, "GPU": resources.gpus}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(all(node.get(kind, 0.0) >= amount for kind, amount in wants.items()) for node in nodes):
        return
    most = {kind: max((node.get(kind, 0.0) for node in nodes), default=0.0) for kind in wants}
    sentence = (
        f"An actor of the stage {stage} asks for {resources.cpus:g} CPUs and {resources.gpus:g} GPUs; the largest node "
        f"has {most['CPU']:g} and {most['GPU']:g}."
    )
    if _started_here():
        raise EnvironmentFault(f"{sentence} Lower `cpus` or `gpus` in the stage's section of `resources`.")
    logger.warning("%s Waiting for a large enough node.", sentence)


def _started_here() -> bool:
    """Return whether this process started the Ray that it is connected to."""
    import ray._private.worker

    node = ray._private.worker._global_node
    return node is not None and node.head


class LazySession:
    """A Ray session that starts when the first stage needs it, so that a run with nothing to do ends at once.

    Attributes:
        fault: set when the Ray that was started here died. The main thread is then interrupted (`KeyboardInterrupt`),
            since it would otherwise wait until Ray ends the process.
    """

    def __init__(self, resources: ResourcesConfig) -> None:
        self.resources = resources
        self.fault: EnvironmentFault | None = None
        self._interrupt: Callable[[], None] = lambda: None
        self._stack = contextlib.ExitStack()
        self._started = False

    def __enter__(self) -> LazySession:
        return self

    def start(self) -> None:
        """Connect or start, once."""
        if not self._started:
            self._interrupt = interrupter()
            self._stack.enter_context(ray_session(self.resources, self._died, keep=True))
            self._started = True

    def start_early(self) -> None:
        """Start Ray before the run is checked, if processes are kept."""
        elsewhere = self.resources.address or os.environ.get("RAY_ADDRESS")
        if not elsewhere and resident.can_keep(self.resources):
            self.start()

    def together(self, calls: Sequence[Callable[[], Any]], imports: Callable[[], None] | None = None) -> list[Any]:
        """Call functions and return their results: at the same time in processes that are kept, otherwise here in turn.

        Args:
            calls: picklable, and so are their results and errors.
            imports: imports what the first shards will need. The processes call it as they become free. Picklable.

        Raises:
            EnvironmentFault: a process died. Otherwise what a function raises.
        """
        detect = self.resources.detect
        if not resident.keeps(detect):
            return [call() for call in calls]
        submitted = resident.submit(calls, detect)
        if imports is not None:
            slots = cluster_slots(detect.cpus, 0.0)
            count = min(slots, detect.max_actors or slots, EARLY_PROCESSES)
            resident.import_early(imports, detect, count)
        return resident.results(submitted)

    def _died(self, process: str) -> None:
        self.fault = EnvironmentFault(
            f"Ray's process `{process}` on this machine has ended, and Ray can't continue without it. Was it killed "
            "because memory ran out? Finished shards are kept: run again."
        )
        self._interrupt()

    def __exit__(self, *exc: object) -> None:
        self._stack.close()
