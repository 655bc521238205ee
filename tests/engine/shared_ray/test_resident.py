"""Processes that are kept from stage to stage: the same processes, fresh workers, and what happens when one dies."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray

from tests.helpers.drawn import encode, numbered_frames
from tests.helpers.poison import LIMITS, Counter
from tests.helpers.waiting import wait_for
from vtcav_ray.config import ResourcesConfig, StageResources
from vtcav_ray.engine import LazySession, Rehearsal, resident, run_shards, stream
from vtcav_ray.engine.feed import Feed
from vtcav_ray.errors import EnvironmentFault, InputError, StageError
from vtcav_ray.registry import SOLVERS
from vtcav_ray.runs.stage import Shard, make_shards
from vtcav_ray.store.commits import ShardOutput, StageFolder
from vtcav_ray.store.folder import Folder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("on_ray")]


class Marking:
    """A worker that leaves marks: its creation, its end, each shard, and shards that overlap if they must not."""

    def __init__(self, folder: str, stage: str, alone: bool = False) -> None:
        self.folder, self.stage, self.alone = Path(folder), stage, alone
        (self.folder / f"made-{stage}-{os.getpid()}-{time.time_ns()}").touch()

    def __call__(self, rows: pa.Table) -> ShardOutput:
        video = rows["video_id"][0].as_py()
        busy = self.folder / "busy"
        if self.alone:
            busy.touch(exist_ok=False)
        if video == "v3" and not (died := self.folder / "died").exists():
            died.touch()
            os._exit(1)
        time.sleep(0.1)
        (self.folder / f"shard-{self.stage}-{os.getpid()}-{video}").touch()
        if self.alone:
            busy.unlink()
        threads = os.environ.get("OMP_NUM_THREADS", "") + os.environ.get("YOLO_AUTOINSTALL", "")
        return ShardOutput({"tracks": rows.append_column("threads", pa.array([threads] * rows.num_rows))})

    def __del__(self) -> None:
        (self.folder / f"gone-{self.stage}-{os.getpid()}").touch()


def shards(count: int) -> list[Shard]:
    return make_shards(pa.table({"video_id": [f"v{i}" for i in range(count)]}), 1)


def output_of(folder: Path, stage: str) -> StageFolder:
    return StageFolder(stage, "k", Folder(str(folder / "run")))


def processes(folder: Path, mark: str) -> set[int]:
    """Return the processes that left a kind of mark, such as `shard-tracks`."""
    return {int(path.name.split("-")[2]) for path in folder.glob(f"{mark}-*")}


def test_two_stages_share_processes_but_not_workers(tmp_path: Path) -> None:
    (tmp_path / "died").touch()
    for stage in ("tracks", "clips"):
        done = list(
            run_shards(
                shards(8),
                functools.partial(Marking, str(tmp_path), stage),
                output_of(tmp_path, stage),
                StageResources(),
            )
        )
        assert sorted(row["shard"] for row in done) == sorted(shard.name for shard in shards(8))
    assert 1 <= len(processes(tmp_path, "shard-tracks")) <= 2
    assert processes(tmp_path, "shard-tracks") | processes(tmp_path, "shard-clips") == processes(
        tmp_path, "made-tracks"
    ) | processes(tmp_path, "made-clips")
    assert len(processes(tmp_path, "shard-tracks") | processes(tmp_path, "shard-clips")) <= 2
    # One worker per process and stage, and the first stage's is gone where the second has one.
    assert len(list(tmp_path.glob("made-*"))) <= 4
    assert processes(tmp_path, "gone-tracks") == processes(tmp_path, "made-clips") & processes(tmp_path, "made-tracks")
    table = output_of(tmp_path, "clips").read("tracks")
    assert table is not None
    assert sorted(table["video_id"].to_pylist()) == [f"v{i}" for i in range(8)]
    assert set(table["threads"].to_pylist()) == {"1false"}  # as in an actor of one CPU


def test_a_process_that_dies_is_replaced_and_its_shard_repeated(tmp_path: Path) -> None:
    output = output_of(tmp_path, "tracks")
    done = list(run_shards(shards(8), functools.partial(Marking, str(tmp_path), "tracks"), output, StageResources()))
    assert (tmp_path / "died").exists()
    assert sorted(row["shard"] for row in done) == sorted(shard.name for shard in shards(8))
    assert output.committed() == {shard.name for shard in shards(8)}


def test_max_actors_limits_the_shards_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "died").touch()
    make = functools.partial(Marking, str(tmp_path), "tracks", alone=True)
    assert len(list(run_shards(shards(6), make, output_of(tmp_path, "tracks"), StageResources(max_actors=1)))) == 6


def test_each_poison_costs_itself_alone(tmp_path: Path) -> None:
    names = ["a", "segv", "b", "worker", "c", "hang", "d"]
    for name in names:
        (tmp_path / f"{name}.mp4").write_bytes(encode(numbered_frames(4)))
    rows = pa.table({"video_id": names, "uri": [str(tmp_path / f"{name}.mp4") for name in names]})
    output = output_of(tmp_path, "tracks")
    made = list(
        run_shards(
            make_shards(rows, 4), lambda: Counter("worker"), output, StageResources(attempts=2), Rehearsal(LIMITS)
        )
    )
    assert sum(row["failures"] for row in made) == 3
    table, failures = output.read("tracks"), output.read("failures")
    assert table is not None
    assert failures is not None
    assert dict(zip(table["video_id"].to_pylist(), table["n"].to_pylist(), strict=True)) == dict.fromkeys("abcd", 4)
    found = {row["video_id"]: (row["error_kind"], row["attempts"]) for row in failures.to_pylist()}
    # The worker dies of one video that decodes without harm: twice with others, and then alone.
    assert found == {"segv": ("crashed", 2), "worker": ("crashed", 3), "hang": ("timeout", 2)}


def _no_model() -> Any:
    raise StageError("the checkpoint does not load: fix it")


def test_a_worker_that_cannot_start_says_why_and_the_next_one_starts(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"not load: fix it \(StageError at the start of stage tracks\)"):
        list(run_shards(shards(2), _no_model, output_of(tmp_path, "tracks"), StageResources()))
    (tmp_path / "died").touch()
    make = functools.partial(Marking, str(tmp_path), "tracks")
    assert len(list(run_shards(shards(2), make, output_of(tmp_path, "tracks"), StageResources()))) == 2


def test_a_feed_grows_while_the_processes_stay_and_stops(tmp_path: Path) -> None:
    (tmp_path / "died").touch()
    output, all_shards = output_of(tmp_path, "tracks"), shards(40)
    feed = Feed(40)
    feed.add(all_shards[:4])
    seen = []
    for row in run_shards(feed, functools.partial(Marking, str(tmp_path), "tracks"), output, StageResources()):
        seen.append(row["shard"])
        if len(seen) == 4:  # all that was fed is done
            feed.add(all_shards[4:])
        if len(seen) == 8:
            feed.stop(seen)
    assert set(seen) == output.committed()
    assert len(set(seen)) == len(seen)
    assert 8 <= len(seen) <= 8 + 3  # two that ran, and one that waited
    assert len(list(tmp_path.glob("made-*"))) <= 2


def test_packages_are_imported_early_in_the_processes_that_then_work(tmp_path: Path) -> None:
    (tmp_path / "died").touch()

    def imports() -> None:
        (tmp_path / f"early-imports-{os.getpid()}").touch()
        wait_for(lambda: len(processes(tmp_path, "early")) == 2)  # so that one process does not do both
        raise ImportError("no such package: the worker says so")

    resident.import_early(imports, StageResources(), 2)
    wait_for(lambda: len(processes(tmp_path, "early")) == 2)
    list(
        run_shards(
            shards(8),
            functools.partial(Marking, str(tmp_path), "tracks"),
            output_of(tmp_path, "tracks"),
            StageResources(),
        )
    )
    assert processes(tmp_path, "shard-tracks") <= processes(tmp_path, "early")


def test_functions_are_called_at_the_same_time_in_the_processes_that_then_work(tmp_path: Path) -> None:
    (tmp_path / "died").touch()
    session = LazySession(ResourcesConfig())

    def meet(name: str) -> int:
        (tmp_path / f"called-{name}").touch()
        wait_for(lambda: len(list(tmp_path.glob("called-*"))) == 2)
        return os.getpid()

    def imports() -> None:
        (tmp_path / f"imported-{os.getpid()}-{time.time_ns()}").touch()

    called = session.together([functools.partial(meet, "a"), functools.partial(meet, "b")], imports)
    assert len({*called, os.getpid()}) == 3
    wait_for(lambda: len(list(tmp_path.glob("imported-*"))) == 2)
    make = functools.partial(Marking, str(tmp_path), "tracks")
    list(run_shards(shards(4), make, output_of(tmp_path, "tracks"), StageResources()))
    assert {int(process) for process in processes(tmp_path, "shard-tracks")} <= set(called)


def _refuse() -> None:
    raise InputError("empty", "the file is empty")


def test_a_function_raises_its_own_error_and_a_process_that_dies_is_named() -> None:
    session = LazySession(ResourcesConfig())
    with pytest.raises(InputError, match=r"^the file is empty$") as refused:
        session.together([_refuse, os.getpid])
    assert refused.value.kind == "empty"
    with pytest.raises(EnvironmentFault, match=r"enough memory.*--dry-run"):
        session.together([functools.partial(os._exit, 1)])


def _log(number: int) -> int:
    logging.getLogger("vtcav_ray.elsewhere").warning("number %d of %s", number, Path("there"), extra={"video": "v1"})
    return number


def test_what_functions_log_is_logged_here(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", "vtcav_ray.elsewhere"):
        assert LazySession(ResourcesConfig()).together([functools.partial(_log, 1), functools.partial(_log, 2)]) == [
            1,
            2,
        ]
    found = [record for record in caplog.records if record.name == "vtcav_ray.elsewhere"]
    assert [record.getMessage() for record in found] == ["number 1 of there", "number 2 of there"]
    assert found[0].video == "v1"  # type: ignore[attr-defined]


def test_functions_find_what_this_process_has_added() -> None:
    @SOLVERS.register("added_here")
    def solver() -> None: ...

    try:
        assert LazySession(ResourcesConfig()).together([lambda: "added_here" in SOLVERS._entries]) == [True]
    finally:
        del SOLVERS._entries["added_here"]


def test_stages_with_other_needs_use_actors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resident.keeps(StageResources())
    for other in (
        StageResources(gpus=1),
        StageResources(cpus=2),
        StageResources(memory_gb=1),
        StageResources(batch_size="auto"),
    ):
        assert not resident.keeps(other)
    way: list[str] = []

    def noted(name: str) -> Callable[..., Iterator[Any]]:
        def rows(*_: Any) -> Iterator[Any]:
            way.append(name)
            return iter(())

        return rows

    for name in ("_kept_rows", "_pool_rows"):
        monkeypatch.setattr(stream, name, noted(name))
    make = functools.partial(Marking, str(tmp_path), "tracks")
    for resources in (StageResources(), StageResources(memory_gb=1)):
        list(run_shards(shards(1), make, output_of(tmp_path, "tracks"), resources))
    assert way == ["_kept_rows", "_pool_rows"]


def test_a_ray_of_this_machine_has_no_process_that_no_run_needs() -> None:
    """They forward logs that the driver does not print, ask for nodes that no cloud gives, or report usage."""
    node = ray._private.worker._global_node
    assert {"raylet", "gcs_server"} <= node.all_processes.keys()
    assert not {"log_monitor", "monitor", "dashboard"} & node.all_processes.keys()
