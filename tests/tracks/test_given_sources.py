"""Tracks that exist already: segments, sources and their files, the names of videos, and boxes without ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.helpers.given_squares import FRAMES, box_of, config_of, mot_lines, rows_of, run, write_parquet
from tests.helpers.own_tracks import cvat_xml, mot_sequence
from vtcav_ray.config import Config
from vtcav_ray.errors import ConfigError
from vtcav_ray.runs.stage import Context
from vtcav_ray.store.commits import ShardOutput, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.tracks import given_index
from vtcav_ray.tracks.given_index import FILE, find_tracks
from vtcav_ray.tracks.given_link import link
from vtcav_ray.tracks.given_names import VideoNames
from vtcav_ray.tracks.stage import STAGE, TrackWorker
from vtcav_ray.videos.listing import list_videos


def segments_of_a(videos: Path, place: Path, *times: tuple[str, str]) -> str:
    """Write a manifest of segments of a.mp4."""
    place.write_text("\n".join(["uri,video_id,start,end", *(f"{videos}/a.mp4,a.mp4,{s},{e}" for s, e in times)]))
    return str(place)


def given_in_segments(config: Config, folder: Path) -> ShardOutput:
    listed, _ = list_videos(config.videos)
    found = find_tracks(config.tracks, listed, 2, Folder(str(folder)))
    return TrackWorker(config, {}, found.folder)(found.videos)


@pytest.mark.slow
def test_given_tracks_lie_inside_segments(videos: Path, tmp_path: Path) -> None:
    manifest = segments_of_a(videos, tmp_path / "m.csv", ("0.12", "0.32"), ("0.6", "0.8"), ("9", "10"))
    file = write_parquet(tmp_path / "t.parquet", rows_of("a"))
    config = config_of(Path(manifest), file, "parquet")
    output = given_in_segments(config, tmp_path / "run")
    # One track for each stretch, with the frames of the file.
    assert output.tables["tracks"]["frames"].to_pylist() == [list(range(3, 8)), list(range(15, 20))]
    for row in output.tables["tracks"].to_pylist():
        assert row["boxes"] == [box_of(frame) for frame in row["frames"]]
        assert (row["num_frames"], row["fps"]) == (FRAMES, 25.0)
        assert np.abs(np.array(row["camera"])).max() < 1.5
    segments = output.tables["segments"].to_pylist()
    assert [(row["start"], row["first"], row["last"]) for row in segments] == [
        (0.12, 3, 7), (0.6, 15, 19), (9.0, None, None),
    ]  # fmt: skip
    assert [(failure.video_id, failure.error_kind) for failure in output.failures] == [("a.mp4", "segment")]
    assert output.metrics["frames"] == 10
    # A line beyond the file's end is wrong, wherever the segments are.
    write_parquet(file, rows_of("a", range(FRAMES + 3)))
    (failure,) = given_in_segments(config, tmp_path / "run2").failures
    assert f"and {videos}/a.mp4 has {FRAMES} frames" in failure.message


def test_the_boxes_of_segments_are_those_of_a_detector_with_a_stride(videos: Path, tmp_path: Path) -> None:
    manifest = segments_of_a(videos, tmp_path / "m.csv", ("0.12", "0.48"))  # frames 3 to 11
    every = write_parquet(tmp_path / "t.parquet", rows_of("a"))
    output = given_in_segments(config_of(Path(manifest), every, "parquet", frame_stride=2), tmp_path / "run")
    assert output.tables["tracks"]["frames"].to_pylist() == [list(range(3, 12))]
    boxes = [{"frame": 0, "box": box_of(0)}, {"frame": 20, "box": box_of(20)}]
    xml = tmp_path / "annotations.xml"
    xml.write_text(cvat_xml([("square", boxes)], source="a.mp4"))
    output = given_in_segments(config_of(Path(manifest), xml, "cvat", frame_stride=2), tmp_path / "run2")
    (row,) = output.tables["tracks"].to_pylist()
    assert row["frames"] == [3, 5, 7, 9, 11]
    assert np.abs(np.array(row["boxes"]) - [box_of(frame) for frame in row["frames"]]).max() < 1e-4


@pytest.mark.slow
def test_only_the_classes_of_the_config_are_kept(videos: Path, tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "t.parquet", [*rows_of("a"), *rows_of("a", label="ball", track_id="b")])
    tracks, _, _ = run(config_of(videos, file, "parquet", classes=["ball"]), tmp_path / "run")
    assert tracks["label"].to_pylist() == ["ball"]


def test_a_worker_reads_only_the_lines_of_its_shards(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(given_index, "_HELD_LINES", 7)  # so that lines of a video are written in several parts
    rows = [row for frame in range(FRAMES) for name in "edcba" for row in rows_of(name, [frame])]
    file = write_parquet(tmp_path / "t.parquet", rows)
    config = config_of(videos, file, "parquet")
    listed, _ = list_videos(config.videos)
    found = find_tracks(config.tracks, listed, 2, Folder(str(tmp_path / "run")))
    assert found.videos[FILE].to_pylist() == [f"lines-00{i}.parquet" for i in (0, 0, 1, 1, 2)]
    assert found.folder is not None
    sizes = [pq.read_metadata(Path(found.folder.url, f"lines-00{i}.parquet")).num_rows for i in range(3)]
    assert sizes == [2 * FRAMES, 2 * FRAMES, FRAMES]
    # A later call, such as a resumed run's, does not read the lines again.
    monkeypatch.setattr(given_index, "_sort_files", None)
    assert find_tracks(config.tracks, listed, 2, Folder(str(tmp_path / "run"))).videos.equals(found.videos)
    # The number of files is bounded: more shards share one.
    monkeypatch.setattr(given_index, "_MOST_BUCKETS", 2)
    assert given_index._buckets([f"v{i}" for i in range(5)], 1) == {"v0": 0, "v1": 0, "v2": 0, "v3": 1, "v4": 1}


def test_the_key_is_of_the_files_content_and_not_of_the_detector(videos: Path, tmp_path: Path) -> None:
    mot_sequence(tmp_path / "mot" / "a", mot_lines())

    def key(**tracks: Any) -> str:
        folder = stage_folder(Folder(str(tmp_path / "run")), "videos", "k")
        config = config_of(videos, tmp_path / "mot", "mot", **tracks)
        return STAGE.key(Context(config, Folder(str(tmp_path / "run")), {"videos": folder}))

    before = key()
    assert key(weights="other.pt", confidence=0.5, image_size=320) == before
    assert key(classes=["a"]) != before
    (tmp_path / "mot" / "a" / "seqinfo.ini").write_text("[Sequence]\nframeRate=25\n")
    assert key() != before


@pytest.mark.slow
def test_two_files_of_one_video(videos: Path, tmp_path: Path) -> None:
    mot_sequence(tmp_path / "a" / "a", mot_lines())
    mot_sequence(tmp_path / "a" / "a", ["1,-1,5,5,9,9,0.5"], file="det/det.txt")
    tracks, _, _ = run(config_of(videos, tmp_path / "a", "mot"), tmp_path / "run")  # the truth comes first
    assert [len(frames) for frames in tracks["frames"].to_pylist()] == [FRAMES]
    mot_sequence(tmp_path / "a" / "x" / "a", mot_lines())
    with pytest.raises(ConfigError, match=r"both have tracks of the video 'a\.mp4'. Keep one"):
        run(config_of(videos, tmp_path / "a", "mot"), tmp_path / "run2")


@pytest.mark.slow
@pytest.mark.parametrize("source", ["mot/a/gt/gt.txt", "mot/a", "mot/*/gt/gt.txt", "mot"])
def test_a_source_is_a_file_a_folder_or_a_glob(source: str, videos: Path, tmp_path: Path) -> None:
    mot_sequence(tmp_path / "mot" / "a", mot_lines())
    tracks, _, _ = run(config_of(videos, tmp_path / source, "mot"), tmp_path / "run")
    assert tracks["video_id"].to_pylist() == ["a.mp4"]


def test_a_source_that_is_not_there(videos: Path, tmp_path: Path) -> None:
    for source, why in (
        ("gone", "does not exist"),
        ("*.xml", "does not exist"),
        ("", "has no file of the format `cvat`"),
    ):
        with pytest.raises(ConfigError, match=f"`tracks.source`: .*{why}"):
            run(config_of(videos, tmp_path / source, "cvat"), tmp_path / "run")


def test_names_match_with_and_without_folder_and_extension() -> None:
    names = VideoNames(["x/a.mp4", "y/b.mp4", "z/b.mp4", "c.d.mp4"])
    assert names.match("x/a.mp4") == names.match("a") == names.match("other/a.avi") == "x/a.mp4"
    assert names.match("y/b") == "y/b.mp4"
    assert names.match("b.mp4") is None  # two videos have that name
    assert names.match("c.d") == "c.d.mp4"
    assert names.match("e") is None


def test_boxes_without_ids_are_linked_by_their_overlap() -> None:
    left, right = np.array([0, 0, 10, 10.0]), np.array([20, 0, 30, 10.0])
    frames = np.array([0, 0, 1, 1, 2, 2, 9])
    step = np.array([2, 0, 2, 0])
    boxes = np.stack([left, right, right + step, left + step, left + 2 * step, left + 30, left + step])
    labels = np.zeros(7, int)
    assert link(frames, labels, boxes, 1).tolist() == [0, 1, 1, 0, 0, 2, 3]
    labels[4] = 1  # another label is another object
    assert link(frames, labels, boxes, 1).tolist() == [0, 1, 1, 0, 2, 3, 4]
