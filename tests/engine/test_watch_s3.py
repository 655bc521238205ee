"""Watchers on a real S3 server: conditional writes, and processes that race for leases."""

from __future__ import annotations

import io
import multiprocessing
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.seaweed import Seaweed
from tests.helpers.waiting import wait_for
from vtcav_ray.config.loading import parse_config
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.lease import Leases, create_once
from vtcav_ray.watch.find import FoundCheckpoint
from vtcav_ray.watch.loop import Pass, WatchOptions, watch_once
from vtcav_ray.watch.page import update_report
from vtcav_ray.watch.registry import CheckpointRecords

pytestmark = pytest.mark.slow


def checkpoint(text: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", text)
    return buffer.getvalue()


def test_a_key_is_written_once(s3: Seaweed) -> None:
    s3.client.create_bucket(Bucket="once")
    folder = Folder("s3://once/watch", s3.storage_options)
    assert create_once(folder, "a.json", b"first")
    assert not create_once(folder, "a.json", b"second")
    assert folder.read_bytes("a.json") == b"first"


def test_a_silent_holder_loses_its_lease_by_the_servers_own_clock(s3: Seaweed) -> None:
    s3.client.create_bucket(Bucket="lease")
    leases = Leases(Folder("s3://lease/watch", s3.storage_options), expires_s=2.0)
    held = leases.take("c")
    assert held is not None

    def age() -> float:
        """Seconds since the lease was taken, by the server's clock."""
        with leases._file_of_now() as probe:
            now, taken = leases._written(probe), leases._written("c/000001.json")
        assert now is not None
        assert taken is not None
        return now - taken

    with held:
        wait_for(lambda: age() > leases.expires_s + 1)  # S3's times have a resolution of one second
        assert leases.take("c") is None
    second = wait_for(lambda: leases.take("c"))
    assert second.number == 2


def race(options: dict[str, Any], log: str, start: float) -> None:
    config = parse_config(
        {
            "videos": {"world": {}},
            "out": "s3://race/run",
            "out_storage_options": options,
            "model": {"storage_options": options},
        }
    )

    def run_one(config: Any, found: FoundCheckpoint) -> dict[str, object]:
        with open(log, "a") as file:
            file.write(f"{found.name}\n")
        time.sleep(0.05)
        return {"run": None, "model": "m", "keys": {}}

    def update(folder: Folder) -> None:
        update_report(folder)

    time.sleep(max(0.0, start - time.time()))
    while watch_once(config, WatchOptions("s3://race/exp/*.pth", settle_s=0.0), run_one, update) != Pass():
        pass


@pytest.mark.full
def test_racing_processes_run_each_checkpoint_once(s3: Seaweed, tmp_path: Path) -> None:
    s3.client.create_bucket(Bucket="race")
    names = [f"epoch_{step}.pth" for step in range(8)]
    for name in names:
        s3.client.put_object(Bucket="race", Key=f"exp/{name}", Body=checkpoint(name))
    s3.client.put_object(Bucket="race", Key="exp/epoch_99.pth.tmp", Body=b"half")
    context = multiprocessing.get_context("spawn")
    arguments = (s3.storage_options, str(tmp_path / "log"), time.time() + 6.0)
    watchers = [context.Process(target=race, args=arguments) for _ in range(3)]
    for watcher in watchers:
        watcher.start()
    for watcher in watchers:
        watcher.join(120)
        assert watcher.exitcode == 0
    assert sorted((tmp_path / "log").read_text().split()) == sorted(names)
    registry = CheckpointRecords(Folder("s3://race/run/watch", s3.storage_options))
    assert [(r.step, r.status) for r in registry.records()] == [(step, "done") for step in range(8)]
    assert registry.folder.exists("registry.parquet")
