"""After any kill, the next `run` gives the tables of an undisturbed run and repeats no finished work.

The long version, with a real pipeline and kills at random moments, is benchmarks/soak.py.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
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
from tests.helpers.waiting import wait_for
from tests.helpers.whole_run import add_node
from vtcav_ray.config import ResourcesConfig, StageResources
from vtcav_ray.engine import ray_session, run_shards
from vtcav_ray.engine.session import cluster_slots
from vtcav_ray.store.commits import ShardOutput, StageFolder, stage_folder
from vtcav_ray.store.folder import Folder

pytestmark = pytest.mark.slow


def data_files(output: StageFolder) -> dict[str, bytes]:
    root = Path(output.folder.url)
    return {path: (root / path).read_bytes() for path in output.files("tracks")}


def committed_shards(folder: Path) -> set[str]:
    return stage_folder(Folder(str(folder)), "tracks", "k").committed()


def check(folder: Path, reference: StageFolder, kills: int, at_once: int = 3) -> None:
    """Check that the bytes are the same, and that at most the shards in progress at a death were repeated."""
    output = stage_folder(Folder(str(folder)), "tracks", "k")
    assert output.complete
    assert data_files(output) == data_files(reference)
    assert output.manifest()["rows"] == {"tracks": toy_stage.SHARDS * toy_stage.ROWS_A_SHARD}
    done = Counter(path.name.split("-")[1] for path in folder.glob("did-*"))
    assert len(done) == toy_stage.SHARDS
    assert sum(done.values()) - len(done) <= kills * at_once


@pytest.fixture
def reference(tmp_path: Path) -> StageFolder:
    return toy_stage.undisturbed(tmp_path / "undisturbed")


def start(folder: Path, **environment: str) -> subprocess.Popen[bytes]:
    """Start a separate driver, so that a kill does not make Ray end the tests' process."""
    command = [sys.executable, str(Path(toy_stage.__file__)), str(folder)]
    with errors_of(folder).open("wb") as errors:
        return subprocess.Popen(command, stderr=errors, env=os.environ | environment)


def errors_of(folder: Path) -> Path:
    return folder.with_suffix(".errors")


def ends_well(process: subprocess.Popen[bytes], folder: Path) -> None:
    assert process.wait(300) == 0, errors_of(folder).read_text()


def test_the_driver_is_killed_then_stopped_by_hand_then_loses_an_actor(tmp_path: Path, reference: StageFolder) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    process = start(folder)
    wait_for(lambda: len(committed_shards(folder)) >= 4, process=process)
    process.kill()
    process.wait()

    process = start(folder)
    wait_for(lambda: len(committed_shards(folder)) >= 12, process=process)
    assert not (Path(folder) / "tracks" / "k" / "manifest.json").exists()
    process.send_signal(signal.SIGINT)  # Ctrl-C
    assert process.wait(60) != 0
    before = committed_shards(folder)
    assert len(before) < toy_stage.SHARDS

    for mark in folder.glob("pid-*"):
        mark.unlink()
    process = start(folder)
    wait_for(lambda: any(folder.glob("pid-*")), process=process)
    os.kill(int(next(folder.glob("pid-*")).name.removeprefix("pid-")), signal.SIGKILL)
    ends_well(process, folder)
    check(folder, reference, kills=3)


@pytest.fixture(scope="module")
def cluster() -> Iterator[object]:
    """A cluster: a head without CPUs, and three nodes with one CPU and one simulated GPU each."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [add_node(made, num_cpus=1, num_gpus=1) for _ in range(3)]
    made.wait_for_nodes()
    yield made, nodes
    made.global_state.disconnect()  # otherwise it looks for its cluster, finds none and ends this process
    made.shutdown()


class Placed(toy_stage.Toy):
    """An actor that notes its node and GPU and waits until five such actors run at the same time."""

    def __call__(self, rows: pa.Table) -> ShardOutput:
        node, gpus = ray.get_runtime_context().get_node_id(), ray.get_gpu_ids()
        (self.marks / f"at-{node}-{gpus[0]}-{os.getpid()}").touch()
        wait_for(lambda: len(list(self.marks.glob("at-*"))) == 5)
        return super().__call__(rows)


def test_actors_share_a_gpu(tmp_path: Path, cluster: tuple[object, list[object]]) -> None:
    """With a quarter of a GPU per actor, 12 actors fit on three GPUs, and 5 need at least two."""
    made, _ = cluster
    for module in (sys.modules[__name__], toy_stage, waiting):
        ray.cloudpickle.register_pickle_by_value(module)
    output = stage_folder(Folder(str(tmp_path / "run")), "tracks", "k")
    resources = StageResources(cpus=0.25, gpus=0.25, max_actors=5)
    with ray_session(ResourcesConfig(address=made.address)):  # type: ignore[attr-defined]
        assert cluster_slots(resources.cpus, resources.gpus) == 12
        list(run_shards(toy_stage.shards(), lambda: Placed(str(tmp_path)), output, resources))
    places = Counter(path.name.rsplit("-", 1)[0] for path in tmp_path.glob("at-*"))
    assert sum(places.values()) == 5
    assert max(places.values()) in (2, 3, 4)


def test_a_node_is_killed(tmp_path: Path, reference: StageFolder, cluster: tuple[object, list[object]]) -> None:
    made, nodes = cluster
    folder = tmp_path / "run"
    folder.mkdir()

    process = start(folder, RAY_ADDRESS=made.address)  # type: ignore[attr-defined]
    wait_for(lambda: len(committed_shards(folder)) >= 6, process=process)
    made.remove_node(nodes[1], allow_graceful=False)  # type: ignore[attr-defined]
    ends_well(process, folder)
    check(folder, reference, kills=1)


class Crowd(toy_stage.Toy):
    """An actor that waits until four such actors run at the same time, which needs a growing pool."""

    def __call__(self, rows: pa.Table) -> ShardOutput:
        (self.marks / f"pid-{os.getpid()}").touch()
        wait_for(lambda: len(list(self.marks.glob("pid-*"))) >= 4)
        return super().__call__(rows)


def test_the_pool_grows_with_the_cluster_and_what_dies_is_replaced(
    tmp_path: Path, reference: StageFolder, cluster: tuple[object, list[object]]
) -> None:
    """While shards wait, the cluster grows to four nodes; then an actor is killed, and a fifth one replaces it."""
    made, _ = cluster
    folder = tmp_path / "run"
    folder.mkdir()
    for module in (sys.modules[__name__], toy_stage, waiting):
        ray.cloudpickle.register_pickle_by_value(module)
    output = stage_folder(Folder(str(folder)), "tracks", "k")
    resources = StageResources(min_actors=2, max_actors=4)
    done: list[object] = []

    def run() -> None:
        done.extend(run_shards(toy_stage.shards(), lambda: Crowd(str(folder), 0.8), output, resources))

    def actors() -> list[Path]:
        return sorted(folder.glob("pid-*"))

    with ray_session(ResourcesConfig(address=made.address)):  # type: ignore[attr-defined]
        slots = len(made.worker_nodes)  # type: ignore[attr-defined]
        assert slots in (2, 3), "one node may be gone by now (test_a_node_is_killed)"
        wait_for(lambda: cluster_slots(1, 0) == slots)  # Ray takes a while to call a node dead
        # Only the run is in a thread, because Ray starts nodes only in the main thread.
        runner = threading.Thread(target=run, daemon=True)
        runner.start()
        wait_for(lambda: len(actors()) == slots)
        time.sleep(0.5)
        assert len(actors()) == slots, "as many as there is room for, and no more"
        for _ in range(4 - slots):
            add_node(made, num_cpus=1)
        wait_for(lambda: len(committed_shards(folder)) >= 4)
        assert len(actors()) == 4
        os.kill(int(actors()[0].name.removeprefix("pid-")), signal.SIGKILL)
        wait_for(lambda: len(actors()) == 5)
        runner.join(300)
    assert len(done) == toy_stage.SHARDS
    output.finish({}, {"warnings": []})
    check(folder, reference, kills=1, at_once=2)


def test_a_full_disk_ends_the_run_and_room_lets_it_go_on(tmp_path: Path, reference: StageFolder) -> None:
    """The run uses a separate small file system that a large file fills."""
    folder = tmp_path / "small"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)], check=True)
    except (subprocess.CalledProcessError, FileNotFoundError):
        pytest.skip("this user may not mount a file system")
    try:
        ballast = folder / "ballast"
        ballast.write_bytes(b"x" * 340_000)
        assert start(folder).wait(300) != 0
        errors = errors_of(folder).read_text()
        assert re.search(r"EnvironmentFault: .*No space left on device.*has room; run again", errors), errors
        assert not list(folder.rglob("*.tmp"))
        before = committed_shards(folder)
        assert 0 < len(before) < toy_stage.SHARDS
        ballast.write_bytes(b"")
        ends_well(start(folder), folder)
        check(folder, reference, kills=1)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
