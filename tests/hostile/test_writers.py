"""One writer per run: a second driver reports the writer, a dead driver blocks none, a fresh run breaks no reader."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.helpers.small_house import SmallHouse, contents, data_files, scores_of
from tests.helpers.waiting import make_old
from vtcav_ray import cli, pipeline
from vtcav_ray.config import Config
from vtcav_ray.errors import EXIT_STAGE, StageError
from vtcav_ray.runs.run import Run
from vtcav_ray.runs.run_lease import LeaseHeld, LeaseLost, writing
from vtcav_ray.store import lease
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.lease import Leases, Owner

# A driver in a separate process: it holds the run, reports that, and works until it is ended.
HOLDER = """
import sys, time
from vtcav_ray.runs import run_lease
from vtcav_ray.store.folder import Folder
from vtcav_ray.errors import VtcavError
run_lease.EXPIRES_S = float(sys.argv[2])
try:
    with run_lease.writing(Folder(sys.argv[1])) as writer:
        print("held", flush=True)
        time.sleep(120)
except VtcavError as error:
    print(error, flush=True)
    sys.exit(error.exit_status)
"""


def holder(folder: Path, expires_s: float = 60.0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(folder), str(expires_s)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.slow
def test_a_second_driver_learns_who_where_and_since_when(house: SmallHouse, config: Config, tmp_path: Path) -> None:
    process = holder(tmp_path / "run")
    try:
        for fresh in (False, True):
            with pytest.raises(LeaseHeld) as caught:
                pipeline.run(config, fresh=fresh)
            said = str(caught.value)
            assert f"`vtcav run` of user {lease._user()} on host {lease.socket.gethostname()}" in said
            assert f"(process {process.pid}), since 20" in said
            assert "--take-over" in said
            assert caught.value.exit_status == EXIT_STAGE
        assert house.worked == {}
        assert not (tmp_path / "run" / "run.json").exists()
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_killed_driver_blocks_nobody(house: SmallHouse, config: Config, tmp_path: Path) -> None:
    """Its process on this machine is gone, so the next driver does not wait."""
    process = holder(tmp_path / "run")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(scores_of(pipeline.run(config))) == 16


def test_one_on_another_machine_blocks_until_it_is_silent_for_a_while(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    leases = Leases(folder.below("leases"), 60.0)
    first = leases.take("run")
    assert first is not None
    path = tmp_path / "leases" / "run" / "000001.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "host": "elsewhere", "machine": "m", "pid": 1}))
    assert leases.owner("run").host == "elsewhere"
    assert leases.take("run") is None
    make_old(tmp_path / "leases", 61.0)
    assert leases.take("run") is not None


def test_a_process_that_has_the_number_of_a_dead_one_is_not_taken_for_it() -> None:
    here = Owner.here("vtcav run")
    assert not here.gone
    assert Owner(**{**vars(here), "started": "1"}).gone
    assert not Owner(**{**vars(here), "started": "1", "machine": "another"}).gone, "unknown: it may live"
    assert not Owner.parse(b"half of a fi").gone
    assert not Owner.parse(b'{"pid": "x", "host": 7}').gone


@pytest.mark.slow
def test_take_over_ends_the_first_in_an_orderly_way(house: SmallHouse, config: Config, tmp_path: Path) -> None:
    process = holder(tmp_path / "run", expires_s=2.0)
    run = pipeline.run(config, take_over=True)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == EXIT_STAGE
    assert "This run was ended" in said
    assert f"(process {os.getpid()})" in said
    assert len(scores_of(run)) == 16
    pipeline.run(config)  # nothing blocks this run


def test_one_that_was_taken_over_stops_at_its_next_shard_and_leaves_run_json(
    house: SmallHouse, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a heartbeat in between (a laptop that slept), it asks at the end of the stage, before anything counts."""
    folder = Folder(config.run_url)
    leases = Leases(folder.below("leases"), 60.0, "vtcav run")

    def taken(stage: str) -> None:
        if stage == "clips" and leases.state("run").number == 1:
            other = leases._take("run", 2)
            assert other is not None
            folder.write_json("run.json", {"config": {"videos": {"uri": "other"}}, "keys": {}, "status": "running: x"})
            before.append((Path(config.run_url) / "run.json").read_bytes())

    before: list[bytes] = []
    house.before_shard = taken
    with pytest.raises(LeaseLost, match="was taken over by `vtcav run`"):
        pipeline.run(config)
    assert (Path(config.run_url) / "run.json").read_bytes() == before[0]
    assert not list(Path(config.run_url).glob("clips/*/manifest.json"))
    assert "scores" not in house.worked


def test_two_drivers_at_once(house: SmallHouse, config: Config) -> None:
    """A second driver starts with --fresh while the first works: the first completes, the second reports an error."""
    at_work, reported = threading.Event(), threading.Event()
    errors: list[str] = []

    def pause(stage: str) -> None:
        at_work.set()
        assert reported.wait(30)

    def second() -> None:
        assert at_work.wait(30)
        try:
            pipeline.run(config, fresh=True)
        except StageError as error:
            errors.append(str(error))
        reported.set()

    house.before_shard = pause
    other = threading.Thread(target=second)
    other.start()
    run = pipeline.run(config)
    other.join()
    assert len(errors) == 1
    assert "is being written by" in errors[0]
    assert run.table("videos").num_rows == scores_of(run).num_rows == 16


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [["retry-failed"], ["rerun", "--checkpoint", "x.pth", "--out", "{run}"], ["intervene"], ["patch"]]
)
def test_every_command_that_writes_asks_first(
    house: SmallHouse, config: Config, tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = pipeline.run(config)
    monkeypatch.setattr(Run, "table", lambda self, name, **more: _Rows())  # something failed, so there is work to do
    (tmp_path / "x.pth").write_bytes(b"x")
    out = tmp_path / "other"
    process = holder(out if command[0] == "rerun" else Path(run.url))
    try:
        words = [word.replace("{run}", str(out)).replace("x.pth", str(tmp_path / "x.pth")) for word in command]
        said = CliRunner().invoke(cli.app, [words[0], run.url, *words[1:]])
        assert isinstance(said.exception, LeaseHeld), (said.exception, said.output)
    finally:
        process.kill()
        process.wait()


class _Rows:
    num_rows = 1


def test_what_a_run_holds_is_free_within_it(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    with writing(folder) as outer, writing(Folder(f"{tmp_path}/")) as inner:
        assert inner is outer

    def other_thread() -> None:
        with writing(folder):
            pass

    with writing(folder), ThreadPoolExecutor(1) as pool, pytest.raises(LeaseHeld):
        pool.submit(other_thread).result()


def test_an_ended_lease_leaves_no_more_than_one_behind(tmp_path: Path) -> None:
    for _ in range(3):
        with writing(Folder(str(tmp_path))):
            pass
    names = sorted(path.name for path in (tmp_path / "leases" / "run").iterdir())
    assert names == ["000003.beat", "000003.end", "000003.json"]


def test_storage_that_can_not_keep_writers_apart_is_warned_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lease, "ATOMIC", ())
    with writing(Folder(str(tmp_path))) as writer:
        writer.check(look=True)
    assert "no conditional write" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_hard_links_has_leases_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    folder = Folder(str(tmp_path))
    assert folder.write_once("a", b"1") == b"1"
    assert folder.write_once("a", b"2") == b"1"
    with writing(folder):
        assert Leases(folder.below("leases"), 60.0).take("run") is None


# --- fresh ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_reader_keeps_what_it_opened_while_a_fresh_run_works(house: SmallHouse, config: Config) -> None:
    before = pipeline.run(config)
    wanted = contents(before)
    seen: list[bool] = []
    house.before_shard = lambda stage: seen.append(contents(before) == wanted)
    house.worked.clear()
    after = pipeline.run(config, fresh=True)
    assert seen
    assert all(seen)
    assert sorted(house.worked["tracks"]) == house.videos, "everything is made again"
    assert contents(before) == wanted, "also after its end"
    assert contents(after) == wanted
    assert not set(before.keys.items()) & set(after.keys.items())


@pytest.mark.slow
def test_what_a_fresh_run_replaced_is_removed_by_the_next_run(house: SmallHouse, config: Config) -> None:
    before = pipeline.run(config)
    old = data_files(before)
    other = pipeline.run(config.model_copy(update={"shard_videos": 2}))  # same stages: no output is another config's
    assert other.keys == before.keys
    after = pipeline.run(config, fresh=True)
    assert all(path.exists() for path in old)
    house.worked.clear()
    again = pipeline.run(config)
    assert again.keys == after.keys
    assert house.worked == {}
    assert not any(path.exists() for path in old)
    assert contents(again) == contents(after)
    assert "retired" not in again.record


@pytest.mark.slow
def test_a_fresh_run_that_is_stopped_goes_on_without_fresh(house: SmallHouse, config: Config) -> None:
    before = pipeline.run(config)
    wanted = contents(before)
    house.worked.clear()

    def stop(stage: str) -> None:
        if stage == "tracks" and len(house.worked.get("tracks", [])) >= 6:
            raise StageError("stopped")

    house.before_shard = stop
    with pytest.raises(StageError, match="stopped"):
        pipeline.run(config, fresh=True)
    assert contents(before) == wanted
    house.before_shard = lambda stage: None
    run = pipeline.run(config)
    assert sorted(house.worked["tracks"]) == house.videos, "each once: it went on"
    assert contents(run) == wanted
    assert run.keys != before.keys


@pytest.mark.slow
def test_a_fresh_run_leaves_what_a_rerun_uses(house: SmallHouse, config: Config) -> None:
    base = pipeline.run(config)
    other = config.model_copy(update={"out": f"{base.url}/checkpoints/other"})
    rerun = pipeline.run(other, base=base)
    wanted = contents(rerun)
    pipeline.run(config, fresh=True)
    pipeline.run(config)
    assert contents(Run(rerun.url)) == wanted
