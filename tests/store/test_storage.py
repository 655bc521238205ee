from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vtcav_ray import tables
from vtcav_ray.errors import ConfigError
from vtcav_ray.rows import Failure
from vtcav_ray.store import read_ahead
from vtcav_ray.store.commits import ShardOutput, StageFolder, parquet_bytes
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.records import canonical_digest

ROWS = pa.table({"video_id": ["a", "b"], "n": [1, 2]})


@pytest.fixture(params=["local", "memory"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> StageFolder:
    url = str(tmp_path / "run") if request.param == "local" else f"memory://{tmp_path.name}/run"
    return StageFolder("tracks", "k", Folder(url))


def test_a_shard_is_there_after_its_commit_record_and_not_before(stage: StageFolder) -> None:
    stage.folder.write_bytes("tracks/00000.parquet", parquet_bytes(ROWS))  # as left by a writer that was killed
    assert stage.committed() == set()
    assert stage.files("tracks") == []
    stage.commit("00000", ShardOutput({"tracks": ROWS}))
    assert stage.committed() == {"00000"}
    assert stage.read("tracks") == ROWS


def test_committing_twice_leaves_the_same_bytes(stage: StageFolder) -> None:
    first = stage.commit("s", ShardOutput({"tracks": ROWS}, metrics={"seconds": 1.0}))
    before = stage.folder.read_bytes("tracks/s.parquet")
    second = stage.commit("s", ShardOutput({"tracks": ROWS}, metrics={"seconds": 2.0}))
    assert stage.folder.read_bytes("tracks/s.parquet") == before
    assert first["files"] == second["files"]
    assert first["files"]["tracks/s.parquet"]["sha256"] == hashlib.sha256(before).hexdigest()


def test_failures_are_rows_with_the_stage_and_an_attempt(stage: StageFolder) -> None:
    stage.commit("s", ShardOutput({"tracks": ROWS}, [Failure(uri="x.mp4", error_kind="empty", message="0 bytes")]))
    failures = stage.read("failures")
    assert failures is not None
    assert failures.schema == tables.FAILURES
    row = failures.to_pylist()[0]
    assert (row["stage"], row["uri"], row["error_kind"], row["attempts"]) == ("tracks", "x.mp4", "empty", 1)
    assert row["clip_id"] is None


def test_the_manifest_counts_what_the_shards_hold(stage: StageFolder) -> None:
    assert not stage.complete
    stage.commit("a", ShardOutput({"tracks": ROWS}, metrics={"videos": 2}))
    stage.commit("b", ShardOutput({"tracks": ROWS.slice(0, 1)}, metrics={"videos": 1}))
    manifest = stage.finish({"x": 1}, {"warnings": []})
    assert stage.complete
    assert manifest["rows"] == {"tracks": 3}
    assert manifest["metrics"] == {"videos": 3}
    assert stage.manifest() == json.loads(json.dumps(manifest))


def test_layers_are_read_one_at_a_time_and_together_as_lists(stage: StageFolder) -> None:
    def layer(name: str, d: int) -> pa.Table:
        values = pa.FixedSizeListArray.from_arrays(pa.array([float(d)] * d, pa.float32()), d)
        return pa.table({"layer": [name], "vector": values})

    stage.commit("s", ShardOutput({"cavs/layer=late": layer("late", 4), "cavs/layer=early": layer("early", 2)}))
    late = stage.read("cavs", layer="late")
    assert late is not None
    assert late.schema.field("vector").type == tables.vector(4)
    both = stage.read("cavs")
    assert both is not None
    assert {row["layer"]: len(row["vector"]) for row in both.to_pylist()} == {"late": 4, "early": 2}


def test_a_column_can_be_read_alone(stage: StageFolder) -> None:
    stage.commit("s", ShardOutput({"tracks": ROWS}))
    read = stage.read("tracks", columns=["n"])
    assert read is not None
    assert read.column_names == ["n"]


class SlowFolder(StageFolder):
    """A folder with slow reads, as on an object store. It counts reads, and reads at the same time."""

    def read_file(self, path: str, columns: Sequence[str] | None = None) -> pa.Table:
        with LOCK:
            COUNTS["begun"] += 1
            COUNTS["now"] += 1
            COUNTS["most"] = max(COUNTS["most"], COUNTS["now"])
        time.sleep(0.01)
        with LOCK:
            COUNTS["now"] -= 1
        if path.endswith("s0040.parquet"):
            raise ConnectionError("gone")
        return super().read_file(path, columns)


LOCK = threading.Lock()
COUNTS = {"begun": 0, "now": 0, "most": 0}


def slow(stage: StageFolder, count: int) -> SlowFolder:
    for i in range(count):
        stage.commit(f"s{i:04d}", ShardOutput({"tracks": pa.table({"n": [i]})}))
    COUNTS.update(begun=0, now=0, most=0)
    return SlowFolder(stage.stage, stage.key, stage.folder)


@pytest.mark.slow
def test_shards_are_read_ahead_in_order_and_not_too_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = slow(StageFolder("tracks", "k", Folder(str(tmp_path / "run"))), 40)
    seen = []
    for name, part in folder.iter_tables("tracks"):
        seen.append((name, part["n"].to_pylist()))
        assert COUNTS["begun"] <= len(seen) + read_ahead.READ_AHEAD_FILES
    assert seen == [(f"s{i:04d}", [i]) for i in range(40)]
    assert COUNTS["most"] > read_ahead.READ_AHEAD_FILES / 2, "they are read at the same time"
    whole = folder.read("tracks")
    assert whole is not None
    assert whole["n"].to_pylist() == list(range(40))
    # Large files: one at a time.
    monkeypatch.setattr(read_ahead, "READ_AHEAD_BYTES", 1)
    COUNTS["most"] = 0
    assert [part["n"].to_pylist() for _, part in folder.iter_tables("tracks", columns=["n"])][:3] == [[0], [1], [2]]
    assert COUNTS["most"] == 1


def test_what_is_read_ahead_ends_with_its_reader(tmp_path: Path) -> None:
    folder = slow(StageFolder("tracks", "k", Folder(str(tmp_path / "run"))), 50)
    reader = folder.iter_tables("tracks")
    next(reader)
    reader.close()  # type: ignore[attr-defined]
    time.sleep(0.1)  # a thread may still begin what it took before
    begun = COUNTS["begun"]
    assert begun <= 1 + read_ahead.READ_AHEAD_FILES
    time.sleep(0.1)
    assert COUNTS["begun"] == begun, "nothing is begun any more"
    seen = []

    def read_all() -> None:
        for name, _ in folder.iter_tables("tracks"):
            seen.append(name)

    with pytest.raises(ConnectionError, match="gone"):
        read_all()
    assert seen == [f"s{i:04d}" for i in range(40)], "it fails when its turn comes, and not before"


@pytest.mark.slow
def test_files_are_read_in_the_thread_that_asks(tmp_path: Path) -> None:
    """A thread of Arrow's that still holds a Python file when the process ends aborts the process (seen twice)."""
    stage = StageFolder("tracks", "k", Folder(str(tmp_path)))
    stage.commit("0", ShardOutput({"tracks": pa.table({"video_id": [str(i) for i in range(5000)], "x": range(5000)})}))
    script = (
        "import os, sys\n"
        "from vtcav_ray.store.commits import Folder, StageFolder\n"
        "stage = StageFolder('tracks', 'k', Folder(sys.argv[1]))\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "assert stage.read('tracks', columns=['x']).num_rows == 5000\n"
        "print(len(os.listdir('/proc/self/task')) - before)\n"
    )
    reported = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert reported.stdout == "0\n"


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(str(tmp_path))
    monkeypatch.setattr("os.replace", _no_space)
    with pytest.raises(OSError, match="No space"):
        folder.write_bytes("a/b.bin", b"123")
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def _no_space(*_: object) -> None:
    raise OSError("No space left on device")


def test_written_files_are_ordinary_parquet(stage: StageFolder, tmp_path: Path) -> None:
    stage.commit("s", ShardOutput({"tracks": ROWS}))
    path = tmp_path / "copy.parquet"
    path.write_bytes(stage.folder.read_bytes("tracks/s.parquet"))
    assert pq.read_table(path) == ROWS


def test_an_unknown_scheme_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="nosuch://"):
        _ = Folder("nosuch://bucket/run").fs


def test_digests_do_not_depend_on_the_order_of_keys() -> None:
    assert canonical_digest({"a": 1, "b": [1, 2]}) == canonical_digest({"b": [1, 2], "a": 1})
    assert canonical_digest({"a": 1}) != canonical_digest({"a": 2})


@pytest.mark.parametrize("url", ["local", "memory://write-once"])
def test_what_is_written_once_is_what_all_get(url: str, tmp_path: Path) -> None:
    folder = Folder(str(tmp_path) if url == "local" else url)
    assert folder.write_once("a/size.json", b"8") == b"8"
    assert folder.write_once("a/size.json", b"16") == b"8"
    assert folder.names("a") == ["size.json"]
