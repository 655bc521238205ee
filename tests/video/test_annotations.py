"""Segments, several labels and source videos in manifests and lists, and the label files of data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.listed_videos import touch
from vtcav_ray.config import VideosConfig
from vtcav_ray.errors import ConfigError
from vtcav_ray.tables import VIDEO_OPTIONS, VIDEOS
from vtcav_ray.videos import annotations
from vtcav_ray.videos.listing import Listing, list_all

Part = tuple[float, float | None, str | None]


def of(uri: Path, **options: Any) -> Listing:
    return list_all(VideosConfig(uri=str(uri), **{name: str(value) for name, value in options.items()}))


def parts(found: Listing) -> dict[str, list[Part] | None]:
    """Return video id -> its segments as (start, end, label)."""
    return {
        row["video_id"]: row.get("segments") and [(s["start"], s["end"], s["label"]) for s in row["segments"]]
        for row in found.videos.to_pylist()
    }


def labels(found: Listing) -> dict[str, str | None]:
    return dict(zip(found.videos["video_id"].to_pylist(), found.videos["label"].to_pylist(), strict=True))


def manifest(folder: Path, *lines: str) -> Path:
    (folder / "m.csv").write_text("\n".join(lines) + "\n")
    return folder / "m.csv"


def test_rows_of_one_file_are_segments_of_it(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    found = of(
        manifest(
            tmp_path,
            "uri,label,split,start,end",
            "a.mp4,goal,train,00:01:02.5,1:10",
            "a.mp4,corner,train,3,",
            "b.mp4,goal,val,,12",
            "c.mp4,throw in,val,,",
        )
    )
    assert parts(found) == {
        "a.mp4": [(3.0, None, "corner"), (62.5, 70.0, "goal")],
        "b.mp4": [(0.0, 12.0, "goal")],
        "c.mp4": None,
    }
    assert labels(found) == {"a.mp4": "corner; goal", "b.mp4": "goal", "c.mp4": "throw in"}
    assert found.videos["split"].to_pylist() == ["train", "val", "val"]
    assert not found.failures


def test_rows_with_the_same_times_are_one_segment_with_several_labels(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    found = of(manifest(tmp_path, "uri,labels,start,end", "a.mp4,b;a,1,2", "a.mp4,c,1,2", "a.mp4,a,5,6"))
    assert parts(found) == {"a.mp4": [(1.0, 2.0, "a; b; c"), (5.0, 6.0, "a")]}


def test_ids_of_segments_name_no_file(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    lines = ["video_id,uri,label,start,end", "one,a.mp4,x,0,1", "two,a.mp4,y,1,2", "three,b.mp4,x,0,1"]
    assert set(parts(of(manifest(tmp_path, *lines)))) == {"a.mp4", "three"}


@pytest.mark.parametrize(
    ("times", "message"),
    [("5,5", "not after its start"), ("5,3", "not after"), ("x,3", "'x' is not a time"), ("-1,3", "is not a time"),
     ("1:75,90", "is not a time"), ("inf,3", "is not a time"), ("1e400,", "is not a time")],
)  # fmt: skip
def test_a_row_with_bad_times_is_a_failure_and_the_others_stay(tmp_path: Path, times: str, message: str) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    found = of(manifest(tmp_path, "uri,label,start,end", f"a.mp4,x,{times}", "b.mp4,x,0,1", "a.mp4,x,1,2"))
    assert parts(found) == {"a.mp4": [(1.0, 2.0, "x")], "b.mp4": [(0.0, 1.0, "x")]}
    (failure,) = found.failures
    assert failure.error_kind == "manifest"
    assert "row 1" in failure.message
    assert message in failure.message


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_several_labels(tmp_path: Path, ending: str) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    file = tmp_path / f"m.{ending}"
    if ending == "csv":
        file.write_text("uri,labels\na.mp4,sitting;drinking\nb.mp4,sitting\n")
    elif ending == "jsonl":
        file.write_text('{"uri": "a.mp4", "labels": ["sitting", "drinking"]}\n{"uri": "b.mp4", "labels": "sitting"}\n')
    else:
        pq.write_table(pa.table({"uri": ["a.mp4", "b.mp4"], "labels": [["sitting", "drinking"], ["sitting"]]}), file)
    found = of(file)
    assert labels(found) == {"a.mp4": "drinking; sitting", "b.mp4": "sitting"}
    assert found.videos.schema == VIDEOS  # no column that is not needed
    assert labels(of(tmp_path / "*.mp4", labels=file)) == labels(found)


def test_a_label_of_a_list_may_not_have_the_separator(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    (tmp_path / "m.jsonl").write_text('{"uri": "a.mp4", "labels": ["a;b"]}\n')
    with pytest.raises(ConfigError, match=r"line 1: the label 'a;b' has a `;`"):
        of(tmp_path / "m.jsonl")


def test_two_labels_of_one_file_without_times_are_refused_with_a_way_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    with pytest.raises(ConfigError, match="`labels`"):
        of(manifest(tmp_path, "uri,label", "a.mp4,x", "a.mp4,y"))
    with pytest.raises(ConfigError, match="`labels`"):
        of(tmp_path / "*.mp4", labels=manifest(tmp_path, "video_id,label", "a,x", "a,y"))


def test_files_of_one_source_video(tmp_path: Path) -> None:
    touch(tmp_path, "a1.mp4", "a2.mp4", "b.mp4")
    lines = ["uri,label,source", "a1.mp4,x,match 7", "a2.mp4,y,match 7", "b.mp4,x,"]
    found = of(manifest(tmp_path, *lines))
    assert found.videos["source"].to_pylist() == ["match 7", "match 7", None]
    assert "segments" not in found.videos.column_names
    with pytest.raises(ConfigError, match=r"'b\.mp4' is the `source` of a file, and the `video_id` of another"):
        of(manifest(tmp_path, "uri,label,source", "a1.mp4,x,b.mp4", "b.mp4,x,"))
    (failure,) = of(manifest(tmp_path, *lines, "b.mp4,x,../up")).failures
    assert "can't be a `source`" in failure.message


def test_a_list_of_labels_gives_segments(tmp_path: Path) -> None:
    touch(tmp_path, "v/a.mp4", "v/b.mp4", "v/c.mp4")
    lines = ["video_id,label,start,end", "a,goal,1,2", "a,corner,3,4", "b,goal,9,8", "nothing,goal,1,2"]
    found = of(tmp_path / "v", labels=manifest(tmp_path, *lines))
    assert parts(found) == {"a.mp4": [(1.0, 2.0, "goal"), (3.0, 4.0, "corner")], "b.mp4": None, "c.mp4": None}
    assert "1 lines" in found.warnings[0]
    assert "line 4: 'b': its segment ends at 8" in found.warnings[0]
    assert "'nothing'" in found.warnings[1]


def published(folder: Path, name: str, text: str) -> list[Listing]:
    """List a data set's label file as a manifest beside the files, and as a list of labels for their folder."""
    (folder / name).write_text(text)
    return [of(folder / name), of(folder / "videos", labels=folder / name)]


def test_kinetics(tmp_path: Path) -> None:
    """Files that were cut to the times are whole examples; files as they were uploaded have segments."""
    touch(tmp_path, "videos/-0dlk_2SXC0_000010_000020.mp4", "videos/x_y-z.mkv")
    text = (
        "label,youtube_id,time_start,time_end,split\n"
        "testing food,-0dlk_2SXC0,10,20,validate\n"
        '"juggling, balls",x_y-z,3,13,validate\n'
        "testing food,x_y-z,63,73,validate\n"
    )
    for found in published(tmp_path, "validate.csv", text):
        by_name = {name.rsplit("/", 1)[-1]: value for name, value in parts(found).items()}
        assert by_name == {
            "-0dlk_2SXC0_000010_000020.mp4": None,
            "x_y-z.mkv": [(3.0, 13.0, "juggling, balls"), (63.0, 73.0, "testing food")],
        }
        assert sorted(filter(None, labels(found).values())) == ["juggling, balls; testing food", "testing food"]
        assert not found.failures


def test_kinetics_list_with_paths_means_files_that_were_cut(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    found = of(manifest(tmp_path, "uri,label,youtube_id,time_start,time_end", "a.mp4,x,abc,10,20"))
    assert parts(found) == {"a.mp4": None}


def test_activitynet(tmp_path: Path) -> None:
    touch(tmp_path, "videos/v_sJ7zwPmLcbY.mp4", "videos/hDPLy21Yyuk.mkv", "videos/v_test.mp4")
    text = json.dumps(
        {
            "version": "VERSION 1.3",
            "taxonomy": [{"nodeName": "Drinking coffee", "nodeId": 1, "parentName": "Root", "parentId": 0}],
            "database": {
                "sJ7zwPmLcbY": {
                    "duration": 153.18,
                    "subset": "training",
                    "resolution": "1280x720",
                    "url": "https://www.youtube.com/watch?v=sJ7zwPmLcbY",
                    "annotations": [
                        {"segment": [0.5, 20.25], "label": "Drinking coffee"},
                        {"segment": [60, 80.5], "label": "Drinking coffee"},
                    ],
                },
                "hDPLy21Yyuk": {
                    "duration": 76,
                    "subset": "validation",
                    "annotations": [{"segment": [1, 30], "label": "Shot put"}],
                },
                "test": {"duration": 76, "subset": "testing", "annotations": []},
            },
        }
    )
    for found in published(tmp_path, "activity_net.v1-3.min.json", text):
        by_name = {name.rsplit("/", 1)[-1]: value for name, value in parts(found).items()}
        assert by_name == {
            "v_sJ7zwPmLcbY.mp4": [(0.5, 20.25, "Drinking coffee"), (60.0, 80.5, "Drinking coffee")],
            "hDPLy21Yyuk.mkv": [(1.0, 30.0, "Shot put")],
            "v_test.mp4": None,
        }
        assert sorted(found.videos["split"].to_pylist()) == ["testing", "training", "validation"]
        assert not found.failures
    for bad in ("[1]", '{"database": {"a": 1}}', '{"database": {"a": {"annotations": [{"label": "x"}]}}}', "{"):
        (tmp_path / "bad.json").write_text(bad)
        with pytest.raises(ConfigError, match=r"bad\.json"):
            of(tmp_path / "bad.json")


def test_charades(tmp_path: Path) -> None:
    touch(tmp_path, "videos/46GP8.mp4", "videos/N11GT.mp4", "videos/0KZ7E.mp4")
    text = (
        "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"
        '46GP8,HR43,Kitchen,6,7,Yes,"A person cooks; then, eats.",food;stove,"A person, cooking.;Again.",'
        "c092 11.90 21.20;c147 0.00 12.60,24.83\n"
        "N11GT,0KZ7,Stairs,6,7,Yes,A person runs.,stairs,A person runs.,,18.0\n"
        "0KZ7E,XXX,Hall,6,7,Yes,Sits.,chair,Sits.,c059 7.0 7.0;c059 1.0 7.0,18.0\n"
    )
    listings = published(tmp_path, "Charades_v1_train.csv", text)
    for found in listings:
        by_name = {name.rsplit("/", 1)[-1]: value for name, value in parts(found).items()}
        assert by_name == {
            "46GP8.mp4": [(0.0, 12.6, "c147"), (11.9, 21.2, "c092")],
            "N11GT.mp4": None,
            "0KZ7E.mp4": [(1.0, 7.0, "c059")],
        }
    (failure,) = listings[0].failures
    assert "line 4" in failure.message
    assert "line 4" in listings[1].warnings[0]


def test_ava(tmp_path: Path) -> None:
    touch(tmp_path, "videos/-5KQ66BBWC4.mkv", "videos/1j20qq1JyX4.mp4")
    text = (
        "-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,80,1\n"
        "-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,9,1\n"
        "-5KQ66BBWC4,0902,0.226,0.032,0.366,0.497,12,0\n"
        "1j20qq1JyX4,1000,0.1,0.1,0.2,0.2,17,3\n"
    )
    for found in published(tmp_path, "ava_val_v2.2.csv", text):
        by_name = {name.rsplit("/", 1)[-1]: value for name, value in parts(found).items()}
        assert by_name == {
            "-5KQ66BBWC4.mkv": [(900.5, 903.5, "12; 80; 9")],
            "1j20qq1JyX4.mp4": [(998.5, 1001.5, "17")],
        }
    (tmp_path / "bad.csv").write_text(text + "what is this\n")
    with pytest.raises(ConfigError, match=r"bad\.csv, line 5"):
        of(tmp_path / "bad.csv")


@pytest.mark.parametrize("count", [0, 1, 4, 5])
def test_a_table_in_parts_is_the_whole_one_and_takes_the_rows(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of a large corpus are freed while its table is made."""
    monkeypatch.setattr(annotations, "ROWS_AT_ONCE", 2)
    rows = [
        {"video_id": f"v{i}", "uri": f"/v{i}", "size_bytes": i, "source": "s" if i == 3 else None} for i in range(count)
    ]
    fields = [*VIDEOS, *(field for field in VIDEO_OPTIONS if field.name == "source" and count > 3)]
    expected = pa.Table.from_pylist(rows, schema=pa.schema(fields))
    made = annotations.videos_table(rows)
    assert made.schema == expected.schema
    assert made.equals(expected)
    assert all(column.num_chunks <= 1 for column in made.columns)
    assert rows == []
