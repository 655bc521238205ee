"""Tracks that exist already, on drawn videos: their boxes, their side values, and what does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.drawn import encode, square_video
from tests.helpers.own_tracks import cvat_xml, mot_sequence
from vtcav_ray.config import Config
from vtcav_ray.config.loading import parse_config
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.rows import Failure
from vtcav_ray.runs.stage import Context
from vtcav_ray.store.commits import ShardOutput, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.tracks import given_index
from vtcav_ray.tracks.given_index import FILE, find_tracks
from vtcav_ray.tracks.given_link import link
from vtcav_ray.tracks.given_names import VideoNames
from vtcav_ray.tracks.stage import STAGE, TrackWorker
from vtcav_ray.videos.listing import list_videos

SIZE = (96, 128)
SIDE = 16
FRAMES = 24
SHARP = {"crf": "12", "preset": "ultrafast"}


def x_of(frame: float) -> float:
    """Where the square's left side is: it moves right by two pixels a frame."""
    return 10 + 2 * frame


def box_of(frame: float) -> list[float]:
    return [x_of(frame), 30, x_of(frame) + SIDE, 30 + SIDE]


def mot_lines(frames: Sequence[int] = range(FRAMES), track: int = 1) -> list[str]:
    return [f"{frame + 1},{track},{x_of(frame) + 1},31,{SIDE},{SIDE},1,1,1" for frame in frames]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five videos of 24 frames at 25 fps."""
    folder = tmp_path_factory.mktemp("videos")
    for i, name in enumerate("abcde"):
        frames, _ = square_video([(x_of(frame), 30) for frame in range(FRAMES)], seed=i, height=SIZE[0], width=SIZE[1])
        (folder / f"{name}.mp4").write_bytes(encode(frames, options=SHARP))
    return folder


def config_of(videos: Path, source: Path | str, form: str, **tracks: Any) -> Config:
    return parse_config({"videos": {"uri": str(videos)}, "tracks": {"source": str(source), "format": form, **tracks}})


def run(config: Config, folder: Path) -> tuple[pa.Table, dict[str, Failure], list[str]]:
    """Find and read the tracks, two videos per shard; return (tracks, failures by video, warnings)."""
    listed, _ = list_videos(config.videos)
    found = find_tracks(config.tracks, listed, 2, Folder(str(folder)))
    worker = TrackWorker(config, {}, found.folder)
    parts: list[ShardOutput] = [worker(found.videos.slice(start, 2)) for start in range(0, listed.num_rows, 2)]
    failures = {str(f.video_id): f for part in parts for f in part.failures}
    warnings = [*found.warnings, *(warning for part in parts for warning in part.warnings)]
    signed = [name for part in parts for name in part.tables["signatures"]["video_id"].to_pylist()]
    assert sorted(signed) == sorted(set(listed["video_id"].to_pylist()) - failures.keys())
    return pa.concat_tables([part.tables["tracks"] for part in parts]), failures, warnings


def write_parquet(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), file)
    return file


def rows_of(video: str, frames: Sequence[int] = range(FRAMES), **changes: Any) -> list[dict[str, Any]]:
    rows = []
    for frame in frames:
        box = dict(zip(("x1", "y1", "x2", "y2"), box_of(frame), strict=True))
        rows.append({"video_id": video, "track_id": "s", "label": "square", "frame": frame, **box, **changes})
    return rows


def test_given_boxes_get_the_side_values_of_tracking(videos: Path, tmp_path: Path) -> None:
    for name in "abcde":
        mot_sequence(tmp_path / "mot" / name, mot_lines(), seqLength=FRAMES, imWidth=SIZE[1], imHeight=SIZE[0])
    tracks, failures, warnings = run(config_of(videos, tmp_path / "mot", "mot"), tmp_path / "run")
    assert (failures, warnings) == ({}, [])
    assert tracks["video_id"].to_pylist() == [f"{name}.mp4" for name in "abcde"]
    for row in tracks.to_pylist():
        assert (row["track_id"], row["label"], row["fps"], row["num_frames"]) == (1, "pedestrian", 25.0, FRAMES)
        assert (row["height"], row["width"]) == SIZE
        assert row["frames"] == list(range(FRAMES))
        assert row["boxes"] == [box_of(frame) for frame in range(FRAMES)]
        assert set(row["shot"]) == {0}
        assert np.abs(np.array(row["camera"])).max() < 1.5
        # The whole square is in the box: it has sharp edges only if the box is exact.
        assert len(row["sharpness"]) == len(row["camera"]) == FRAMES
        assert min(row["sharpness"]) > 0


def test_the_pass_over_the_frames_is_that_of_tracking(videos: Path, tmp_path: Path) -> None:
    from tests.helpers.tracked_things import RedSquares
    from vtcav_ray.tracks.track import track_videos

    names = [f"{name}.mp4" for name in "ab"]
    signatures: dict[str, np.ndarray] = {}
    detected, _, _ = track_videos(
        [(name, str(videos / name)) for name in names],
        RedSquares(),  # type: ignore[arg-type]
        config_of(videos, tmp_path, "parquet").tracks,
        signatures=signatures,
    )
    rows = [
        dict(zip(("x1", "y1", "x2", "y2"), box, strict=True), video_id=t["video_id"], track_id=t["track_id"],
             label=t["label"], frame=frame, confidence=score)
        for t in detected.to_pylist()
        for frame, box, score in zip(t["frames"], t["boxes"], t["confidence"], strict=True)
    ]  # fmt: skip
    file = write_parquet(tmp_path / "t.parquet", rows)
    config = config_of(videos, file, "parquet")
    listed, _ = list_videos(config.videos)
    found = find_tracks(config.tracks, listed.slice(0, 2), 2, Folder(str(tmp_path / "run")))
    output = TrackWorker(config, {}, found.folder)(found.videos)
    assert output.tables["tracks"].drop_columns(["camera"]).equals(detected.drop_columns(["camera"]))
    for row in output.tables["signatures"].to_pylist():
        assert np.array_equal(np.array(row["signature"], np.float32), signatures[row["video_id"]])


def test_what_does_not_fit_is_a_row_and_the_others_are_used(videos: Path, tmp_path: Path) -> None:
    place = tmp_path / "mot"
    mot_sequence(place / "a", mot_lines(), frameRate=30)
    mot_sequence(place / "b", mot_lines(range(FRAMES + 3)))
    mot_sequence(place / "c", ["1,1,300,31,16,16,1,1,1", *mot_lines(range(1, 4))], frameRate="25.01")
    mot_sequence(place / "d", [*mot_lines(), "1,1,1"])
    mot_sequence(place / "e", mot_lines())
    tracks, failures, _ = run(config_of(videos, place, "mot"), tmp_path / "run")
    assert tracks["video_id"].to_pylist() == ["e.mp4"]
    assert {failure.error_kind for failure in failures.values()} == {"annotation"}
    for video, why in {
        "a": r"a/gt/gt.txt is for 30 frames per second, and .*/a.mp4 has 25",
        "b": rf"b/gt/gt.txt, line {FRAMES + 1}: it is of frame {FRAMES} \(from 0\), and .*/b.mp4 has {FRAMES} frames",
        "c": r"c/gt/gt.txt, line 1: the box 299, 30, 315, 46 lies outside the frame of .*/c.mp4, 128x96",
        "d": r"d/gt/gt.txt, line 25: '1,1,1' has 3 numbers",
    }.items():
        failure = failures[f"{video}.mp4"]
        assert failure.uri == str(videos / f"{video}.mp4")
        with pytest.raises(AssertionError, match=why):  # as a regular expression
            raise AssertionError(failure.message)


def test_more_that_does_not_fit(videos: Path, tmp_path: Path) -> None:
    place = tmp_path / "mot"
    mot_sequence(place / "a", mot_lines(), imWidth=640, imHeight=480)
    mot_sequence(place / "b", [*mot_lines(), mot_lines()[3]])
    mot_sequence(place / "c", mot_lines(), seqLength=48)
    mot_sequence(place / "d", mot_lines(), frameRate="fast")
    _, failures, warnings = run(config_of(videos, place, "mot"), tmp_path / "run")
    messages = {video: failure.message for video, failure in failures.items()}
    assert "is for frames of 640x480 pixels" in messages["a.mp4"]
    assert "line 25: the object of line 4 has a second box in frame 3" in messages["b.mp4"]
    assert "is for 48 frames" in messages["c.mp4"]
    assert "seqinfo.ini of its sequence: the framerate 'fast' is not a number" in messages["d.mp4"]
    assert warnings == [
        f"Videos without a line in {place}: 1 of 5: e.mp4. They give class examples, and no clips around objects."
    ]


def test_boxes_are_cut_at_the_frame_and_few_may_lie_outside(videos: Path, tmp_path: Path) -> None:
    rows = rows_of("a")
    rows[0] |= {"x1": -5.0, "x2": 11.0}
    rows[1] |= {"x1": 500.0, "x2": 600.0}
    file = write_parquet(tmp_path / "t.parquet", rows)
    tracks, failures, warnings = run(config_of(videos, file, "parquet"), tmp_path / "run")
    (row,) = tracks.to_pylist()
    assert row["boxes"][0] == [0, 30, 11, 46]
    assert row["frames"] == [0, *range(2, FRAMES)]
    assert failures == {}
    assert f"Boxes that lie outside the frame are left out: 1 in 1 videos, the first at {file}, row 2." in warnings


def test_lines_without_a_video_are_named_with_the_nearest(videos: Path, tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "t.parquet", [*rows_of("a"), *rows_of("aa.mp4")])
    _, _, warnings = run(config_of(videos, file, "parquet"), tmp_path / "run")
    assert warnings[0].startswith(f"Names without a video in {file}: 1, whose tracks are not used: 'aa.mp4' ({file})")
    assert "(nearest: 'a.mp4')" in warnings[0]
    file = write_parquet(tmp_path / "t.parquet", rows_of("zzz"))
    with pytest.raises(StageError, match=r"No video of this run has tracks in .*'zzz'"):
        run(config_of(videos, file, "parquet"), tmp_path / "run2")


def test_a_bad_row_costs_its_video_alone(videos: Path, tmp_path: Path) -> None:
    rows = [*rows_of("a"), *rows_of("b")]
    rows[30]["x2"] = 0.0
    file = write_parquet(tmp_path / "t.parquet", rows)
    tracks, failures, _ = run(config_of(videos, file, "parquet"), tmp_path / "run")
    assert set(tracks["video_id"].to_pylist()) == {"a.mp4"}
    assert failures["b.mp4"].message.startswith(f"{file}, row 31: the box")
    file.write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match=r"`tracks.source`: .*t.parquet, it is not a readable Parquet file"):
        run(config_of(videos, file, "parquet"), tmp_path / "run2")


def test_times_find_the_frames_of_a_varying_rate(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    frames, _ = square_video([(x_of(frame), 30) for frame in range(FRAMES)])
    stamps = [40 * t if t < 12 else 40 * 12 + 80 * (t - 12) for t in range(FRAMES)]  # the second half is slower
    (folder / "a.mkv").write_bytes(encode(frames, pts=stamps, container="matroska"))
    rows = [{**row, "time": stamps[row["frame"]] / 1000} for row in rows_of("a", range(0, FRAMES, 3))]
    timed = [{name: value for name, value in row.items() if name != "frame"} for row in rows]
    file = write_parquet(tmp_path / "t.parquet", timed)
    tracks, failures, _ = run(config_of(folder, file, "parquet"), tmp_path / "run")
    assert failures == {}
    assert tracks["frames"].to_pylist() == [list(range(0, FRAMES, 3))]
    assert tracks["boxes"].to_pylist() == [[box_of(frame) for frame in range(0, FRAMES, 3)]]
    write_parquet(file, [{**timed[0], "time": 9.0}])
    _, failures, _ = run(config_of(folder, file, "parquet"), tmp_path / "run2")
    assert f"and {folder}/a.mkv has {FRAMES} frames" in failures["a.mkv"].message


def test_ava_keyframes_are_linked_and_interpolated(videos: Path, tmp_path: Path) -> None:
    def line(frame: int, action: str, person: str) -> str:
        shares = (side / size for side, size in zip(box_of(frame), (SIZE[1], SIZE[0]) * 2, strict=True))
        return ",".join(("a", str(frame / 25), *(f"{share:.9f}" for share in shares), action, *person))

    lines = [line(frame, action, "7") for frame in (0, 5, 10, 20) for action in ("80", "9")]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    tracks, _, _ = run(config_of(videos, tmp_path / "a.csv", "csv"), tmp_path / "run")
    assert tracks["label"].to_pylist() == ["80", "9"]  # a track for each of the person's actions
    for row in tracks.to_pylist():
        assert row["frames"] == [*range(11), 20]  # 10 and 20 are no neighbouring keyframes
        assert np.abs(np.array(row["boxes"]) - [box_of(frame) for frame in row["frames"]]).max() < 1e-4
    # Without ids, boxes that overlap by half are one object.
    (tmp_path / "a.csv").write_text("\n".join(line(frame, "80", "") for frame in (0, 2, 4)))
    tracks, _, _ = run(config_of(videos, tmp_path / "a.csv", "csv", frame_stride=2), tmp_path / "run2")
    assert tracks["frames"].to_pylist() == [[0, 2, 4]]


def test_cvat_moves_boxes_until_they_are_outside(videos: Path, tmp_path: Path) -> None:
    boxes = [
        {"frame": 0, "box": box_of(0)},
        {"frame": 8, "box": box_of(8)},
        {"frame": 11, "box": box_of(8), "outside": True},
        {"frame": 20, "box": box_of(20)},
        {"frame": FRAMES, "box": box_of(20), "outside": True},
    ]
    file = tmp_path / "annotations.xml"
    file.write_text(cvat_xml([("square", boxes)], source="a.mp4"))
    tracks, failures, _ = run(config_of(videos, file, "cvat"), tmp_path / "run")
    assert failures == {}
    (row,) = tracks.to_pylist()
    assert row["frames"] == [*range(11), *range(20, FRAMES)]
    moved = [box_of(min(frame, 8)) if frame < 11 else box_of(20) for frame in row["frames"]]
    assert np.abs(np.array(row["boxes"]) - moved).max() < 1e-4
    file.write_text(cvat_xml([("square", boxes)], source="a.mp4", size=(1280, 720)))
    _, failures, _ = run(config_of(videos, file, "cvat"), tmp_path / "run2")
    assert "is for frames of 1280x720 pixels" in failures["a.mp4"].message


def test_a_stride_keeps_boxes_between_its_frames(videos: Path, tmp_path: Path) -> None:
    for frames, kept in ((range(0, FRAMES, 2), 12), (range(1, FRAMES, 2), 12), (range(FRAMES), FRAMES)):
        file = write_parquet(tmp_path / "t.parquet", rows_of("a", frames))
        config = config_of(videos, file, "parquet", frame_stride=2)
        tracks, _, _ = run(config, tmp_path / f"run{frames}")
        assert tracks["frames"].to_pylist() == [list(frames)]
        assert len(tracks["camera"][0]) == kept


def segments_of_a(videos: Path, place: Path, *times: tuple[str, str]) -> str:
    """Write a manifest of segments of a.mp4."""
    place.write_text("\n".join(["uri,video_id,start,end", *(f"{videos}/a.mp4,a.mp4,{s},{e}" for s, e in times)]))
    return str(place)


def given_in_segments(config: Config, folder: Path) -> ShardOutput:
    listed, _ = list_videos(config.videos)
    found = find_tracks(config.tracks, listed, 2, Folder(str(folder)))
    return TrackWorker(config, {}, found.folder)(found.videos)


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


def test_two_files_of_one_video(videos: Path, tmp_path: Path) -> None:
    mot_sequence(tmp_path / "a" / "a", mot_lines())
    mot_sequence(tmp_path / "a" / "a", ["1,-1,5,5,9,9,0.5"], file="det/det.txt")
    tracks, _, _ = run(config_of(videos, tmp_path / "a", "mot"), tmp_path / "run")  # the truth comes first
    assert [len(frames) for frames in tracks["frames"].to_pylist()] == [FRAMES]
    mot_sequence(tmp_path / "a" / "x" / "a", mot_lines())
    with pytest.raises(ConfigError, match=r"both have tracks of the video 'a\.mp4'. Keep one"):
        run(config_of(videos, tmp_path / "a", "mot"), tmp_path / "run2")


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
