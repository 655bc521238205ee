"""A run whose process ended without a word does not look like one that runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.helpers.waiting import make_old
from vtcav_ray.runs.pace import shards_per_second
from vtcav_ray.runs.run import Run
from vtcav_ray.runs.run_lease import CLOCKS_APART_S, EXPIRES_S, LEASES, NAME, silent_since, writing
from vtcav_ray.runs.status import run_status
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.lease import Leases, Owner


def test_the_rate_is_that_of_the_last_minute() -> None:
    fast_then_slow = [*(float(i) / 10 for i in range(100)), 590.0, 600.0, 610.0]
    assert shards_per_second(fast_then_slow, 0.0, 620.0) == pytest.approx(3 / 60)
    assert shards_per_second(fast_then_slow, 0.0, 5000.0) == pytest.approx(103 / 5000)  # nothing in the last minute
    assert shards_per_second([10.0, 20.0], 0.0, 20.0) == pytest.approx(0.1)
    assert shards_per_second([], 0.0, 20.0) is None
    clips = [8.0] * 100 + [2.0, 4.0, 6.0]
    assert shards_per_second(fast_then_slow, 0.0, 620.0, clips) == pytest.approx(12 / 60)


def begun(folder: Folder, **changes: object) -> Path:
    """Write a run folder that says `running`, with the lease of a process; return the lease's file."""
    folder.write_json("run.json", {"config": {"videos": {"uri": "x"}}, "keys": {}, "status": "running: tracks"})
    owner = {**vars(Owner.here("vtcav run")), **changes}
    folder.write_bytes(f"{LEASES}/{NAME}/000001.json", json.dumps(owner).encode())
    return Path(folder.url, LEASES, NAME, "000001.json")


def test_a_process_that_runs_is_running(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    begun(folder)
    status = run_status(Run(folder.url))
    assert status.not_running_since is None
    assert status.sentence == "running: tracks"
    with writing(Folder(str(tmp_path / "other"))) as writer:
        assert silent_since(writer.folder, os.stat(tmp_path).st_mtime) is None


def test_a_killed_process_of_this_machine_is_not_running(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    file = begun(folder, started="1")  # another process has this pid now
    before = sorted(path.name for path in tmp_path.rglob("*"))
    status = run_status(Run(folder.url))
    assert status.not_running_since == pytest.approx(file.stat().st_mtime, abs=1)
    assert status.sentence.startswith("not running since 2")
    assert "was running: tracks" in status.sentence
    assert status.as_json()["status"] == "running: tracks"
    assert sorted(path.name for path in tmp_path.rglob("*")) == before, "status writes nothing"


def test_a_silent_process_of_another_machine_is_not_running(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    file = begun(folder, machine="another", host="elsewhere")
    assert silent_since(folder, file.stat().st_mtime + EXPIRES_S) is None
    make_old(file.parent, EXPIRES_S + CLOCKS_APART_S + 5)
    assert run_status(Run(folder.url)).not_running_since == pytest.approx(file.stat().st_mtime, abs=1)
    file.with_suffix(".beat").write_bytes(b"x")  # it has a newer heart-beat
    assert run_status(Run(folder.url)).not_running_since is None


def test_a_run_that_has_ended_is_not_called_silent(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    begun(folder, started="1")
    folder.write_json("run.json", {"config": {"videos": {"uri": "x"}}, "keys": {}, "status": "done"})
    assert run_status(Run(folder.url)).sentence == "done"
    assert Leases(folder.below("none"), EXPIRES_S).last_sign(NAME) is None
