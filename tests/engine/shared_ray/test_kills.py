"""After any kill, the next `run` gives the tables of an undisturbed run and repeats no finished work.

tests/engine/test_nodes.py kills nodes of a cluster. The long version, with a real pipeline and kills at random moments,
is benchmarks/soak.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from tests.helpers import toy_stage
from tests.helpers.toy_runs import check, committed_shards, in_actors, start
from tests.helpers.waiting import wait_for
from vtcav_ray.config import ResourcesConfig, StageResources
from vtcav_ray.errors import EnvironmentFault
from vtcav_ray.store.commits import StageFolder

pytestmark = pytest.mark.slow

RESOURCES = ResourcesConfig(num_cpus=2)


def test_the_driver_is_killed_then_stopped_by_hand_then_loses_an_actor(
    tmp_path: Path, reference: StageFolder, shared_ray: str
) -> None:
    """The first driver starts its own Ray, which ends with it."""
    folder = tmp_path / "run"
    folder.mkdir()
    process = start(folder, actors=2)
    wait_for(lambda: len(committed_shards(folder)) >= 4, process=process)
    process.kill()
    process.wait()

    process = start(folder, 2, RAY_ADDRESS=shared_ray)
    wait_for(lambda: len(committed_shards(folder)) >= 12, process=process)
    assert not (Path(folder) / "tracks" / "k" / "manifest.json").exists()
    process.send_signal(signal.SIGINT)  # Ctrl-C
    assert process.wait(60) != 0
    before = committed_shards(folder)
    assert len(before) < toy_stage.SHARDS

    for mark in folder.glob("pid-*"):
        mark.unlink()
    killed: list[int] = []

    def kill_one() -> None:
        wait_for(lambda: any(folder.glob("pid-*")))
        killed.append(int(next(folder.glob("pid-*")).name.removeprefix("pid-")))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    toy_stage.complete(str(folder), RESOURCES, in_actors(max_actors=2))
    killer.join()
    assert killed
    check(folder, reference, kills=3)


@pytest.mark.usefixtures("shared_ray")
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
        with pytest.raises(EnvironmentFault, match=r"No space left on device.*has room; run again"):
            toy_stage.complete(str(folder), RESOURCES, StageResources(max_actors=2))
        assert not list(folder.rglob("*.tmp"))
        before = committed_shards(folder)
        assert 0 < len(before) < toy_stage.SHARDS
        ballast.write_bytes(b"")
        toy_stage.complete(str(folder), RESOURCES, StageResources(max_actors=2))
        check(folder, reference, kills=1)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
