"""Hostile files that lie in a folder of videos or are read beside it."""

from __future__ import annotations

import io
import os
import re
import string
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.examples import examples_in_one_folder
from vtcav_ray.config import VideosConfig
from vtcav_ray.errors import ConfigError
from vtcav_ray.videos import tables as labels_module
from vtcav_ray.videos.listing import list_videos


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one video in it and a secret beside it."""
    videos = tmp_path / "videos"
    (videos / "lift").mkdir(parents=True)
    (videos / "lift" / "a.mp4").write_bytes(b"x")
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    (tmp_path / "videos2").mkdir()
    (tmp_path / "videos2" / "b.mp4").write_bytes(b"x")
    return videos


def write(folder: Path, *uris: str) -> None:
    pq.write_table(pa.table({"uri": list(uris)}), folder / "videos.parquet")


def outcome(folder: Path | str, **options: Any) -> tuple[list[str], list[str]]:
    videos, failures = list_videos(VideosConfig(uri=str(folder), **options))
    return videos["video_id"].to_pylist(), [f.error_kind for f in failures]


def test_a_manifest_in_the_folder_names_nothing_outside(folder: Path) -> None:
    outside = [
        str(folder.parent / "secret.mp4"), "../secret.mp4", "lift/../../secret.mp4", f"file://{folder.parent}/secret.mp4",
        f"local://{folder.parent}/secret.mp4", str(folder.parent / "videos2" / "b.mp4"), "..\\secret.mp4",
        f"{folder}/../secret.mp4", "/etc/passwd", "s3://somebody/else.mp4", "https://elsewhere.example/a.mp4",
        "memory://x/a.mp4",
    ]  # fmt: skip
    write(folder, "lift/a.mp4", *outside)
    assert outcome(folder) == (["lift/a.mp4"], ["outside"] * len(outside))
    _, failures = list_videos(VideosConfig(uri=str(folder)))
    assert all("`videos.uri`" in f.message for f in failures)
    # A manifest that the config names is trusted.
    write(folder, "lift/a.mp4", "../secret.mp4")
    named, _ = list_videos(VideosConfig(uri=str(folder / "videos.parquet"), schemes=("file",)))
    assert str(folder.parent / "secret.mp4") in named["uri"].to_pylist()


def test_a_file_inside_may_be_named_by_its_whole_path(folder: Path) -> None:
    write(folder, str(folder / "lift" / "a.mp4"))
    assert outcome(folder) == (["lift/a.mp4"], [])
    write(folder, f"file://{folder}/lift/a.mp4")
    assert outcome(folder) == (["lift/a.mp4"], [])


def test_a_row_is_no_link_out_of_the_folder(folder: Path) -> None:
    (folder / "out.mp4").symlink_to(folder.parent / "secret.mp4")
    (folder / "inside.mp4").symlink_to(folder / "lift" / "a.mp4")
    (folder / "way").symlink_to(folder.parent)
    write(folder, "out.mp4", "inside.mp4", "way/secret.mp4")
    assert outcome(folder) == (["inside.mp4"], ["outside", "outside"])
    assert outcome(folder, follow_links=True) == (["inside.mp4", "out.mp4", "way/secret.mp4"], [])


@pytest.mark.parametrize("name", ["videos.parquet", "labels.csv"])
@pytest.mark.parametrize("place", ["inside", "beside"])
def test_a_side_file_is_no_link_to_any_file(folder: Path, name: str, place: str, tmp_path_factory: Any) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "shadow"
    elsewhere.write_text("root:s3cr3t\nlift/a.mp4,x\n")
    ((folder if place == "inside" else folder.parent) / name).symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="is a link out of") as caught:
        list_videos(VideosConfig(uri=str(folder)))
    assert "s3cr3t" not in str(caught.value)
    assert "videos.follow_links" in str(caught.value)


def test_a_manifest_in_a_folder_of_a_bucket_names_nothing_outside() -> None:
    fs = fsspec.filesystem("memory")
    for path in ("/bucket/videos/a.mp4", "/bucket/private/b.mp4", "/other/c.mp4", "/bucket/videos2/d.mp4"):
        fs.pipe_file(path, b"x")
    rows = ["a.mp4", "memory://bucket/videos/a2.mp4", "../private/b.mp4", "memory://bucket/private/b.mp4",
            "memory://other/c.mp4", "memory://bucket/videos2/d.mp4", "memory://bucket/videos/../private/b.mp4",
            "s3://bucket/videos/a.mp4", "/etc/passwd"]  # fmt: skip
    sink = io.BytesIO()
    pq.write_table(pa.table({"uri": rows}), sink)
    fs.pipe_file("/bucket/videos/videos.parquet", sink.getvalue())
    videos, failures = list_videos(VideosConfig(uri="memory://bucket/videos"))
    assert videos["video_id"].to_pylist() == ["a.mp4"]
    kinds = {f.uri: f.error_kind for f in failures}
    inside = {"memory://bucket/videos/a2.mp4": "missing", "memory://bucket/videos/etc/passwd": "missing"}
    assert kinds == {**dict.fromkeys([r for r in rows[2:] if r != "/etc/passwd"], "outside"), **inside}


def test_http_dots_are_dots_however_they_are_written() -> None:
    from vtcav_ray.videos.links import why_outside

    for path in ("a/%2e%2e/%2E%2E/b.mp4", "a/..%2fb.mp4", "a\\..\\b.mp4"):
        full = f"https://h/videos/{path}"
        assert "outside" in why_outside(full, full, "https://h/videos", False)
    assert not why_outside("https://h/videos/a..b.mp4", "https://h/videos/a..b.mp4", "https://h/videos", False)
    assert why_outside("https://h/videosx/a", "https://h/videosx/a", "https://h/videos", False)
    assert why_outside("https://evil/videos/a", "https://evil/videos/a", "https://h/videos", False)


def test_a_table_of_few_bytes_and_many_rows_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels_module, "MAX_TABLE_ROWS", 200_000)
    many = pa.table({"uri": pa.array(["a.mp4"]).take(pa.array([0] * 300_000))})
    pq.write_table(many, folder / "videos.parquet", compression="zstd")
    assert (folder / "videos.parquet").stat().st_size < 5_000
    with pytest.raises(ConfigError, match="200,000 rows"):
        list_videos(VideosConfig(uri=str(folder)))
    monkeypatch.setattr(labels_module, "MAX_TABLE_ROWS", 10**9)
    monkeypatch.setattr(labels_module, "MAX_TABLE_BYTES", 10**6)
    with pytest.raises(ConfigError, match="bytes in memory"):
        list_videos(VideosConfig(uri=str(folder)))
    (folder / "videos.parquet").unlink()
    (folder / "labels.csv").write_bytes(b"video_id,label\n" + b"a,b\n" * 300_000)
    with pytest.raises(ConfigError, match="1,000,000 bytes"):
        list_videos(VideosConfig(uri=str(folder)))


def refusal(uri: Path) -> str:
    """Return the message with which a listing is refused; empty: it is accepted."""
    try:
        list_videos(VideosConfig(uri=str(uri)))
    except ConfigError as error:
        return str(error)
    return ""


# Fuzz, bounded by the number of examples. Any table is accepted or refused with a clear error, and none of its
# videos lies outside the folder.

PIECES = st.sampled_from(
    ["..", ".", "", "a.mp4", "lift", "/", "//", "\\", "%2e%2e", "file:", "file://", "s3://b", "::", "http://h", "\x00",
     "\n", "é", "~", "secret.mp4", "way", "out.mp4", "@", "?x=1", "#f"]
)  # fmt: skip
CELLS = st.none() | st.lists(PIECES, max_size=6).map("/".join) | st.lists(PIECES, max_size=6).map("".join)
RELAXED = examples_in_one_folder(120)


@pytest.mark.slow
@RELAXED
@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8), named=st.booleans())
def test_fuzz_manifest_rows(folder: Path, rows: list[tuple[str | None, str | None]], named: bool) -> None:
    for name, target in (("out.mp4", folder.parent / "secret.mp4"), ("way", folder.parent)):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(target)
    columns = {"uri": pa.array([r[0] for r in rows], pa.string())}
    if named:
        columns["video_id"] = pa.array([r[1] for r in rows], pa.string())
    pq.write_table(pa.table(columns), folder / "videos.parquet")
    if why := refusal(folder):
        assert "video id" in why  # two rows of one id
        return
    videos, failures = list_videos(VideosConfig(uri=str(folder)))
    assert videos.num_rows + len(failures) == len(rows)
    for uri in videos["uri"].to_pylist():
        assert os.path.realpath(uri).startswith(f"{os.path.realpath(folder)}/")


BYTES = st.binary(max_size=200) | st.text(string.ascii_letters + ",\";\n\r\t\0'=@../é", max_size=200).map(
    lambda text: b"video_id,label\n" + text.encode()
)


@pytest.mark.slow
@RELAXED
@given(data=BYTES, kind=st.sampled_from(["labels.csv", "m.csv", "m.parquet"]))
def test_fuzz_bytes_of_a_table(folder: Path, data: bytes, kind: str) -> None:
    (folder / kind).write_bytes(data)
    why = refusal(folder if kind == "labels.csv" else folder / kind)
    (folder / kind).unlink()
    assert not why or kind in why or "no video" in why


@pytest.mark.slow
@RELAXED
@given(place=st.floats(0, 1), bit=st.integers(0, 7), cut=st.booleans())
def test_fuzz_a_broken_parquet_manifest(folder: Path, place: float, bit: int, cut: bool) -> None:
    write(folder, "lift/a.mp4", "b.mp4")
    data = bytearray((folder / "videos.parquet").read_bytes())
    at = min(int(place * len(data)), len(data) - 1)
    if cut:
        del data[at:]
    else:
        data[at] ^= 1 << bit
    (folder / "videos.parquet").write_bytes(data)
    why = refusal(folder)
    assert not why or re.search("videos.parquet|video id|no video", why)
