"""Carrying over from an earlier output to a later one, on tables that need no model."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from vtcav_ray import tables
from vtcav_ray.rows import Failure
from vtcav_ray.runs.carry import FROM, CarryingWorker, carry, comparable
from vtcav_ray.runs.retry import newest, retry_key, same_rows, supersede
from vtcav_ray.runs.stage import Shard, make_shards
from vtcav_ray.store.commits import ShardOutput, StageFolder
from vtcav_ray.store.folder import Folder


class Letters:
    """A worker that gives two rows per video, in order, fails for those in `bad`, and remembers its input."""

    def __init__(self, bad: set[str]) -> None:
        self.bad = bad
        self.seen: list[str] = []

    def __call__(self, rows: pa.Table) -> ShardOutput:
        videos = rows["video_id"].to_pylist()
        assert FROM not in rows.column_names
        self.seen += videos
        good = [v for v in videos if v not in self.bad]
        table = pa.table({"video_id": [v for v in good for _ in "ab"], "letter": ["a", "b"] * len(good)})
        failures = [Failure(video_id=v, error_kind="missing", message="gone") for v in videos if v in self.bad]
        return ShardOutput({"tracks": table}, failures, {"videos": len(videos)})


def shards(*videos: str, size: int = 3) -> list[Shard]:
    return make_shards(pa.table({"video_id": list(videos), "fingerprint": [f"f-{v}" for v in videos]}), size)


def output(tmp_path: Path, key: str) -> StageFolder:
    return StageFolder("tracks", key, Folder(str(tmp_path / "run" / "tracks" / key)))


def complete(folder: StageFolder, todo: list[Shard], worker: object) -> StageFolder:
    for shard in todo:
        folder.commit(shard.name, worker(shard.rows))  # type: ignore[operator]
    folder.finish({}, {})
    return folder


def test_only_failed_and_new_videos_are_worked_on_and_nothing_is_out_of_order(tmp_path: Path) -> None:
    before = shards("b", "d", "f", "h")
    old = complete(output(tmp_path, "old"), before, Letters({"d"}))
    after = shards("a", "b", "c", "d", "f", "h")  # every shard now has other videos
    carried = carry(after, before, old)
    assert (carried.units, carried.kept) == (6, 3)
    assert [s.name for s in carried.shards] == [s.name for s in after]
    letters = Letters(set())
    new = complete(output(tmp_path, "new"), carried.shards, CarryingWorker(lambda: letters, old))
    assert letters.seen == ["a", "c", "d"]
    whole = complete(output(tmp_path, "whole"), after, Letters(set()))
    for shard in after:
        path = f"tracks/{shard.name}.parquet"
        assert new.folder.read_bytes(path) == whole.folder.read_bytes(path)
    assert new.read("failures") is None
    assert new.manifest()["metrics"]["worked_on"] == 3
    assert new.manifest()["metrics"]["carried"] == 3


def test_rows_of_every_type_come_out_as_the_bytes_that_they_were(tmp_path: Path) -> None:
    before = shards("a", "b")
    filled = {
        "frames": [1, 2], "boxes": [[1.0, 2.0, 3.0, 4.0]] * 2, "confidence": [0.5, 0.25], "camera": [[0.0, 1.0]] * 2,
        "sharpness": [1.0, 2.0], "shot": [0, 0], "fps": 25.0, "label": "cup", "track_id": 1, "num_frames": 2,
    }  # fmt: skip
    tracks = pa.Table.from_pylist([{"video_id": v, **filled} for v in ("a", "b")], schema=tables.TRACKS)
    clips = pa.Table.from_pylist(
        [{"video_id": v, "clip_id": v, "boxes": None, "frames": [3], "encoded": b"x"} for v in ("a", "b")],
        schema=tables.CLIPS,
    )
    old = complete(output(tmp_path, "old"), before, lambda rows: ShardOutput({"tracks": tracks, "clips": clips}))
    worker = CarryingWorker(lambda: Letters(set()), old)
    assert same_rows(old, complete(output(tmp_path, "new"), carry(before, before, old).shards, worker))


def test_a_video_that_was_replaced_is_worked_on(tmp_path: Path) -> None:
    before = shards("a", "b")
    old = complete(output(tmp_path, "old"), before, Letters(set()))
    rows = before[0].rows.set_column(1, "fingerprint", pa.array(["f-a", "other"]))
    carried = carry([Shard("s", rows)], before, old)
    assert carried.shards[0].rows[FROM].to_pylist() == [before[0].name, None]


def test_where_all_is_carried_no_worker_is_made(tmp_path: Path) -> None:
    before = shards("a", "b")
    old = complete(output(tmp_path, "old"), before, Letters(set()))

    def no_model() -> Letters:
        raise AssertionError("the model was loaded for nothing")

    again = complete(output(tmp_path, "new"), carry(before, before, old).shards, CarryingWorker(no_model, old))
    assert same_rows(old, again)


def test_a_shard_that_names_no_video_is_carried_whole_or_not_at_all(tmp_path: Path) -> None:
    def named(*digests: str) -> list[Shard]:
        return [Shard(f"s{i}", pa.table({"shard": [f"s{i}"], "sha256": [d]})) for i, d in enumerate(digests)]

    def work(rows: pa.Table) -> ShardOutput:
        bad = [Failure(video_id="v", error_kind="label", message="m")] if rows["sha256"][0].as_py() == "bad" else []
        return ShardOutput({"activations/layer=late": pa.table({"clip_id": rows["shard"]})}, bad)

    old = complete(output(tmp_path, "old"), named("1", "2", "bad"), work)
    carried = carry(named("1", "changed", "bad"), named("1", "2", "bad"), old)
    assert [s.rows[FROM][0].as_py() for s in carried.shards] == ["s0", None, None]


def test_what_is_not_committed_is_not_carried(tmp_path: Path) -> None:
    before = shards("a", "b", size=1)
    old = complete(output(tmp_path, "old"), before[:1], Letters(set()))
    assert carry(before, before, old).kept == 1


def test_only_inputs_may_differ() -> None:
    assert comparable({"version": 1, "inputs": {"a": 1}}, {"version": 1, "inputs": {"a": 2}})
    assert not comparable({"version": 1, "inputs": {}}, {"version": 2, "inputs": {}})
    # One of the two comes from a manifest, and JSON has no tuples.
    assert comparable({"classes": ["lift"], "inputs": {}}, {"classes": ("lift",), "inputs": {}})


def test_an_output_that_was_superseded_leads_to_the_newest(tmp_path: Path) -> None:
    first = complete(output(tmp_path, "k"), shards("a"), Letters({"a"}))
    second = output(tmp_path, retry_key("k"))
    third = output(tmp_path, retry_key(second.key))
    assert newest(first) == first
    supersede(first, second)
    supersede(second, third)
    assert newest(first) == third
    assert len({first.key, second.key, third.key}) == 3


def test_a_video_is_carried_from_a_shard_of_another_name(tmp_path: Path) -> None:
    def named(shard: str, digest: str) -> list[Shard]:
        return [Shard(shard, pa.table({"shard": [shard], "video_id": ["a"], "sha256": [digest]}))]

    old = complete(output(tmp_path, "old"), named("s0", "1"), lambda rows: ShardOutput({"activations": rows}))
    assert carry(named("s1", "1"), named("s0", "1"), old).shards[0].rows[FROM].to_pylist() == ["s0"]
    assert carry(named("s1", "2"), named("s0", "1"), old).kept == 0
