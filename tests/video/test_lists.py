"""Lists of videos and labels as other people have them, and what a listing leaves out."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.listed_videos import listed, touch
from vtcav_ray.config import VideosConfig
from vtcav_ray.errors import ConfigError
from vtcav_ray.videos.listing import list_all

TABLE = [("a b/drinking (31).mp4", "drinking"), ("a b/é.mp4", "arm wrestling")]


def labels_of(uri: str | Path, **options: Any) -> dict[str, str | None]:
    return {row["video_id"]: row["label"] for row in listed(uri, **options)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    touch(tmp_path, *(name for name, _ in TABLE))
    return tmp_path


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("ending", ["csv", "tsv", "txt"])
def test_tables_with_any_delimiter_and_mark(folder: Path, mark: str, delimiter: str, ending: str) -> None:
    lines = [delimiter.join(row) for row in [("uri", "label"), *TABLE]]
    (folder / f"l.{ending}").write_text(mark + "\r\n".join(lines), newline="")
    assert labels_of(folder / f"l.{ending}") == dict(TABLE)
    assert labels_of(folder / "a b", labels=str(folder / f"l.{ending}")) == {n[4:]: label for n, label in TABLE}


@pytest.mark.parametrize("separator", [" ", "\t", ",", ", "])
@pytest.mark.parametrize("ending", ["txt", "csv", "list"])
def test_lines_of_a_path_and_a_label(folder: Path, separator: str, ending: str) -> None:
    """MMAction2's, SlowFast's and others' lists have no header."""
    (folder / f"l.{ending}").write_text("".join(f"{name}{separator}{i}\n" for i, (name, _) in enumerate(TABLE)))
    assert labels_of(folder / f"l.{ending}") == {TABLE[0][0]: "0", TABLE[1][0]: "1"}
    assert labels_of(folder, labels=str(folder / f"l.{ending}")) == {TABLE[0][0]: "0", TABLE[1][0]: "1"}


def test_lines_of_paths_alone_and_labels_with_spaces(folder: Path) -> None:
    (folder / "l.txt").write_text("".join(f"{name}\n" for name, _ in TABLE))
    assert labels_of(folder / "l.txt") == {name: None for name, _ in TABLE}
    (folder / "l.txt").write_text("".join(f"{name} {label}\n" for name, label in TABLE))
    assert labels_of(folder / "l.txt") == dict(TABLE)


def test_a_list_whose_paths_begin_in_another_folder(tmp_path: Path) -> None:
    touch(tmp_path, "videos_val/drinking/x (1).mp4", "videos_val/eating/y.mp4")
    (tmp_path / "val.txt").write_text("drinking/x (1).mp4 0\neating/y.mp4 1\n")
    assert labels_of(tmp_path / "val.txt") == {"videos_val/drinking/x (1).mp4": "0", "videos_val/eating/y.mp4": "1"}


def test_kinetics_own_list(tmp_path: Path) -> None:
    touch(tmp_path, "val/-0dlk_2SXC0_000010_000020.mp4")
    rows = [
        "label,youtube_id,time_start,time_end,split",
        "testing food,-0dlk_2SXC0,10,20,val",
        "juggling,x_y-z,3,13,val",
    ]
    (tmp_path / "val.csv").write_text("\n".join(rows))
    found = list_all(VideosConfig(uri=str(tmp_path / "val.csv")))
    assert found.videos.to_pylist()[0]["label"] == "testing food"
    assert found.videos.to_pylist()[0]["split"] == "val"
    (failure,) = found.failures
    assert failure.error_kind == "missing"
    assert "line 3" in failure.message
    assert (
        labels_of(tmp_path / "val", labels=str(tmp_path / "val.csv"))["-0dlk_2SXC0_000010_000020.mp4"] == "testing food"
    )


def test_json_lines(folder: Path) -> None:
    (folder / "l.jsonl").write_text(
        "".join(json.dumps({"uri": n, "label": label, "x": [1]}) + "\n" for n, label in TABLE)
    )
    assert labels_of(folder / "l.jsonl") == dict(TABLE)
    (folder / "l.jsonl").write_text('{"uri": "a.mp4"}\n[1]\n')
    with pytest.raises(ConfigError, match="line 2, is not a JSON object"):
        listed(folder / "l.jsonl")


def test_lists_of_pandas(folder: Path) -> None:
    """A column of whole numbers with one missing is written as 0.0."""
    import pandas as pd

    touch(folder, "c.mp4")
    frame = pd.DataFrame({"uri": [n for n, _ in TABLE] + ["c.mp4"], "label": pd.Series([0, 12, None], dtype=float)})
    wanted = {TABLE[0][0]: "0", TABLE[1][0]: "12", "c.mp4": None}
    frame.to_csv(folder / "l.csv", index=False)
    assert labels_of(folder / "l.csv") == wanted
    pq.write_table(pa.Table.from_pandas(frame), folder / "l.parquet")
    assert labels_of(folder / "l.parquet") == wanted


def test_file_urls_are_decoded(folder: Path) -> None:
    touch(folder, "a%20b.mp4")
    uris = [(folder / TABLE[0][0]).as_uri(), f"file://{folder}/a%20b.mp4"]  # the second has a % in its name
    (folder / "l.csv").write_text("uri,label\n" + "".join(f"{uri},x\n" for uri in uris))
    assert set(labels_of(folder / "l.csv")) == {TABLE[0][0], "a%20b.mp4"}
    assert set(labels_of((folder / "a b").as_uri())) == {"drinking (31).mp4", "é.mp4"}
    labels = folder / "labels x.csv"
    labels.write_text(f"uri,label\n{(folder / TABLE[0][0]).as_uri()},x\n")
    assert labels_of((folder / "a b").as_uri(), labels=labels.as_uri())["drinking (31).mp4"] == "x"


def test_an_escape_leads_nowhere_out_of_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "secret.mp4", "v/a.mp4")
    names = [f"file://{tmp_path}/v/%2e%2e/secret.mp4", f"file://{tmp_path}/v/a.mp4"]
    pq.write_table(pa.table({"uri": names}), tmp_path / "v" / "videos.parquet")
    found = list_all(VideosConfig(uri=str(tmp_path / "v")))
    assert [row["video_id"] for row in found.videos.to_pylist()] == ["a.mp4"]
    assert [failure.error_kind for failure in found.failures] == ["outside"]


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
def test_composed_and_decomposed_names_are_one(tmp_path: Path, on_disk: str) -> None:
    other = "NFD" if on_disk == "NFC" else "NFC"
    touch(tmp_path / "v", unicodedata.normalize(on_disk, "é.mp4"))  # type: ignore[arg-type]
    (tmp_path / "l.csv").write_text(f"uri,label\nv/{unicodedata.normalize(other, 'é.mp4')},x\n")  # type: ignore[arg-type]
    assert list(labels_of(tmp_path / "l.csv").values()) == ["x"]
    assert list(labels_of(tmp_path / "v", labels=str(tmp_path / "l.csv")).values()) == ["x"]


def test_lines_of_labels_that_match_no_video_are_named_with_the_nearest(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "l.csv").write_text('uri,label\na b/drinking (31).mp4,x\n"a b/drinkin (31).mp4",y\n')
    (warning,) = list_all(VideosConfig(uri=str(folder), labels=str(folder / "l.csv"))).warnings[1:]
    assert "line 3: 'a b/drinkin (31).mp4' (nearest: 'a b/drinking (31).mp4')" in warning
    assert warning in caplog.text


def test_a_video_with_two_labels_is_reported(folder: Path) -> None:
    (folder / "l.csv").write_text("uri,label\nx.mp4,a\nx.mp4,a\ny.mp4,b\n./x.mp4,c\n")
    with pytest.raises(ConfigError, match=r"twice, with the labels 'a' \(line 2\) and 'c' \(line 5\)"):
        listed(folder, labels=str(folder / "l.csv"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Read me first.\nThis is no list", "A manifest is"),
        ("a/b 163 1\n", "several numbers after the path"),
        ("a.mp4 1 3\n", "several numbers after the path"),
        ("a.mp4 1\nwhat is this\n", "line 2"),
    ],
)
def test_a_text_file_that_is_no_manifest_says_what_one_is(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "l.txt").write_text(text)
    with pytest.raises(ConfigError, match=message):
        listed(tmp_path / "l.txt")


def test_files_that_are_left_out_are_counted_by_extension(tmp_path: Path) -> None:
    read = ("a.ogv", "b.gif", "c.3gp", "d.MTS", "e.m2ts", "f.vob", "g.asf", "h.MOD", "i.f4v")
    touch(tmp_path, *read, "x.jpg", "y.JPG", "z.wav", "noext", ".hidden", "sub/.x/a.jpg")
    found = list_all(VideosConfig(uri=str(tmp_path)))
    assert {row["video_id"] for row in found.videos.to_pylist()} == set(read)
    (warning,) = found.warnings
    assert "4 files are left out by extension: 2 .jpg, 1 .wav, 1 no extension" in warning
    touch(tmp_path / "only", "x.wav")
    with pytest.raises(ConfigError, match=r"no video in it.*1 \.wav"):
        listed(tmp_path / "only")
