from __future__ import annotations

import csv
import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.listed_videos import listed, touch
from vtcav_ray.config import VideosConfig
from vtcav_ray.errors import ConfigError, InputError
from vtcav_ray.store.commits import failure_table
from vtcav_ray.store.records import canonical_digest
from vtcav_ray.video.fetch import fetch
from vtcav_ray.videos import listing
from vtcav_ray.videos.listing import list_videos


def write_csv(path: Path, rows: list[dict[str, Any]]) -> str:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def test_folder_takes_labels_from_sub_folders(tmp_path: Path) -> None:
    touch(tmp_path, "b/two.MP4", "a/one.mkv", "top.webm", "a/notes.txt", "a/.hidden.mp4", "train/c/x.mp4", "val/y.mp4")
    rows = listed(tmp_path)
    found = {r["video_id"]: (r["label"], r["split"]) for r in rows}
    assert found == {
        "a/one.mkv": ("a", None),
        "b/two.MP4": ("b", None),
        "top.webm": (None, None),
        "train/c/x.mp4": ("c", "train"),
        "val/y.mp4": (None, "val"),
    }
    assert [r["video_id"] for r in rows] == sorted(found)
    assert all(Path(r["uri"]).is_file() and r["size_bytes"] == Path(r["uri"]).stat().st_size for r in rows)


def test_ids_do_not_depend_on_where_the_folder_is_and_keep_endings_apart(tmp_path: Path) -> None:
    for place in ("here", "there"):
        touch(tmp_path / place, "a.mp4", "a.mkv")
    here, there = listed(tmp_path / "here"), listed(tmp_path / "there")
    assert [r["video_id"] for r in here] == [r["video_id"] for r in there] == ["a.mkv", "a.mp4"]


def test_fingerprint_tells_that_a_file_was_replaced(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    before = {r["video_id"]: r["fingerprint"] for r in listed(tmp_path)}
    os.utime(tmp_path / "a.mp4", (1, 1))
    after = {r["video_id"]: r["fingerprint"] for r in listed(tmp_path)}
    assert before["a.mp4"] != after["a.mp4"]
    assert before["b.mp4"] == after["b.mp4"]


@pytest.mark.parametrize("place", ["beside", "inside"])
def test_labels_file_of_a_folder(tmp_path: Path, place: str) -> None:
    touch(tmp_path / "videos", "007.mp4", "008.mp4")
    target = tmp_path if place == "beside" else tmp_path / "videos"
    write_csv(target / "labels.csv", [{"video_id": "007", "label": "lift"}, {"video_id": "008.mp4", "label": "push"}])
    assert [r["label"] for r in listed(tmp_path / "videos")] == ["lift", "push"]


def test_parquet_beside_the_folder(tmp_path: Path) -> None:
    touch(tmp_path / "videos", "1.mp4")
    pq.write_table(pa.table({"video_id": ["1"], "label": ["up"], "split": ["test"]}), tmp_path / "videos.parquet")
    assert [(r["video_id"], r["label"], r["split"]) for r in listed(tmp_path / "videos")] == [("1.mp4", "up", "test")]


def test_parquet_in_the_folder_is_the_manifest(tmp_path: Path) -> None:
    touch(tmp_path, "videos/1.mp4", "videos/2.mp4")
    pq.write_table(
        pa.table({"video_id": ["one"], "uri": ["videos/1.mp4"], "label": ["up"]}), tmp_path / "videos.parquet"
    )
    (row,) = listed(tmp_path)
    assert (row["video_id"], row["label"], row["uri"]) == ("one", "up", str(tmp_path / "videos/1.mp4"))


def test_labels_from_the_config(tmp_path: Path) -> None:
    touch(tmp_path / "v", "wrong/1.mp4")
    labels = write_csv(tmp_path / "mine.csv", [{"file": "1.mp4", "class": "right"}])
    assert [r["label"] for r in listed(tmp_path / "v", labels=labels)] == ["right"]
    with pytest.raises(ConfigError, match=r"none\.csv does not exist"):
        listed(tmp_path / "v", labels=str(tmp_path / "none.csv"))
    other = write_csv(tmp_path / "other.csv", [{"file": "2.mp4", "class": "right"}])
    with pytest.raises(ConfigError, match="none of the 1 videos"):
        listed(tmp_path / "v", labels=other)


def test_a_label_goes_by_the_files_name_only_where_that_is_plain(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path / "v", "lift/001.mp4", "x/001.mp4", "y/002.mp4", "z/003.mp4")
    labels = [
        {"video_id": "lift/001.mp4", "label": "lifting"},
        {"video_id": "002", "label": "two"},
        {"video_id": "elsewhere/003.mp4", "label": "three"},
    ]
    write_csv(tmp_path / "v" / "labels.csv", labels)
    found = {r["video_id"]: r["label"] for r in listed(tmp_path / "v")}
    assert found == {"lift/001.mp4": "lifting", "x/001.mp4": "x", "y/002.mp4": "two", "z/003.mp4": "three"}
    assert "x/001.mp4" in caplog.text
    # Two names for one file, and a path without its extension.
    labels = [{"video_id": "x/001", "label": "a"}, {"video_id": "m/002.mp4", "label": "b"},
              {"video_id": "n/002.mp4", "label": "c"}]  # fmt: skip
    write_csv(tmp_path / "v" / "labels.csv", labels)
    found = {r["video_id"]: r["label"] for r in listed(tmp_path / "v")}
    assert found == {"lift/001.mp4": "lift", "x/001.mp4": "a", "y/002.mp4": "y", "z/003.mp4": "z"}


def test_glob_and_single_file(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.mp4", "a/2.avi", "b/3.mp4", "odd[1].mp4")
    assert [r["video_id"] for r in listed(f"{tmp_path}/*/*.mp4")] == ["a/1.mp4", "b/3.mp4"]
    assert [r["video_id"] for r in listed(tmp_path / "b/3.mp4")] == ["3.mp4"]
    assert [r["video_id"] for r in listed(tmp_path / "odd[1].mp4")] == ["odd[1].mp4"]
    with pytest.raises(ConfigError, match="matches no file"):
        listed(f"{tmp_path}/*/*.mov")


def test_manifest_rows_that_name_nothing_are_failures(tmp_path: Path) -> None:
    touch(tmp_path, "1.mp4", "sub/2.mp4")
    rows = [
        {"uri": "1.mp4", "label": "a"},
        {"uri": "", "label": "a"},
        {"uri": "gone.mp4", "label": "a"},
        {"uri": "hf://datasets/x.mp4", "label": "a"},
        {"uri": str(tmp_path / "sub/2.mp4"), "label": ""},
    ]
    table, failures = list_videos(VideosConfig(uri=write_csv(tmp_path / "list.csv", rows)))
    assert [(r["video_id"], r["label"]) for r in table.to_pylist()] == [("1.mp4", "a"), ("sub/2.mp4", None)]
    assert [(f.error_kind, f.uri) for f in failures] == [
        ("manifest", None),
        ("manifest", "hf://datasets/x.mp4"),
        ("missing", str(tmp_path / "gone.mp4")),
    ]
    assert "row 2" in failures[0].message


BAD_ROWS = ["http://[bad/x.mp4", "1.mp4/b.mp4", "1.mp4/b/c.mp4", f"{'x' * 300}.mp4", "gs://bucket/a.mp4", "loop/a.mp4",
            "s3://no bucket/a.mp4"]  # fmt: skip


@pytest.mark.parametrize("limit", [listing.STAT_LIMIT, 5, 1])  # looked up one by one, by folder, or not at all
def test_a_row_that_can_not_be_a_file_is_a_failure_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(listing, "STAT_LIMIT", limit)
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # not installed
    touch(tmp_path, "1.mp4")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    manifest = write_csv(tmp_path / "l.csv", [{"uri": uri} for uri in ["1.mp4", *BAD_ROWS]])
    options = {"key": "k", "secret": "s", "client_kwargs": {"region_name": "none"}}
    table, failures = list_videos(VideosConfig(uri=manifest, storage_options=options))
    good, bad = set(table["uri"].to_pylist()), {f.uri for f in failures}
    assert str(tmp_path / "1.mp4") in good
    assert {"http://[bad/x.mp4", "gs://bucket/a.mp4"} <= bad
    assert "gcsfs" in next(f.message for f in failures if f.uri == "gs://bucket/a.mp4")
    if limit > 1:
        assert len(bad) == len(BAD_ROWS)
    else:  # then decoding finds it
        for uri in good - {str(tmp_path / "1.mp4")}:
            with pytest.raises(InputError):
                fetch(uri, options)


def test_a_file_whose_name_no_table_can_hold_is_a_failure(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.mp4", "a/b::c.mp4")
    (tmp_path / os.fsdecode(b"\xff.mp4")).write_bytes(b"x")
    (tmp_path / os.fsdecode(b"\xfe")).mkdir()
    (tmp_path / os.fsdecode(b"\xfe") / "2.mp4").write_bytes(b"x")
    for uri in (str(tmp_path), f"{tmp_path}/**/*.mp4"):
        table, failures = list_videos(VideosConfig(uri=uri))
        assert table["video_id"].to_pylist() == ["a/1.mp4"]
        assert sorted(f.video_id for f in failures) == [r"\xfe/2.mp4", r"\xff.mp4", "a/b::c.mp4"]
        assert failure_table("videos", failures).num_rows == 3
        assert canonical_digest([dataclasses.asdict(f) for f in failures])
    with fsspec.open("memory://names/a?token=5ecret.mp4", "wb") as file:
        file.write(b"x")
    _, (failure,) = list_videos(VideosConfig(uri="memory://names"))
    assert "credential" in failure.message
    assert "5ecret" not in f"{failure.uri}{failure.message}"


def test_a_table_with_two_columns_of_one_meaning_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "v/1.mp4")
    for head in ("uri,label,label", "uri,label,Label"):
        (tmp_path / "l.csv").write_text(f"{head}\nv/1.mp4,a,b\n")
        with pytest.raises(ConfigError, match="label"):
            listed(tmp_path / "l.csv")
        with pytest.raises(ConfigError, match="label"):
            listed(tmp_path / "v", labels=str(tmp_path / "l.csv"))
    names = ["uri", "label", "label"]
    pq.write_table(pa.Table.from_arrays([pa.array(["v/1.mp4"])] * 3, names=names), tmp_path / "l.parquet")
    with pytest.raises(ConfigError, match="label"):
        listed(tmp_path / "l.parquet")
    (tmp_path / "l.csv").write_text("uri,label,note,note\nv/1.mp4,a,b,c\n")  # this column is not used
    assert listed(tmp_path / "l.csv")[0]["label"] == "a"


def test_text_that_is_not_utf8_is_reported(tmp_path: Path) -> None:
    bad = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.array([0, 1], pa.int32()).buffers()[1], pa.py_buffer(b"\xff")]
    )
    pq.write_table(pa.table({"uri": bad}), tmp_path / "l.parquet")
    with pytest.raises(ConfigError, match="not a readable table"):
        listed(tmp_path / "l.parquet")


def test_manifest_ids_can_not_climb_out(tmp_path: Path) -> None:
    touch(tmp_path, "1.mp4", "m/x")
    rows = [{"video_id": "../../etc", "uri": "../1.mp4"}, {"video_id": "", "uri": "../1.mp4"}]
    table, failures = list_videos(VideosConfig(uri=write_csv(tmp_path / "m/list.csv", rows)))
    assert [f.video_id for f in failures] == ["../../etc"]
    (row,) = table.to_pylist()
    assert ".." not in row["video_id"]
    assert row["uri"] == str(tmp_path / "1.mp4")


def test_manifest_keeps_ids_as_text(tmp_path: Path) -> None:
    touch(tmp_path, "1.mp4")
    assert [r["video_id"] for r in listed(write_csv(tmp_path / "l.csv", [{"id": "007", "uri": "1.mp4"}]))] == ["007"]


def test_duplicate_ids_are_reported(tmp_path: Path) -> None:
    touch(tmp_path, "1.mp4", "2.mp4")
    rows = [{"video_id": "x", "uri": "1.mp4"}, {"video_id": "x", "uri": "2.mp4"}]
    with pytest.raises(ConfigError, match="'x'"):
        listed(write_csv(tmp_path / "l.csv", rows))


def test_large_manifest_is_looked_up_by_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, *[f"{i % 3}/{i}.mp4" for i in range(12)])
    rows = [{"uri": f"{i % 3}/{i}.mp4"} for i in range(14)]
    monkeypatch.setattr(listing, "STAT_LIMIT", 5)
    manifest = write_csv(tmp_path / "l.csv", rows)
    monkeypatch.setattr(fsspec.implementations.local.LocalFileSystem, "info", _info)
    monkeypatch.setattr(fsspec.implementations.local.LocalFileSystem, "ls", _ls)
    table, failures = list_videos(VideosConfig(uri=manifest))
    assert table.num_rows == 12
    assert all(table["fingerprint"].to_pylist())
    assert [f.error_kind for f in failures] == ["missing", "missing"]


def _info(self: object, path: str) -> dict[str, Any]:
    assert not path.endswith(".mp4"), "a large manifest is not looked up file by file"
    if not os.path.exists(path):
        raise FileNotFoundError(path)
    return {"name": path, "type": "directory" if os.path.isdir(path) else "file"}


def _ls(self: object, path: str, detail: bool = True) -> list[dict[str, Any]]:
    return [{"name": e.path, "type": "file", "size": 1, "mtime": 2.0} for e in os.scandir(path) if e.is_file()]


def test_manifest_without_uris(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no `uri` column"):
        listed(write_csv(tmp_path / "l.csv", [{"name": "1"}]))
    (tmp_path / "bad.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(ConfigError, match="not a readable table"):
        listed(tmp_path / "bad.parquet")


@pytest.mark.parametrize("uri", ["{}/none", "{}/none.csv", "{}/empty"])
def test_nothing_there(tmp_path: Path, uri: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"does not exist|no video in it") as caught:
        listed(uri.format(tmp_path))
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("uri", ["ftp://host/x", "hf://datasets/x", "javascript://x", "http+evil://x"])
def test_schemes_that_are_not_read(uri: str) -> None:
    with pytest.raises(ConfigError, match="Allowed"):
        listed(uri)


def test_limit_is_a_sample_over_all_folders(tmp_path: Path) -> None:
    touch(tmp_path, *[f"{c}/{i}.mp4" for c in "abcd" for i in range(25)])
    rows = listed(tmp_path, limit=40)
    assert len(rows) == 40
    assert {r["label"] for r in rows} == set("abcd")
    touch(tmp_path, "e/new.mp4")
    again = {r["video_id"] for r in listed(tmp_path, limit=40)}
    assert len(again & {r["video_id"] for r in rows}) >= 39


def test_object_storage_paths() -> None:
    with fsspec.open("memory://bucket/c/1.mp4", "wb") as file:
        file.write(b"abc")
    with fsspec.open("memory://bucket/list.csv", "wb") as file:
        file.write(b"uri,label\nc/1.mp4,c\nmemory://bucket/c/1.mp4,d\n")
    (row,) = listed("memory://bucket/c")
    assert (row["video_id"], row["uri"]) == ("1.mp4", "memory://bucket/c/1.mp4")
    with pytest.raises(ConfigError, match="more than once"):  # both rows name one file
        listed("memory://bucket/list.csv")


def test_world_without_files_is_asked_for_first() -> None:
    with pytest.raises(ConfigError, match="render"):
        list_videos(VideosConfig(world={"videos": 8}))
