"""The steps that find the video to blame for a process's death, with simulated deaths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from vtcav_ray.engine import attempts as attempts_module
from vtcav_ray.engine.attempts import Attempts, Rehearsal
from vtcav_ray.errors import StageError
from vtcav_ray.rows import Failure
from vtcav_ray.store.commits import ShardOutput, StageFolder
from vtcav_ray.store.folder import Folder
from vtcav_ray.video.rehearse import Bad, Limits

ROWS = pa.table({"video_id": ["a", "b", "c"], "uri": ["u/a", "u/b", "u/c"]})
LIMITS = Limits(10, 10, 1.0, 1.0, 10)


class Died(BaseException):
    """A stand-in for the end of a process. The package must not catch it."""


class Worker:
    """A worker that keeps its input and dies for the given videos."""

    def __init__(self, deadly_alone: str = "") -> None:
        self.deadly_alone, self.given = deadly_alone, []

    def __call__(self, rows: pa.Table) -> ShardOutput:
        self.given.append(rows["video_id"].to_pylist())
        if self.given[-1] == [self.deadly_alone]:
            raise Died
        return ShardOutput({})


class Cluster:
    """A cluster that restarts a shard until it succeeds, each time in a new process, as Ray does."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, bad: dict[str, str] | None = None) -> None:
        self.output = StageFolder("tracks", "k", Folder(str(folder)))
        self.dead_nodes: set[str] = set()
        self.rehearsals: list[tuple[list[str], int]] = []

        def rehearse(uris: Sequence[str], limits: Limits, attempts: int, options: Any) -> dict[str, Bad]:
            self.rehearsals.append((list(uris), attempts))
            return {uri: Bad(bad[uri], f"{uri} did it", attempts) for uri in uris if uri in (bad or {})}

        monkeypatch.setattr(attempts_module, "rehearse", rehearse)

    def begin(
        self, worker: Worker, *, run: str = "r1", node: str = "n1", attempts: int = 3, rows: pa.Table = ROWS
    ) -> tuple[list[str], list[Failure]]:
        there = lambda name: name not in self.dead_nodes  # noqa: E731
        begun = Attempts(self.output, attempts, run, node, there, Rehearsal(LIMITS))
        left, failures = begun.begin("s", rows, worker)
        return left.column(0).to_pylist(), failures


def test_a_good_shard_is_begun_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, worker = Cluster(tmp_path, monkeypatch), Worker()
    assert cluster.begin(worker) == (["a", "b", "c"], [])
    assert worker.given == []
    assert cluster.rehearsals == []


def test_what_does_harm_in_rehearsal_is_quarantined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(tmp_path, monkeypatch, {"u/b": "crashed", "u/c": "memory"})
    cluster.begin(Worker())
    left, failures = cluster.begin(Worker())
    assert left == ["a"]
    assert cluster.rehearsals == [(["u/a", "u/b", "u/c"], 2)]
    assert [(f.video_id, f.error_kind, f.attempts) for f in failures] == [
        ("b", "crashed", 3),
        ("c", "memory", 3),
    ]


def test_what_kills_only_the_worker_is_found_by_going_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(tmp_path, monkeypatch)
    cluster.begin(Worker())
    assert cluster.begin(Worker())[0] == ["a", "b", "c"]  # after the rehearsal, all run together again
    worker = Worker(deadly_alone="b")
    with pytest.raises(Died):
        cluster.begin(worker)
    assert worker.given == [["a"], ["b"]]
    left, failures = cluster.begin(Worker())
    assert left == ["a", "c"]
    assert [(f.video_id, f.uri, f.error_kind, f.attempts) for f in failures] == [("b", "u/b", "crashed", 3)]
    # The other videos may also cause a death, and are examined again.
    assert cluster.begin(Worker())[0] == ["a", "c"]
    with pytest.raises(Died):
        cluster.begin(Worker(deadly_alone="a"))
    assert cluster.begin(Worker())[0] == ["c"]


def test_deaths_that_no_video_explains_end_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(tmp_path, monkeypatch)
    for _ in range(4):
        assert cluster.begin(Worker())[0] == ["a", "b", "c"]
    with pytest.raises(StageError, match=r"died 4 times over shard s of stage tracks, and no single video is to blame"):
        cluster.begin(Worker())
    assert cluster.begin(Worker(), run="r2")[0] == ["a", "b", "c"]  # the next `run` tries again


def test_shards_without_videos_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, rows = Cluster(tmp_path, monkeypatch), pa.table({"shard": ["x"]})
    for _ in range(3):
        cluster.begin(Worker(), rows=rows)
    with pytest.raises(StageError, match="died 3 times"):
        cluster.begin(Worker(), rows=rows)


def test_nodes_and_drivers_that_went_away_are_no_videos_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(tmp_path, monkeypatch, {"u/a": "crashed"})
    cluster.begin(Worker(), node="n1")
    cluster.dead_nodes.add("n1")
    assert cluster.begin(Worker(), node="n2") == (["a", "b", "c"], [])
    assert cluster.rehearsals == []
    # A second interruption of the same shard starts a rehearsal, but does not count as a death.
    assert cluster.begin(Worker(), run="r2", node="n2") == (["b", "c"], cluster.begin(Worker(), run="r3")[1])
    assert len(cluster.rehearsals) == 1


def test_a_video_alone_in_its_shard_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(tmp_path, monkeypatch)
    cluster.begin(Worker(), rows=ROWS.slice(0, 1), attempts=1)
    left, failures = cluster.begin(Worker(), rows=ROWS.slice(0, 1), attempts=1)
    assert (left, [f.video_id for f in failures]) == ([], ["a"])


def test_a_quarantine_is_kept_over_runs_and_from_an_earlier_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(tmp_path, monkeypatch)
    row = {"uri": "u/b", "video_id": "b", "error_kind": "crashed", "message": "died", "attempts": 2}
    cluster.output.folder.write_json("_attempts/s.json", {"run": "", "node": "n1", "failures": [row]})
    expected = (["a", "c"], [Failure(**row)])
    assert cluster.begin(Worker()) == expected
    Attempts(cluster.output, 3, "r1", "n1", lambda _: True, Rehearsal(LIMITS)).end("s")
    assert cluster.begin(Worker(), run="r2") == expected
