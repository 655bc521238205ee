"""Tracks as MOTChallenge, line by line."""

from __future__ import annotations

import configparser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.helpers.tracked_things import track_row, tracks_table
from vtcav_ray.errors import ConfigError
from vtcav_ray.exports.tracks import export_tracks
from vtcav_ray.runs.run import Run
from vtcav_ray.store.commits import ShardOutput, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.tracks.formats.mot import _box


def run_of(place: Path, *shards: pa.Table) -> Run:
    folder = Folder(str(place))
    output = stage_folder(folder, "tracks", "k")
    for number, shard in enumerate(shards):
        output.commit(f"{number}", ShardOutput({"tracks": shard}))
    output.finish({}, {"notes": {}, "warnings": []})
    folder.write_json("run.json", {"config": {"videos": {"uri": "x"}}, "keys": {"tracks": "k"}})
    return Run(str(place))


def test_lines_are_by_frame_and_track_and_count_from_one(tmp_path: Path) -> None:
    rows = [
        track_row("lift/a.mp4", 2, "cup", n=2),
        track_row("lift/a.mp4", 1, "ball", n=3, start=(0.5, 10.5), step=(0.0, 1.0), confidence=[0.5, 0.25, 1.0]),
    ]
    run = run_of(tmp_path / "run", tracks_table(rows))
    assert export_tracks(run, "mot", str(tmp_path / "mot")) == 1
    place = tmp_path / "mot" / "lift" / "a.mp4"
    assert (place / "gt" / "gt.txt").read_text(encoding="utf-8").splitlines() == [
        "1,1,1.5,11.5,20.0,20.0,0.5,1,-1",
        "1,2,21.0,41.0,20.0,20.0,0.8,2,-1",
        "2,1,1.5,12.5,20.0,20.0,0.25,1,-1",
        "2,2,23.0,41.0,20.0,20.0,0.8,2,-1",
        "3,1,1.5,13.5,20.0,20.0,1.0,1,-1",
    ]
    assert (place / "gt" / "labels.txt").read_text(encoding="utf-8") == "ball\ncup\n"


def test_the_info_is_that_of_the_source_video(tmp_path: Path) -> None:
    row = track_row("a.mp4", n=3, fps=30000 / 1001, height=96, width=128, num_frames=250)
    export_tracks(run_of(tmp_path / "run", tracks_table([row])), "mot", str(tmp_path / "mot"))
    info = configparser.ConfigParser()
    info.read(tmp_path / "mot" / "a.mp4" / "seqinfo.ini", encoding="utf-8")
    found = info["Sequence"]
    assert found["name"] == "a.mp4"
    assert float(found["frameRate"]) == 30000 / 1001
    assert (found["seqLength"], found["imWidth"], found["imHeight"]) == ("250", "128", "96")


def test_each_video_of_each_shard_has_a_folder(tmp_path: Path) -> None:
    shards = [tracks_table([track_row("a.mp4"), track_row("b.mp4")]), tracks_table([track_row("c/d.mp4")])]
    assert export_tracks(run_of(tmp_path / "run", *shards), "mot", str(tmp_path / "mot")) == 3
    found = sorted(str(p.relative_to(tmp_path / "mot")) for p in (tmp_path / "mot").rglob("gt.txt"))
    assert found == ["a.mp4/gt/gt.txt", "b.mp4/gt/gt.txt", "c/d.mp4/gt/gt.txt"]


def test_boxes_are_read_again_to_the_last_bit(tmp_path: Path) -> None:
    boxes = np.random.default_rng(0).uniform(0, 100, (6, 4)).astype(np.float32)
    boxes[:, 2:] += boxes[:, :2]
    row = track_row("a.mp4", n=6, boxes=list(boxes))
    export_tracks(run_of(tmp_path / "run", tracks_table([row])), "mot", str(tmp_path / "mot"))
    lines = (tmp_path / "mot" / "a.mp4" / "gt" / "gt.txt").read_text(encoding="utf-8").splitlines()
    again = np.array([_box(line.split(",")[2:6]) for line in lines], np.float64).astype(np.float32)
    assert np.array_equal(again, boxes)


def test_older_files_of_the_same_names_are_replaced(tmp_path: Path) -> None:
    for n in (3, 1):
        run = run_of(tmp_path / f"run{n}", tracks_table([track_row("a.mp4", n=n)]))
        export_tracks(run, "mot", str(tmp_path / "mot"))
    assert len((tmp_path / "mot" / "a.mp4" / "gt" / "gt.txt").read_text(encoding="utf-8").splitlines()) == 1


@pytest.mark.parametrize("video", ["../a.mp4", "/a.mp4", "a//b.mp4", "a/./b.mp4"])
def test_a_video_id_that_leads_out_of_the_folder_is_refused(tmp_path: Path, video: str) -> None:
    run = run_of(tmp_path / "run", tracks_table([track_row(video)]))
    with pytest.raises(ConfigError, match="is no path of a folder"):
        export_tracks(run, "mot", str(tmp_path / "mot"))
    assert not list(tmp_path.rglob("gt.txt"))


def test_a_file_and_an_unknown_format_are_refused(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", tracks_table([track_row("a.mp4")]))
    with pytest.raises(ConfigError, match="--tracks 'kitti': choose from mot"):
        export_tracks(run, "kitti", str(tmp_path / "mot"))
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file"):
        export_tracks(run, "mot", str(tmp_path / "file"))
