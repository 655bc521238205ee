"""Tracks agree with Ultralytics' `track()` on real clips with real weights, and with the planted world's truth."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from vtcav_ray.clips.span_filters import usable_spans
from vtcav_ray.clips.spans import iter_tracks
from vtcav_ray.config import ClipsConfig, TracksConfig, VideosConfig
from vtcav_ray.tracks.detect import Detector
from vtcav_ray.tracks.track import track_videos
from vtcav_ray.videos.listing import list_videos

ROOT = Path(__file__).resolve().parents[2]
REAL_CLIPS = (
    "kinetics400/arm_wrestling/mmaction2_demo.mp4",
    "kinetics400/arm_wrestling/C4lCVBZ3ux0_000028_000038.mp4",
    "gestures/eat.mkv",
)


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("tracker", ["bytetrack", pytest.param("botsort", marks=pytest.mark.full)])
def test_same_tracks_as_ultralytics(shared_data: Path, tracker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from tracking import compare, our_tracks, patch_torchvision_nms, ultralytics_tracks

    weights = str(shared_data / "weights" / "yolov8n_dequant_coco.pt")
    config = TracksConfig(weights=weights, tracker=tracker, image_size=320, max_frames=24, batch_size=8)
    videos = [(name, str(shared_data / "videos" / name)) for name in REAL_CLIPS]
    table, failures, _ = track_videos(videos, Detector(config, "cpu"), config)
    assert failures == []
    ours = our_tracks(table)
    patch_torchvision_nms()
    for name, path in videos:
        agreement = compare(ultralytics_tracks(weights, path, config, "cpu"), ours.get(name, {}))
        assert agreement["boxes"] >= 20, name
        assert agreement["same_box"] == 1.0, (name, agreement)
        assert agreement["same_id"] == 1.0, (name, agreement)


@pytest.mark.slow
def test_planted_world_is_found_again(tmp_path: Path) -> None:
    """Precision and recall of boxes in tracks, and the direction words, match the truth."""
    from vtcav_ray.world import write_world

    if not (ROOT / "vtcav_ray" / "world" / "assets" / "detector.pt").is_file():
        pytest.skip("the packaged detector is not there")
    write_world(str(tmp_path), 40, seed=11)
    truth = defaultdict(list)
    for row in pq.read_table(tmp_path / "truth.parquet").to_pylist():
        truth[row["video_id"]].append(row)
    videos, _ = list_videos(VideosConfig(uri=str(tmp_path)))
    config = TracksConfig(image_size=128)
    pairs = list(zip(videos["video_id"].to_pylist(), videos["uri"].to_pylist(), strict=True))
    table, failures, _ = track_videos(pairs, Detector(config, "cpu"), config)
    assert failures == []

    visible = {
        (v, o["object_id"], frame)
        for v, objects in truth.items()
        for o in objects
        for frame, share in zip(o["frames"], o["visible"], strict=True)
        if share > 0.5
    }
    recalled = set()
    counts: Counter[str] = Counter()
    words: Counter[bool] = Counter()
    clips = ClipsConfig(frames=16, interval=1, size=64)
    for track in iter_tracks(table):
        objects = Counter()
        for frame, box in zip(track.frames.tolist(), track.boxes, strict=True):
            there = [
                (o["object_id"], _iou(box, np.array(o["boxes"][o["frames"].index(frame)])))
                for o in truth[track.video_id]
                if frame in o["frames"]
            ]
            best = max(there, key=lambda t: t[1], default=(None, 0.0))
            counts["found"] += 1
            if best[1] >= 0.5:
                counts["right"] += 1
                objects[best[0]] += 1
                recalled.add((track.video_id, best[0], frame))
        if not objects:
            continue
        (object_id, hits) = objects.most_common(1)[0]
        (planted,) = [o for o in truth[track.video_id] if o["object_id"] == object_id]
        if hits < 0.9 * len(track.frames):
            continue  # the track switched to another object
        wanted = "still" if planted["motion"] == "none" else planted["motion"]
        for span in usable_spans(track, clips, Counter()):
            words[span.motion.direction == wanted] += 1
    precision, recall = counts["right"] / counts["found"], len(recalled & visible) / len(visible)
    directions = words[True] / words.total()
    print(f"precision {precision:.3f}, recall {recall:.3f}, directions right {directions:.3f} of {words.total()} spans")
    assert precision >= 0.95
    assert recall >= 0.9
    assert directions >= 0.95


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    overlap = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    areas = (a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()
    return float(overlap / (areas - overlap))


def test_the_benchmark_compares_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from tracking import compare

    box = np.array([10.0, 10, 20, 20])
    theirs = {0: {1: box, 2: box + 50}, 1: {1: box + 1, 2: box + 51}}
    renamed = {0: {7: box, 9: box + 50}, 1: {7: box + 1.5, 9: box + 51}}
    assert compare(theirs, renamed) == {"boxes": 4, "same_box": 1.0, "same_id": 1.0, "largest_difference_px": 0.5}
    swapped = {0: {7: box, 9: box + 50}, 1: {9: box + 1, 7: box + 51}}
    assert compare(theirs, swapped)["same_id"] == 0.0
    assert compare(theirs, {0: {7: box}})["same_box"] == 0.25
    sys.modules.pop("tracking")
