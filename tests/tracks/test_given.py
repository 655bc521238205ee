"""Tracks that exist already, on drawn videos: their boxes, their side values, and what does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.drawn import encode, square_video
from tests.helpers.given_squares import FRAMES, SIZE, box_of, config_of, mot_lines, rows_of, run, write_parquet, x_of
from tests.helpers.own_tracks import cvat_xml, mot_sequence
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.store.folder import Folder
from vtcav_ray.tracks.given_index import find_tracks
from vtcav_ray.tracks.stage import TrackWorker
from vtcav_ray.videos.listing import list_videos


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_lines_without_a_video_are_named_with_the_nearest(videos: Path, tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "t.parquet", [*rows_of("a"), *rows_of("aa.mp4")])
    _, _, warnings = run(config_of(videos, file, "parquet"), tmp_path / "run")
    assert warnings[0].startswith(f"Names without a video in {file}: 1, whose tracks are not used: 'aa.mp4' ({file})")
    assert "(nearest: 'a.mp4')" in warnings[0]
    file = write_parquet(tmp_path / "t.parquet", rows_of("zzz"))
    with pytest.raises(StageError, match=r"No video of this run has tracks in .*'zzz'"):
        run(config_of(videos, file, "parquet"), tmp_path / "run2")


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_stride_keeps_boxes_between_its_frames(videos: Path, tmp_path: Path) -> None:
    for frames, kept in ((range(0, FRAMES, 2), 12), (range(1, FRAMES, 2), 12), (range(FRAMES), FRAMES)):
        file = write_parquet(tmp_path / "t.parquet", rows_of("a", frames))
        config = config_of(videos, file, "parquet", frame_stride=2)
        tracks, _, _ = run(config, tmp_path / f"run{frames}")
        assert tracks["frames"].to_pylist() == [list(frames)]
        assert len(tracks["camera"][0]) == kept
