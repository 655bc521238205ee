"""After any kill, the next `run` gives the tables of an undisturbed run and repeats no finished work.

tests/engine/test_nodes.py kills nodes of a cluster. The long version, with a real pipeline and kills at random moments,
is benchmarks/soak.py.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from tests.helpers import toy_stage
from tests.helpers.toy_runs import check, committed_shards, ends_well, errors_of, start
from tests.helpers.waiting import wait_for
from vtcav_ray.config import ResourcesConfig
from vtcav_ray.engine import ray_session
from vtcav_ray.store.commits import StageFolder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shared_ray() -> Iterator[str]:
    """The address of one Ray for most drivers of this file, because each start takes seconds of CPU."""
    with ray_session(ResourcesConfig(num_cpus=2)):
        yield ray.get_runtime_context().gcs_address


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
    process = start(folder, 2, RAY_ADDRESS=shared_ray)
    wait_for(lambda: any(folder.glob("pid-*")), process=process)
    os.kill(int(next(folder.glob("pid-*")).name.removeprefix("pid-")), signal.SIGKILL)
    ends_well(process, folder)
    check(folder, reference, kills=3)


def test_a_full_disk_ends_the_run_and_room_lets_it_go_on(
    tmp_path: Path, reference: StageFolder, shared_ray: str
) -> None:
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
        assert start(folder, 2, RAY_ADDRESS=shared_ray).wait(300) != 0
        errors = errors_of(folder).read_text()
        assert re.search(r"EnvironmentFault: .*No space left on device.*has room; run again", errors), errors
        assert not list(folder.rglob("*.tmp"))
        before = committed_shards(folder)
        assert 0 < len(before) < toy_stage.SHARDS
        ballast.write_bytes(b"")
        ends_well(start(folder, 2, RAY_ADDRESS=shared_ray), folder)
        check(folder, reference, kills=1)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
