from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.helpers.drawn import encode, sound_only, square_video
from tests.helpers.tracked_things import RedSquares
from vtcav_ray.config import Config, TracksConfig
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.tables import TRACKS
from vtcav_ray.tracks import decoder
from vtcav_ray.tracks.camera import Step, camera_shift, glance, step
from vtcav_ray.tracks.stage import STAGE as TRACKS_STAGE
from vtcav_ray.tracks.stage import TrackWorker
from vtcav_ray.tracks.track import make_tracker, track_videos
from vtcav_ray.video.gpu_decode import check_torchcodec

ROOT = Path(__file__).parents[2]

SHARP = {"crf": "12", "preset": "ultrafast"}


def moving(seed: int, dx: float = 2.0, frames: int = 24, **size: int) -> tuple[bytes, np.ndarray]:
    drawn, boxes = square_video([(10 + dx * t, 30) for t in range(frames)], seed=seed, **size)
    return encode(drawn, options=SHARP), boxes


def run(videos: list[tuple[str, bytes]], detector: RedSquares, **options) -> tuple[pa.Table, list, dict]:
    config = TracksConfig(**{"batch_size": 8, **options})
    return track_videos(videos, detector, config, open_videos=3)


@pytest.mark.slow
def test_one_track_a_square_with_its_boxes(red_squares: RedSquares) -> None:
    truth = {}
    videos = []
    for i in range(5):
        data, boxes = moving(i, dx=(-1) ** i * 1.5 + 1.5, frames=20 + i)
        videos.append((f"v{i}", data))
        truth[f"v{i}"] = boxes
    table, failures, figures = run(videos, red_squares)
    assert table.schema == TRACKS
    assert failures == []
    assert table["video_id"].to_pylist() == [f"v{i}" for i in range(5)]
    for row in table.to_pylist():
        boxes = truth[row["video_id"]]
        assert row["frames"] == list(range(len(boxes)))
        assert np.abs(np.array(row["boxes"]) - boxes).max() < 3
        assert (row["num_frames"], row["fps"], row["label"]) == (len(boxes), 25.0, "square")
        assert np.abs(np.array(row["camera"])).max() < 1.5
        assert set(row["shot"]) == {0}
        lengths = {len(row[name]) for name in ("boxes", "confidence", "camera", "sharpness", "shot")}
        assert lengths == {len(boxes)}
    assert figures["frames"] == sum(len(b) for b in truth.values())


@pytest.mark.slow
def test_ultralytics_is_there_before_any_decoder_starts() -> None:
    """Importing it changes OpenCV's threads, which ends the process (SIGFPE) if a decoder is already running."""
    code = """
import sys
from tests.helpers.drawn import encode, square_video
from tests.helpers.tracked_things import RedSquares
from vtcav_ray.tracks import track
from vtcav_ray.config import TracksConfig

class Decoder(track.Decoder):
    def __init__(self, *given):
        print("ultralytics" in sys.modules)
        super().__init__(*given)

assert "ultralytics" not in sys.modules, "or this shows nothing"
track.Decoder = Decoder
track.track_videos([("v", encode(square_video([(9, 30)] * 3)[0]))], RedSquares(), TracksConfig())
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (found.returncode, found.stdout) == (0, "True\n"), found.stderr


@pytest.mark.slow
def test_frames_of_many_videos_share_batches(red_squares: RedSquares) -> None:
    run([(f"v{i}", moving(i, frames=8)[0]) for i in range(6)], red_squares, batch_size=16)
    assert red_squares.batches == [16, 16, 16]


@pytest.mark.slow
def test_result_does_not_depend_on_who_shares_the_batch(red_squares: RedSquares) -> None:
    videos = [("a", moving(1)[0]), ("big", moving(2, height=120, width=160)[0]), ("c", moving(3, frames=9)[0])]
    together, _, _ = run(videos, red_squares)
    alone = pa.concat_tables([run([v], red_squares)[0] for v in videos])
    assert together.equals(alone)
    assert together.equals(run(videos, red_squares)[0])


@pytest.mark.slow
def test_bad_videos_are_failures_and_the_others_go_on(red_squares: RedSquares) -> None:
    good, _ = moving(1)
    bad = {"empty": b"", "text": b"no video " * 40, "sound": sound_only(), "broken": good[: len(good) // 2]}
    videos = [("first", good), *bad.items(), ("gone", "/nowhere/x.mp4"), ("last", good)]
    table, failures, _ = run(videos, red_squares)
    assert table["video_id"].to_pylist() == ["first", "last"]
    kinds = {f.video_id: f.error_kind for f in failures}
    assert kinds == {
        "empty": "empty",
        "text": "not_video",
        "sound": "no_video_stream",
        "broken": "truncated",
        "gone": "missing",
    }
    gone = next(f for f in failures if f.video_id == "gone")
    assert (gone.uri, gone.clip_id, gone.attempts) == ("/nowhere/x.mp4", None, 1)


@pytest.mark.slow
def test_a_video_that_breaks_off_is_counted(red_squares: RedSquares, tmp_path: Path) -> None:
    where = str(tmp_path / "a.mp4")  # with its index at the front, for which FFmpeg needs a real file
    options = {"movflags": "faststart"}
    noise = np.random.RandomState(0).randint(0, 256, (60, 64, 64, 3), np.uint8)
    data = encode(noise, options={"g": "5"}, container_options=options, path=where)
    _, failures, figures = run([("whole", data), ("half", data[: len(data) // 2])], red_squares)
    assert (failures, figures["truncated"]) == ([], 1)


def test_errors_of_the_machine_end_the_call_and_its_threads(
    red_squares: RedSquares, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoRight:
        def __init__(self, source: object, **options: object) -> None:
            raise PermissionError("no right to read the bucket")

    monkeypatch.setattr(decoder, "Video", NoRight)
    with pytest.raises(PermissionError):
        run([("a", b"x"), ("b", b"x"), ("c", b"x")], red_squares)
    assert not [t for t in threading.enumerate() if t.name.startswith("decode ")]


def test_a_tracker_option_that_is_wrong_leaves_no_thread(red_squares: RedSquares) -> None:
    with pytest.raises(ConfigError, match="no option `speed`"):
        run([("a", moving(1)[0])], red_squares, tracker_options={"speed": 1})
    assert not [t for t in threading.enumerate() if t.name.startswith("decode ")]


def test_stride_and_limit_of_frames(red_squares: RedSquares) -> None:
    table, _, _ = run([("v", moving(1, frames=24)[0])], red_squares, frame_stride=3, max_frames=16)
    (row,) = table.to_pylist()
    assert row["frames"] == [0, 3, 6, 9, 12, 15]
    assert row["num_frames"] == 16


def test_a_video_without_objects_has_no_track(red_squares: RedSquares) -> None:
    grey = encode(np.full((6, 64, 64, 3), 90, np.uint8))
    table, failures, figures = run([("v", grey)], red_squares)
    assert (table.num_rows, failures, figures["frames"]) == (0, [], 6)


@pytest.mark.slow
def test_torchcodec_finds_the_same_tracks_and_says_what_pyav_took_over(red_squares: RedSquares) -> None:
    try:
        check_torchcodec()
    except StageError as error:
        pytest.skip(str(error))
    videos = [(f"v{i}", moving(i, frames=20 + i)[0]) for i in range(3)]
    transport_stream = encode(square_video([(10 + t, 30) for t in range(20)])[0], container="mpegts")
    videos += [("ts", transport_stream), ("bad", sound_only())]
    wanted, failures, _ = run(videos, red_squares, frame_stride=2)
    found, also_failures, figures = run(videos, red_squares, frame_stride=2, decoder="torchcodec")
    assert found.equals(wanted)
    assert found.num_rows == 4
    assert also_failures == failures
    assert len(failures) == 1
    assert figures["handed_over"] == 1


def test_a_choice_of_decoder_leaves_the_key_of_older_tracks_as_it_was() -> None:
    def ingredients(**tracks: str) -> dict[str, Any]:
        config = Config.model_validate({"videos": {"uri": "x"}, "out": "y", "tracks": tracks})
        return TRACKS_STAGE.ingredients(SimpleNamespace(config=config, memo={}))["tracks"]

    assert "decoder" not in ingredients()
    assert ingredients(decoder="torchcodec") == ingredients() | {"decoder": "torchcodec"}


@pytest.mark.slow
def test_a_worker_without_torchcodec_says_so_before_any_video(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    config = Config.model_validate({"videos": {"uri": "x"}, "out": "y", "tracks": {"decoder": "torchcodec"}})
    with pytest.raises(StageError, match=r"pip install 'vtcav-ray\[torchcodec\]'"):
        TrackWorker(config)


@pytest.mark.parametrize("tracker", ["bytetrack", "botsort"])
def test_both_trackers(red_squares: RedSquares, tracker: str) -> None:
    table, _, _ = run([("v", moving(1, frames=10)[0])], red_squares, tracker=tracker)
    assert [len(f) for f in table["frames"].to_pylist()] == [10]


def test_tracker_options() -> None:
    assert make_tracker(TracksConfig(tracker_options={"track_buffer": 7})).max_frames_lost == 7
    with pytest.raises(ConfigError, match="Did you mean `track_buffer`"):
        make_tracker(TracksConfig(tracker_options={"track_bufer": 7}))
    with pytest.raises(ConfigError, match="with_reid"):
        make_tracker(TracksConfig(tracker="botsort", tracker_options={"with_reid": True}))


def test_a_panning_camera_is_seen(red_squares: RedSquares) -> None:
    scene, _ = square_video([(100, 40)], height=96, width=240)
    frames = np.stack([scene[0][:, 3 * t : 3 * t + 140] for t in range(16)])
    table, _, _ = run([("v", encode(frames, options=SHARP))], red_squares)
    (row,) = table.to_pylist()
    assert row["camera"][-1] == pytest.approx([45, 0], abs=3)
    off, _, _ = run([("v", encode(frames, options=SHARP))], red_squares, camera_motion=False)
    assert np.array(off["camera"].to_pylist()[0]).max() == 0


def test_an_object_that_moves_is_no_pan() -> None:
    frames, boxes = square_video([(10 + 6 * t, 30) for t in range(2)], side=50)
    flow = step(glance(frames[0]), glance(frames[1]))
    assert np.abs(camera_shift(flow, boxes[:1].astype(np.float32), (96, 128))).max() < 0.3
    flat = np.full((2, 96, 128, 3), 90, np.uint8)
    for t in range(2):
        flat[t, 30:60, 20 + 5 * t : 50 + 5 * t] = np.random.default_rng(0).integers(0, 255, (30, 30, 3))
    flow = step(glance(flat[0]), glance(flat[1]))
    assert len(flow.points) > 8
    for known in (np.empty((0, 4)), np.array([[20.0, 30, 50, 60]])):  # also at places where it was not detected
        assert camera_shift(flow, known, (96, 128)).tolist() == [0, 0]


def test_the_camera_shift_is_what_most_points_agree_on() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 100, (80, 2)).astype(np.float32)
    flow = np.where(np.arange(80)[:, None] % 4 < 3, (3.0, -2.0), rng.normal(0, 20, (80, 2))).astype(np.float32)
    flow += rng.uniform(-0.2, 0.2, flow.shape).astype(np.float32)
    # A point that agrees in one coordinate only does not count.
    flow[3], flow[7] = (3.0, 9.0), (9.0, -2.0)
    seen = Step(points, flow, 0.7, 7.5, False)
    distance = np.abs(flow[:, None] - flow[None]).max(2)
    best = max(range(80), key=lambda i: int((distance[i] <= 0.7).sum()))
    agreeing = flow[distance[best] <= 0.7]
    shift = camera_shift(seen, np.empty((0, 4), np.float32), (100, 100))
    assert np.allclose(shift, -agreeing.mean(0), atol=1e-5)
    assert np.allclose(shift, (-3, 2), atol=0.1)


def test_cuts_are_counted_and_flashes_are_not(red_squares: RedSquares) -> None:
    first, _ = square_video([(30, 30)] * 8, seed=1)
    second, _ = square_video([(30, 30)] * 8, seed=2)
    second[..., 2] //= 4
    lit = np.clip(first.astype(int) + 60, 0, 255).astype(np.uint8)
    table, _, _ = run([("cut", encode(np.concatenate((first, second)), options=SHARP))], red_squares)
    assert max(table["shot"].to_pylist()[0]) == 1
    assert not step(glance(first[0]), glance(lit[0])).cut
    assert not step(glance(first[0]), glance(np.roll(first[0], 6, axis=1))).cut
