"""`tools/export_detector.py`: what it writes is weights for `tracks`, and its measures see what is lost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from tools import export_detector
from vtcav_ray.config import TracksConfig
from vtcav_ray.tracks.detect import Detections, Detector


def boxes(*rows: tuple[float, ...]) -> Detections:
    """Make detections of rows x1, y1, x2, y2, confidence, class."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


WRITTEN = ["d.onnx", "videos", "world.json"]
TRUTH = boxes((0, 0, 10, 10, 0.9, 0), (50, 50, 90, 90, 0.8, 1), (0, 0, 5, 5, 0.1, 0))


def test_equal_boxes_lose_nothing() -> None:
    assert export_detector.loss([TRUTH], [TRUTH]) == {"boxes": 2, "ap50": 1.0, "ap50_95": 1.0, "lost": 0.0}


@pytest.mark.parametrize(
    ("found", "ap50", "lost"),
    [
        (boxes((0, 0, 10, 10, 0.9, 0)), 51 / 101, 0.5),  # one is missing: recalls 0 to 0.5
        (boxes((0, 0, 10, 10, 0.9, 1), (50, 50, 90, 90, 0.8, 1)), 0.5 * 51 / 101, 0.5),  # of another class, and first
        (boxes((0, 0, 10, 10, 0.9, 0), (0, 0, 10, 10, 0.8, 0)), 51 / 101, 0.5),  # twice the same counts once
        (boxes(), 0.0, 1.0),
    ],
)
def test_boxes_that_are_lost_or_wrong_count(found: Detections, ap50: float, lost: float) -> None:
    report = export_detector.loss([TRUTH], [found])
    assert report["ap50"] == pytest.approx(ap50, abs=1e-3)
    assert report["lost"] == lost


def test_boxes_that_moved_count_at_high_overlaps() -> None:
    moved = boxes((1, 0, 11, 10, 0.9, 0), (50, 50, 90, 90, 0.8, 1))  # intersection over union 9 / 11
    report = export_detector.loss([TRUTH], [moved])
    assert report["ap50"] == 1.0
    assert 0.6 < report["ap50_95"] < 0.9


def test_one_video_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from vtcav_ray.world import write_world

    write_world(str(tmp_path), 1, seed=0)
    assert export_detector.main(["asset:detector.pt", str(tmp_path / "videos"), str(tmp_path / "d.onnx")]) == 2
    assert "Give at least two" in capsys.readouterr().err
    assert not (tmp_path / "d.onnx").exists()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", pytest.param("int8", marks=pytest.mark.full)])
def test_tracks_take_what_it_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str], precision: str) -> None:
    import onnx

    from vtcav_ray.world import write_world

    write_world(str(tmp_path), 6, seed=0)
    out = tmp_path / "d.onnx"
    options = ["--image-size", "128", "--frames", "24", "--precision", precision]
    assert export_detector.main(["asset:detector.pt", str(tmp_path / "videos"), str(out), *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["boxes"] >= 10
    assert report["ap50"] > 0.9
    assert (report["ap50_95"] == 1) == (precision == "float32")
    quantizes = "QuantizeLinear" in {node.op_type for node in onnx.load(str(out)).graph.node}
    assert quantizes == (precision == "int8")
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".parquet") == WRITTEN
    exact, export = (
        Detector(TracksConfig(weights=weights, image_size=128), "cpu") for weights in ("asset:detector.pt", str(out))
    )
    assert export.names == exact.names
    # Of another shape than those that it was made with.
    frames = list(np.random.default_rng(0).integers(0, 256, (2, 60, 120, 3), np.uint8))
    for frame in frames:
        assert export.letterbox(frame).shape == exact.letterbox(frame).shape == (64, 128, 3)
    assert len(export(frames)) == 2
