"""Watching: a complete checkpoint is found, runs once even with several watchers, and failures block nothing."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import multiprocessing
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem

from tests.helpers.waiting import make_old, wait_for
from vtcav_ray.config import Config
from vtcav_ray.config.loading import parse_config
from vtcav_ray.errors import ConfigError, EnvironmentFault, StageError
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.lease import Leases, create_once
from vtcav_ray.watch.find import FoundCheckpoint, list_checkpoints, looks_whole, settled
from vtcav_ray.watch.loop import NotTheCheckpoint, Pass, WatchOptions, watch_for_ever, watch_once
from vtcav_ray.watch.page import Point, build_page
from vtcav_ray.watch.registry import CheckpointRecord, CheckpointRecords


def zip_bytes(text: str = "weights") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", text * 100)
    return buffer.getvalue()


def old(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (time.time() - 3600,) * 2)
    return path


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return parse_config({"videos": {"world": {}}, "out": str(tmp_path / "run")})


@pytest.fixture
def options(tmp_path: Path) -> WatchOptions:
    return WatchOptions(str(tmp_path / "exp" / "*.pth"), settle_s=1.0, expires_s=60.0, attempts=2)


def passes(config: Config, options: WatchOptions, run_one: Any) -> Pass:
    return watch_once(config, options, run_one, lambda folder: None)


def test_they_come_in_the_order_of_training_without_what_is_no_checkpoint(tmp_path: Path) -> None:
    for name in ("epoch_10.pth", "epoch_9.pth", "best.pth", ".hidden.pth", "epoch_11.pth.tmp"):
        old(tmp_path / name, zip_bytes())
    old(tmp_path / "empty_1.pth", b"")
    (tmp_path / "folder_3.pth").mkdir()
    found = list_checkpoints(str(tmp_path / "*.pth*"))
    assert [(c.name, c.step) for c in found] == [("epoch_9.pth", 9), ("epoch_10.pth", 10), ("best.pth", None)]


def test_a_file_that_was_written_again_is_another_checkpoint(tmp_path: Path) -> None:
    path = old(tmp_path / "latest.pth", zip_bytes())
    (before,) = list_checkpoints(str(tmp_path / "*.pth"))
    path.write_bytes(zip_bytes("other weights"))
    (after,) = list_checkpoints(str(tmp_path / "*.pth"))
    assert before.id != after.id
    assert before.url == after.url


def checkpoint(name: str, modified: float | None, fingerprint: str = "a") -> FoundCheckpoint:
    return FoundCheckpoint((1, 0), name, name, fingerprint, 1, modified)


def test_a_second_look_is_taken_only_where_a_file_is_young() -> None:
    looks: list[str] = []

    def again() -> list[FoundCheckpoint]:
        looks.append("again")
        return [checkpoint("young", 99.0), checkpoint("growing", 100.0, "b")]

    finished = checkpoint("finished", 10.0)
    assert settled([finished], again, 30.0, now=lambda: 100.0) == [finished]
    assert looks == []
    young, growing, unknown = checkpoint("young", 99.0), checkpoint("growing", 99.0), checkpoint("gone", None)
    kept = settled([finished, young, growing, unknown], again, 30.0, now=lambda: 100.0, sleep=lambda s: None)
    assert kept == [finished, young]
    assert looks == ["again"]


@pytest.mark.parametrize(
    ("content", "whole"),
    [(zip_bytes(), True), (zip_bytes()[:-30], False), (b"\x80\x02}q\x00.", True), (b"<html>404</html>", False)],
)
def test_a_copy_that_broke_off_is_not_whole(tmp_path: Path, content: bytes, whole: bool) -> None:
    old(tmp_path / "a.pth", content)
    (found,) = list_checkpoints(str(tmp_path / "*.pth"))
    assert looks_whole(found) == whole


def test_each_is_run_once_and_recorded(config: Config, options: WatchOptions, tmp_path: Path) -> None:
    for step in (2, 1):
        old(tmp_path / "exp" / f"epoch_{step}.pth", zip_bytes(str(step)))
    ran: list[str] = []

    def run_one(config: Config, found: FoundCheckpoint) -> dict[str, object]:
        ran.append(found.name)
        return {"run": f"checkpoints/{found.name}", "model": "m", "keys": {"clips": "k"}}

    assert passes(config, options, run_one).done == ["epoch_1.pth", "epoch_2.pth"]
    assert passes(config, options, run_one) == Pass()
    assert ran == ["epoch_1.pth", "epoch_2.pth"]
    registry = CheckpointRecords(Folder(f"{config.run_url}/watch"))
    registry.write_table()
    first = (tmp_path / "run" / "watch" / "registry.parquet").read_bytes()
    registry.write_table()
    assert (tmp_path / "run" / "watch" / "registry.parquet").read_bytes() == first
    rows = pq.read_table(tmp_path / "run" / "watch" / "registry.parquet").to_pylist()
    assert [(r["step"], r["status"], r["clips_key"]) for r in rows] == [(1, "done", "k"), (2, "done", "k")]


def test_a_failure_blocks_nothing_and_is_tried_so_many_times(
    config: Config, options: WatchOptions, tmp_path: Path
) -> None:
    for step in (1, 2):
        old(tmp_path / "exp" / f"epoch_{step}.pth", zip_bytes(str(step)))

    def run_one(config: Config, found: FoundCheckpoint) -> dict[str, object]:
        if found.step == 1:
            raise MemoryError("no such tensor") if (tmp_path / "second").exists() else StageError("does not load")
        return {"run": "r", "model": "m", "keys": {}}

    first = passes(config, options, run_one)
    assert (first.done, first.failed) == (["epoch_2.pth"], {"epoch_1.pth": "does not load"})
    (tmp_path / "second").touch()
    assert passes(config, options, run_one).failed == {"epoch_1.pth": "MemoryError: no such tensor"}
    assert passes(config, options, run_one) == Pass()  # two attempts were allowed
    records = CheckpointRecords(Folder(f"{config.run_url}/watch")).records()
    assert [(r.status, r.error) for r in records] == [("failed", "MemoryError: no such tensor"), ("done", None)]


def test_what_would_fail_for_all_ends_the_pass_and_counts_for_none(
    config: Config, options: WatchOptions, tmp_path: Path
) -> None:
    old(tmp_path / "exp" / "epoch_1.pth", zip_bytes())

    def no_videos(config: Config, found: FoundCheckpoint) -> dict[str, object]:
        raise NotTheCheckpoint(ConfigError("no videos there"))

    for _ in range(4):
        with pytest.raises(ConfigError, match="no videos there"):
            passes(config, options, no_videos)
    assert passes(config, options, lambda c, f: {"run": "r", "model": "m", "keys": {}}).done == ["epoch_1.pth"]


@pytest.mark.parametrize(
    "fault", [EnvironmentFault("No Ray cluster"), OSError(errno.ENOSPC, "No space left"), ConnectionError("no answer")]
)
def test_what_lies_around_a_checkpoint_counts_against_none(
    config: Config, options: WatchOptions, tmp_path: Path, fault: Exception
) -> None:
    old(tmp_path / "exp" / "epoch_1.pth", zip_bytes())

    def without(config: Config, found: FoundCheckpoint) -> dict[str, object]:
        raise fault

    for _ in range(options.attempts + 1):
        with pytest.raises(type(fault)):
            passes(config, options, without)
    assert passes(config, options, ran_well).done == ["epoch_1.pth"]


def ran_well(config: Config, found: FoundCheckpoint) -> dict[str, object]:
    return {"run": "r", "model": "m", "keys": {}}


def test_a_watcher_outlives_what_may_pass_and_not_a_mistake() -> None:
    ends: list[Exception | Pass] = [StageError("no video yet"), ConnectionError("gone"), Pass(), ConfigError("wrong")]
    reported: list[Pass] = []

    def one_pass() -> Pass:
        end = ends.pop(0)
        if isinstance(end, Exception):
            raise end
        return end

    with pytest.raises(ConfigError, match="wrong"):
        watch_for_ever(one_pass, 0.0, reported.append)
    assert reported == [Pass()]


def test_a_limit_counts_what_is_run(config: Config, options: WatchOptions, tmp_path: Path) -> None:
    old(tmp_path / "exp" / "epoch_1.pth", zip_bytes()[:-30])
    for step in (2, 3, 4, 5):
        old(tmp_path / "exp" / f"epoch_{step}.pth", zip_bytes(str(step)))
    elsewhere = next(c for c in list_checkpoints(options.pattern) if c.step == 2)
    other = Leases(Folder(f"{config.run_url}/watch/leases"), options.expires_s).take(elsewhere.id)
    assert other is not None
    one = dataclasses.replace(options, limit=1)

    def run_one(config: Config, found: FoundCheckpoint) -> dict[str, object]:
        if found.step == 4:
            raise StageError("does not load")
        return ran_well(config, found)

    first, second = passes(config, one, run_one), passes(config, one, run_one)
    assert (first.unfinished, first.busy, first.done) == (["epoch_1.pth"], ["epoch_2.pth"], ["epoch_3.pth"])
    assert (list(second.failed), second.done) == (["epoch_4.pth"], []), "one that fails is run, too"


def test_one_that_is_gone_or_not_ours_to_read_is_passed_over(
    config: Config, options: WatchOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2, 3):
        old(tmp_path / "exp" / f"epoch_{step}.pth", zip_bytes(str(step)))
    opened = LocalFileSystem.open

    def refusing(self: LocalFileSystem, path: str, *more: Any, **options: Any) -> Any:
        if path.endswith("epoch_1.pth"):
            raise FileNotFoundError(path)
        if path.endswith("epoch_2.pth"):
            raise PermissionError(path)
        return opened(self, path, *more, **options)

    monkeypatch.setattr(LocalFileSystem, "open", refusing)
    result = passes(config, options, ran_well)
    assert (result.unfinished, result.done) == (["epoch_1.pth", "epoch_2.pth"], ["epoch_3.pth"])


def test_one_that_is_cut_off_waits(config: Config, options: WatchOptions, tmp_path: Path) -> None:
    path = old(tmp_path / "exp" / "epoch_1.pth", zip_bytes()[:-30])
    assert passes(config, options, lambda c, f: pytest.fail("not whole")).unfinished == ["epoch_1.pth"]
    old(path, zip_bytes())
    assert passes(config, options, lambda c, f: {"run": "r", "model": "m", "keys": {}}).done == ["epoch_1.pth"]


def test_a_watcher_that_lives_keeps_its_lease_and_a_dead_one_loses_it(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    living = Leases(folder, expires_s=4.0)  # a heartbeat a second
    lease = living.take("c")
    assert lease is not None
    with lease:
        make_old(tmp_path / "c", 10.0)  # longer than it lasts without a heartbeat
        wait_for(lambda: living.state("c").held, seconds=30)
        assert living.take("c") is None
        assert living.state("c").held
    # It ended without releasing its lease, as a killed process does.
    make_old(tmp_path / "c", 10.0)
    state = living.state("c")
    assert (state.held, state.attempts) == (False, 1)
    second = living.take("c")
    assert second is not None
    assert second.number == 2
    second.end("done")
    assert living.state("c").attempts == 2
    assert [p.name for p in tmp_path.iterdir()] == ["c"], "nothing is left of looking at the time"


def test_a_full_disk_does_not_look_like_a_death(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leases, written = Leases(Folder(str(tmp_path)), expires_s=60.0), Folder.write_bytes

    def full(self: Folder, name: str, data: bytes) -> None:
        if name.endswith(".end") and list(tmp_path.glob("c/*.beat")):
            raise OSError(errno.ENOSPC, "No space left on device")
        written(self, name, data)

    lease = leases.take("c")
    assert lease is not None
    with lease:
        monkeypatch.setattr(Folder, "write_bytes", full)
        lease.end("stopped", error="No space left on device")
    state = leases.state("c")
    assert (state.held, state.attempts) == (False, 0)


def test_watchers_that_die_over_one_checkpoint_give_it_up(
    config: Config, options: WatchOptions, tmp_path: Path
) -> None:
    old(tmp_path / "exp" / "epoch_1.pth", zip_bytes())
    (found,) = list_checkpoints(options.pattern)
    options = WatchOptions(options.pattern, settle_s=0.0, attempts=2)
    leases = Leases(Folder(f"{config.run_url}/watch/leases"), options.expires_s)
    for _ in range(2):
        assert leases.take(found.id) is not None
        make_old(Path(leases.folder.url), 2 * options.expires_s)
    result = passes(config, options, lambda c, f: pytest.fail("tried once more"))
    assert "2 watchers died" in result.failed["epoch_1.pth"]
    assert passes(config, options, lambda c, f: pytest.fail("tried once more")) == Pass()


def race(url: str, pattern: str, log: str, start: float) -> None:
    """Run a watcher process. Each run of a checkpoint appends a line to a log, in one write."""
    config = parse_config({"videos": {"world": {}}, "out": url})

    def run_one(config: Config, found: FoundCheckpoint) -> dict[str, object]:
        with open(log, "a") as file:
            file.write(f"{found.name}\n")
        time.sleep(0.02)
        return {"run": "r", "model": "m", "keys": {}}

    time.sleep(max(0.0, start - time.time()))
    for _ in range(3):
        watch_once(config, WatchOptions(pattern, settle_s=0.0), run_one, lambda folder: None)


@pytest.mark.slow
def test_racing_watchers_run_each_checkpoint_once(tmp_path: Path) -> None:
    names = [f"epoch_{step}.pth" for step in range(12)]
    for name in names:
        old(tmp_path / "exp" / name, zip_bytes(name))
    context = multiprocessing.get_context("fork")
    arguments = (str(tmp_path / "run"), str(tmp_path / "exp" / "*.pth"), str(tmp_path / "log"), time.time() + 0.5)
    watchers = [context.Process(target=race, args=arguments) for _ in range(4)]
    for watcher in watchers:
        watcher.start()
    for watcher in watchers:
        watcher.join(60)
        assert watcher.exitcode == 0
    assert sorted((tmp_path / "log").read_text().split()) == sorted(names)
    assert {r.status for r in CheckpointRecords(Folder(str(tmp_path / "run" / "watch"))).records()} == {"done"}


def test_a_file_is_created_once_on_storage_that_can_promise_it(tmp_path: Path) -> None:
    for folder in (Folder(str(tmp_path)), Folder("memory://watch-test")):
        assert create_once(folder, "a/b.json", b"1")
        assert not create_once(folder, "a/b.json", b"2")
        assert folder.read_bytes("a/b.json") == b"1"


@pytest.mark.slow
def test_a_pass_with_nothing_new_ends_at_once_without_ray(tmp_path: Path) -> None:
    (tmp_path / "exp").mkdir()
    (tmp_path / "c.yaml").write_text(json.dumps({"videos": {"world": {}}, "out": str(tmp_path / "run")}))
    code = (
        "import sys; from vtcav_ray.cli import app;"
        f"sys.argv = ['vtcav', 'watch', {str(tmp_path / 'c.yaml')!r}, '--checkpoints', "
        f"{str(tmp_path / 'exp' / '*.pth')!r}, '--once'];"
        "app(standalone_mode=False); assert not {'ray', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert f"No checkpoint matches {tmp_path / 'exp' / '*.pth'}." in done.stdout


def test_the_page_escapes_what_comes_from_outside() -> None:
    nasty = "<img src=x onerror=alert(1)>"
    records = [
        CheckpointRecord(
            "1", "u", f"{nasty}_1.pth", 1, "f", 1, "done", run=f"checkpoints/{nasty}", model=nasty, keys={}
        ),
        CheckpointRecord("2", "u", "b_2.pth", 2, "f", 1, "failed", error=nasty),
    ]
    page = build_page(records, {(nasty, nasty, nasty): {0: Point(1.5, 1.0, 2.0, 0.9, True)}})
    assert "<img" not in page
    assert page.count("&lt;img") >= 6
    assert "2 checkpoints, 1 done, 1 failed" in page
    assert 'class="up"' in page
