"""Processes that are kept from stage to stage: the same processes, fresh workers, and what happens when one dies."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
import ray.cloudpickle

from tests.helpers import poison
from tests.helpers.drawn import encode, numbered_frames
from tests.helpers.poison import LIMITS, Counter, install
from tests.helpers.waiting import wait_for
from vtcav_ray import pipeline
from vtcav_ray.config import ResourcesConfig, StageResources
from vtcav_ray.config.loading import load_config
from vtcav_ray.engine import LazySession, Rehearsal, ray_session, resident, run_shards, session, stream
from vtcav_ray.engine.feed import Feed
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.runs.stage import Shard, make_shards
from vtcav_ray.store.commits import ShardOutput, StageFolder
from vtcav_ray.store.folder import Folder

QUICKSTART = str(Path(__file__).parents[2] / "configs" / "quickstart.yaml")


start_early = LazySession.start_early  # tests/conftest.py replaces it


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Ray that keeps its processes. They can't import a test module, so its definitions travel with the pickle."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.cloudpickle.register_pickle_by_value(poison)
    site = install(tmp_path_factory.mktemp("site"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([site, os.environ.get("PYTHONPATH", "")]))
        patch.delenv("OMP_NUM_THREADS", raising=False)
        patch.setenv("YOLO_AUTOINSTALL", "true")  # a run installs nothing, whatever the user has set
        with ray_session(ResourcesConfig(num_cpus=2), keep=True):
            assert "OMP_NUM_THREADS" not in os.environ
            assert os.environ["YOLO_AUTOINSTALL"] == "true"
            yield
    ray.cloudpickle.unregister_pickle_by_value(poison)
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


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


@pytest.mark.slow
@pytest.mark.usefixtures("kept")
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


@pytest.mark.slow
@pytest.mark.usefixtures("kept")
def test_a_process_that_dies_is_replaced_and_its_shard_repeated(tmp_path: Path) -> None:
    output = output_of(tmp_path, "tracks")
    done = list(run_shards(shards(8), functools.partial(Marking, str(tmp_path), "tracks"), output, StageResources()))
    assert (tmp_path / "died").exists()
    assert sorted(row["shard"] for row in done) == sorted(shard.name for shard in shards(8))
    assert output.committed() == {shard.name for shard in shards(8)}


@pytest.mark.slow
@pytest.mark.usefixtures("kept")
def test_max_actors_limits_the_shards_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "died").touch()
    make = functools.partial(Marking, str(tmp_path), "tracks", alone=True)
    assert len(list(run_shards(shards(6), make, output_of(tmp_path, "tracks"), StageResources(max_actors=1)))) == 6


@pytest.mark.slow
@pytest.mark.usefixtures("kept")
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
    found = {row["video_id"]: row["error_kind"] for row in failures.to_pylist()}
    assert found == {"segv": "crashed", "worker": "crashed", "hang": "timeout"}


def _no_model() -> Any:
    raise StageError("the checkpoint does not load: fix it")


@pytest.mark.slow
@pytest.mark.usefixtures("kept")
def test_a_worker_that_cannot_start_says_why_and_the_next_one_starts(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"not load: fix it \(StageError at the start of stage tracks\)"):
        list(run_shards(shards(2), _no_model, output_of(tmp_path, "tracks"), StageResources()))
    (tmp_path / "died").touch()
    make = functools.partial(Marking, str(tmp_path), "tracks")
    assert len(list(run_shards(shards(2), make, output_of(tmp_path, "tracks"), StageResources()))) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("kept")
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


@pytest.mark.slow
@pytest.mark.usefixtures("kept")
def test_packages_are_imported_early_in_the_processes_that_then_work(tmp_path: Path) -> None:
    (tmp_path / "died").touch()

    def imports() -> None:
        (tmp_path / f"early-imports-{os.getpid()}").touch()
        time.sleep(0.5)  # so that one process does not do both
        raise ImportError("no such package: the worker says so")

    resident.import_early(imports, StageResources(), 2)
    wait_for(lambda: len(processes(tmp_path, "early")) == 2, seconds=60)
    list(
        run_shards(
            shards(8),
            functools.partial(Marking, str(tmp_path), "tracks"),
            output_of(tmp_path, "tracks"),
            StageResources(),
        )
    )
    assert processes(tmp_path, "shard-tracks") <= processes(tmp_path, "early")


@pytest.mark.slow
@pytest.mark.usefixtures("kept")
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


CASES: list[tuple[bool, Callable[[], ResourcesConfig]]] = [
    (True, ResourcesConfig),
    (
        True,
        lambda: ResourcesConfig(
            **{name: StageResources(cpus=2) for name in ("detect", "cut", "extract", "statistics")}
        ),
    ),
    (False, lambda: ResourcesConfig(cut=StageResources(cpus=2))),
    (False, lambda: ResourcesConfig(extract=StageResources(gpus=1))),
    (False, lambda: ResourcesConfig(extract=StageResources(memory_gb=2))),
    (False, lambda: ResourcesConfig(extract=StageResources(batch_size="auto"))),
    (
        False,
        lambda: ResourcesConfig(
            **{name: StageResources(cpus=0.5) for name in ("detect", "cut", "extract", "statistics")}
        ),
    ),
]


@pytest.mark.parametrize(("expected", "make"), CASES)
def test_processes_are_kept_only_where_all_stages_suit(expected: bool, make: Callable[[], ResourcesConfig]) -> None:
    assert resident.can_keep(make()) is expected


@pytest.mark.parametrize(
    ("resources", "address", "started"),
    [
        (ResourcesConfig(), None, True),
        (ResourcesConfig(), "10.0.0.1:6379", False),
        (ResourcesConfig(address="10.0.0.1:6379"), None, False),
        (ResourcesConfig(extract=StageResources(gpus=1)), None, False),
    ],
)
def test_ray_starts_early_only_where_processes_are_kept(
    monkeypatch: pytest.MonkeyPatch, resources: ResourcesConfig, address: str | None, started: bool
) -> None:
    if address is None:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
    else:
        monkeypatch.setenv("RAY_ADDRESS", address)
    starts: list[bool] = []
    monkeypatch.setattr(LazySession, "start", lambda self: starts.append(True))
    start_early(LazySession(resources), lambda: None)
    assert starts == [True] * started


@pytest.mark.parametrize("enough", ["true", "false"])
def test_ray_starts_before_the_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enough: str) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"listed, but not read")
    calls: list[str] = []

    def check(*_: Any, **__: Any) -> None:
        calls.append("check")
        raise ConfigError("the checks stop this run")

    def start(self: LazySession, imports: Callable[[], None] | None) -> None:
        assert imports is not None, "a detector's packages take seconds"
        calls.append("start")

    monkeypatch.setattr(LazySession, "start_early", start)
    monkeypatch.setattr(pipeline, "preflight", check)
    settings = [f"videos={{uri: '{tmp_path / 'videos'}', enough: {enough}}}"]
    with pytest.raises(ConfigError, match="the checks stop this run"):
        pipeline.run(load_config(QUICKSTART, settings, out=str(tmp_path / "run")))
    assert calls == ["start", "check"]


def test_the_environment_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VTCAV_A", "mine")
    monkeypatch.delenv("VTCAV_B", raising=False)
    with session.environment({"VTCAV_A": "ours", "VTCAV_B": "ours"}):
        assert (os.environ["VTCAV_A"], os.environ["VTCAV_B"]) == ("ours", "ours")
    assert os.environ["VTCAV_A"] == "mine"
    assert "VTCAV_B" not in os.environ


def test_a_feed_hands_out_each_wanted_shard_once() -> None:
    first, second, third, fourth = shards(4)
    feed = Feed(4)
    feed.add([first, second])
    assert feed.take() is first
    assert feed.take() is second
    assert feed.take() is None
    feed.add([third, fourth])
    feed.stop([first.name, fourth.name])
    assert feed.take() is fourth
    assert feed.take() is None
    assert [shard.name for shard in Feed.of([first, second])] == [first.name, second.name]


def test_memory_that_a_stage_has_freed_is_returned() -> None:
    code = """
from vtcav_ray.tracks.freed_memory import keep_freed_memory, return_freed_memory
from vtcav_ray.video.guard import resident_bytes
if keep_freed_memory():
    blocks = [b"x" * 2**20 for _ in range(200)]
    last = b"y" * 2**20  # so that the freed blocks do not lie at the end
    del blocks
    kept = resident_bytes()
    return_freed_memory()
    assert kept - resident_bytes() > 100 * 2**20, (kept, resident_bytes())
"""
    subprocess.run([sys.executable, "-c", code], check=True)
