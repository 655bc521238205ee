"""A pool of actors on a cluster of several nodes, which come, go and share GPUs."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import ray
import ray.cloudpickle

from tests.helpers import toy_stage, waiting
from tests.helpers.toy_runs import check, committed_shards
from tests.helpers.waiting import wait_for
from tests.helpers.whole_run import add_node
from vtcav_ray.config import ResourcesConfig, StageResources
from vtcav_ray.engine import ray_session, run_shards
from vtcav_ray.engine.session import cluster_slots
from vtcav_ray.store.commits import ShardOutput, StageFolder, stage_folder
from vtcav_ray.store.folder import Folder

pytestmark = pytest.mark.slow

# Nothing here reads logs in the driver or asks for nodes, so these processes would only cost time.
HEAD = {"num_cpus": 0, "include_dashboard": False, "include_log_monitor": False, "no_monitor": True}


@pytest.fixture(scope="module")
def cluster() -> Iterator[object]:
    """A cluster: a head without CPUs, and two nodes with one CPU and one simulated GPU each."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args=HEAD)
    nodes = [add_node(made, num_cpus=1, num_gpus=1) for _ in range(2)]
    made.wait_for_nodes()
    yield made, nodes
    made.global_state.disconnect()  # otherwise it looks for its cluster, finds none and ends this process
    made.shutdown()


class Placed(toy_stage.Toy):
    """An actor that notes its node and GPU and waits until three such actors run at the same time."""

    def __call__(self, rows: pa.Table) -> ShardOutput:
        node, gpus = ray.get_runtime_context().get_node_id(), ray.get_gpu_ids()
        (self.marks / f"at-{node}-{gpus[0]}-{os.getpid()}").touch()
        wait_for(lambda: len(list(self.marks.glob("at-*"))) == 3)
        return super().__call__(rows)


def test_actors_share_a_gpu(tmp_path: Path, cluster: tuple[object, list[object]]) -> None:
    """With half a GPU per actor, four actors fit on two GPUs, and three need both."""
    made, _ = cluster
    for module in (sys.modules[__name__], toy_stage, waiting):
        ray.cloudpickle.register_pickle_by_value(module)
    output = stage_folder(Folder(str(tmp_path / "run")), "tracks", "k")
    resources = StageResources(cpus=0.25, gpus=0.5, max_actors=3)
    with ray_session(ResourcesConfig(address=made.address)):  # type: ignore[attr-defined]
        assert cluster_slots(resources.cpus, resources.gpus) == 4
        list(run_shards(toy_stage.shards(), lambda: Placed(str(tmp_path)), output, resources))
    places = Counter(path.name.rsplit("-", 1)[0] for path in tmp_path.glob("at-*"))
    assert sorted(places.values()) == [1, 2]


class Crowd(toy_stage.Toy):
    """An actor that waits until three such actors run at the same time, which needs a growing pool."""

    def __call__(self, rows: pa.Table) -> ShardOutput:
        (self.marks / f"at-{os.getpid()}-{ray.get_runtime_context().get_node_id()}").touch()
        wait_for(lambda: len(list(self.marks.glob("at-*"))) >= 3)
        return super().__call__(rows)


def test_the_pool_grows_with_the_cluster_and_what_dies_is_replaced(
    tmp_path: Path, reference: StageFolder, cluster: tuple[object, list[object]]
) -> None:
    """While shards wait, the cluster grows to three nodes. Then an actor and the new node are killed."""
    made, nodes = cluster
    folder = tmp_path / "run"
    folder.mkdir()
    for module in (sys.modules[__name__], toy_stage, waiting):
        ray.cloudpickle.register_pickle_by_value(module)
    output = stage_folder(Folder(str(folder)), "tracks", "k")
    resources = StageResources(min_actors=1, max_actors=3)
    done: list[object] = []

    def run() -> None:
        done.extend(run_shards(toy_stage.shards(), lambda: Crowd(str(folder), 0.8), output, resources))

    def actors() -> list[list[str]]:
        """Return the process id and the node of each actor that has begun a shard."""
        return sorted(path.name.split("-")[1:] for path in folder.glob("at-*"))

    with ray_session(ResourcesConfig(address=made.address)):  # type: ignore[attr-defined]
        wait_for(lambda: cluster_slots(1, 0) == len(nodes) == 2)
        # Only the run is in a thread, because Ray starts nodes only in the main thread.
        runner = threading.Thread(target=run, daemon=True)
        runner.start()
        wait_for(lambda: len(actors()) == 2)
        time.sleep(0.5)
        assert len(actors()) == 2, "as many as there is room for, and no more"
        third = add_node(made, num_cpus=1)
        try:
            wait_for(lambda: len(committed_shards(folder)) >= 3 and len(actors()) >= 3)
            assert len(actors()) == len({node for _, node in actors()}) == 3
            victim = next(process for process, node in actors() if node != third.node_id)
            os.kill(int(victim), signal.SIGKILL)
        finally:
            made.remove_node(third, allow_graceful=False)  # type: ignore[attr-defined]
        assert len(committed_shards(folder)) < toy_stage.SHARDS
        wait_for(lambda: len(actors()) > 3)
        runner.join(300)
    assert len(done) == toy_stage.SHARDS
    output.finish({}, {"warnings": []})
    check(folder, reference, kills=2, at_once=2)
