"""The engine on a real local Ray, with workers that need no model."""

from __future__ import annotations

import functools
import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
import ray
import tenacity.nap

from tests.helpers.toy_runs import in_actors
from tests.helpers.waiting import wait_for
from vtcav_ray.config import StageResources
from vtcav_ray.engine import run_shards, stream
from vtcav_ray.engine.caught import NoteShard
from vtcav_ray.engine.session import DATA_THREADS
from vtcav_ray.errors import EnvironmentFault, StageError
from vtcav_ray.runs.stage import Shard, make_shards
from vtcav_ray.store.commits import ShardOutput, StageFolder
from vtcav_ray.store.folder import Folder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("on_ray")]


class Doubler:
    """A worker that doubles a column and fails on demand."""

    def __init__(self, folder: str, mode: str = "good") -> None:
        if mode == "no model":
            raise StageError("the checkpoint does not load: mend it")
        if mode == "broken model":
            raise ZeroDivisionError("a foreign error")
        self.folder = Path(folder)
        self.mode = mode

    def __call__(self, rows: pa.Table) -> ShardOutput:
        marker = self.folder / f"seen-{rows['video_id'][0].as_py()}"
        if self.mode == "flaky" and not marker.exists():
            marker.touch()
            raise ConnectionError("the network went away")
        if self.mode == "refused":
            marker.write_text(marker.read_text() + "x" if marker.exists() else "x")
            raise PermissionError("403 for this key")
        if self.mode == "no room":
            raise StageError("the detector takes pictures of 4 channels")
        if self.mode == "bug":
            raise TypeError("tuple has no attribute ndim")
        doubled = pa.table({"video_id": rows["video_id"], "n": pa.array([2 * n for n in rows["n"].to_pylist()])})
        return ShardOutput({"tracks": doubled}, metrics={"videos": rows.num_rows})


def shards() -> list[Shard]:
    return make_shards(pa.table({"video_id": [f"v{i}" for i in range(10)], "n": list(range(10))}), 3)


def run(
    tmp_path: Path, mode: str, todo: list[Shard] | None = None, resources: StageResources = StageResources()
) -> StageFolder:
    """Run shards in processes that are kept, or in actors if `resources` say so. Both run them by the same code."""
    output = StageFolder("tracks", "k", Folder(str(tmp_path / "run")))
    worker = functools.partial(Doubler, str(tmp_path), mode)
    list(run_shards(todo if todo is not None else shards(), worker, output, resources))
    return output


def test_every_row_is_there_once_and_every_thread_of_ray_data_is_waited_for(tmp_path: Path) -> None:
    """The next version of Ray may give its threads other names."""
    before = set(threading.enumerate())
    output = StageFolder("tracks", "k", Folder(str(tmp_path / "run")))
    names = set()
    for _ in run_shards(shards(), functools.partial(Doubler, str(tmp_path)), output, in_actors()):
        names |= {thread.name for thread in set(threading.enumerate()) - before}
    assert names
    assert {name for name in names if not name.startswith(DATA_THREADS)} == set()
    table = output.read("tracks")
    assert table is not None
    assert sorted(table["n"].to_pylist()) == [2 * n for n in range(10)]
    assert output.committed() == {s.name for s in shards()}


def test_a_passing_network_error_is_tried_again(tmp_path: Path) -> None:
    table = run(tmp_path, "flaky").read("tracks")
    assert table is not None
    assert sorted(table["n"].to_pylist()) == [2 * n for n in range(10)]


def test_a_refusal_is_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="403 for this key"):  # storage failed, not the model
        run(tmp_path, "refused", shards()[:1])
    assert (tmp_path / "seen-v0").read_text() == "x"


def test_the_waits_between_attempts_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(rows: pa.Table) -> ShardOutput:
        raise ConnectionError("the network went away")

    waits: list[float] = []
    monkeypatch.setattr(tenacity.nap, "time", SimpleNamespace(sleep=waits.append))
    output = StageFolder("tracks", "k", Folder(str(tmp_path / "run")))
    actor = stream._ShardActor(lambda: fail, output, StageResources(attempts=7), None, "run")
    (shard,) = shards()[:1]
    summary = actor._run({"name": shard.name, "rows": stream._to_ipc(shard.rows)})
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    assert summary["environment"]
    assert f"Shard {shard.name} of stage tracks failed at attempt 7: ConnectionError: the network" in summary["error"]


def test_a_worker_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"not load: mend it \(StageError at the start of stage tracks\)") as caught:
        run(tmp_path, "no model", shards()[:1], in_actors())
    assert not isinstance(caught.value, EnvironmentFault)


def test_an_error_of_a_worker_has_its_type_message_place_and_shard(tmp_path: Path) -> None:
    (first,) = shards()[:1]
    with pytest.raises(StageError) as caught:
        run(tmp_path, "bug", [first], in_actors())
    message = str(caught.value)
    assert f"Shard {first.name} of stage tracks failed: TypeError: tuple has no attribute ndim (in " in message
    assert "test_stream.py, line" in message
    with pytest.raises(StageError, match=r"Stage tracks can't start: ZeroDivisionError: a foreign error \(in "):
        run(tmp_path, "broken model", [first])


def test_our_own_error_has_its_type_and_shard_too(tmp_path: Path) -> None:
    (first,) = shards()[:1]
    with pytest.raises(StageError) as caught:
        run(tmp_path, "no room", [first])
    assert str(caught.value) == (
        f"the detector takes pictures of 4 channels (StageError in shard {first.name} of stage tracks; finished shards "
        "are kept)"
    )


def test_the_shard_is_added_where_the_driver_works_and_never_twice() -> None:
    for given, expected in (
        ("no clip is left", "no clip is left (EnvironmentFault in shard 07 of stage scores; finished shards are kept)"),
        ("died over shard 07 of stage scores", "died over shard 07 of stage scores"),
    ):
        with pytest.raises(EnvironmentFault) as caught, NoteShard("scores", "07"):
            raise EnvironmentFault(given)
        assert str(caught.value) == expected


def test_shard_names_follow_their_content() -> None:
    first, again = shards(), shards()
    assert [s.name for s in first] == [s.name for s in again]
    other = make_shards(pa.table({"video_id": [f"w{i}" for i in range(10)], "n": list(range(10))}), 3)
    assert {s.name for s in first}.isdisjoint(s.name for s in other)


class FirstDies:
    """A worker whose process dies over the first shard. Other actors wait with later shards until that one is done."""

    def __init__(self, folder: str) -> None:
        self.died, self.done = Path(folder) / "died", Path(folder) / "done"

    def __call__(self, rows: pa.Table) -> ShardOutput:
        number = int(rows["video_id"][0].as_py().removeprefix("v"))
        actor = ray.get_runtime_context().get_actor_id()  # the same after a restart
        if number == 0:
            if not self.died.exists():
                self.died.write_text(actor)
                os.kill(os.getpid(), signal.SIGKILL)
            self.done.touch()
        # What the dead one had may start again in any order.
        elif number >= 4 and not (self.died.exists() and self.died.read_text() == actor):
            wait_for(self.done.exists, 120)
        return ShardOutput({"tracks": rows})


@pytest.mark.full
def test_an_actor_that_restarts_has_its_place_however_many_more_are_wanted(tmp_path: Path) -> None:
    """With six actors wanted and room for two, actors that never started must not take the place of one that died."""
    output = StageFolder("tracks", "k", Folder(str(tmp_path / "run")))
    resources = in_actors(max_actors=6)
    todo = make_shards(pa.table({"video_id": [f"v{i}" for i in range(12)]}), 1)
    done = list(run_shards(todo, functools.partial(FirstDies, str(tmp_path)), output, resources))
    assert len(done) == len(todo)
    assert (tmp_path / "died").exists()
    assert len(output.read("tracks")) == len(todo)
