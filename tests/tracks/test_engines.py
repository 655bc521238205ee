"""TensorRT engines: their header says what the head is. (The engines in these files are made up, or ONNX inside.)"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.ultralytics_networks import (
    SIDE,
    exported,
    picture,
    predicted,
    pt_of,
    tracks_config,
)
from vtcav_ray.config import Config, TracksConfig
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.preflight.detector import detector_checks
from vtcav_ray.tracks.backends import base, tensorrt
from vtcav_ray.tracks.detect import Detector
from vtcav_ray.tracks.engine_files import batch_of, engine_export, engine_metadata

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("no_warm_up")]
DETECT = {
    "description": "Ultralytics YOLO11n model", "author": "Ultralytics", "stride": 32, "task": "detect",
    "head": "Detect", "batch": 1, "imgsz": [96, 128], "names": {0: "cup", 1: "it's"},
    "args": {"batch": 1, "half": False, "int8": False, "dynamic": False, "nms": False}, "channels": 3, "end2end": False,
}  # fmt: skip


def engine(**changed: Any) -> bytes:
    """Make the file that Ultralytics writes: the length of the header, the header, the engine."""
    stated = {k: v for k, v in {**DETECT, **changed}.items() if v is not None}
    header = json.dumps(stated)
    return len(header).to_bytes(4, byteorder="little", signed=True) + header.encode() + b"\x00ftrt engine"


def test_the_header_is_read_like_an_onnx_file() -> None:
    metadata = engine_metadata(engine(), "e.engine")
    export = engine_export(metadata, "e.engine")
    assert (export.task, export.final, export.rtdetr, export.named, export.stride) == ("detect", False, False, True, 32)
    assert base.stated_names(metadata, "e.engine") == {0: "cup", 1: "it's"}
    assert engine_export(engine_metadata(engine(end2end=True, head="v10Detect"), "e"), "e").final
    built_in = engine(args={"nms": True, "dynamic": True})
    assert engine_export(engine_metadata(built_in, "e"), "e").final


def test_a_fixed_batch_is_known() -> None:
    assert batch_of(engine_metadata(engine(batch=16), "e")) == 16
    assert batch_of(engine_metadata(engine(batch=16, args={"dynamic": True}), "e")) is None
    assert batch_of(engine_metadata(engine(batch=None), "e")) is None
    assert batch_of({"batch": "-3"}) is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"head": "Segment", "task": "segment"}, r"engine of the head `Segment` \(task segment\)"),
        ({"head": "Pose26", "task": "pose", "kpt_shape": [17, 3]}, r"engine of the head `Pose26`"),
        ({"head": "RTDETRDecoder"}, r"engine of the head `RTDETRDecoder`"),
        ({"head": None, "description": "Ultralytics RT-DETR-l model"}, r"engine of the head `detect`"),
        ({"head": "OBB", "task": "obb"}, r"`OBB`, which gives rotated boxes"),
        ({"head": None, "task": "classify"}, r"`Classify`, which gives one class"),
        ({"head": "Gaze"}, r"`Gaze`, which is not known here"),
        ({"task": "gaze"}, r"`gaze`, which is not known here"),
        ({"author": "somebody", "task": None, "head": None}, r"names neither author, head nor task"),
    ],
)
def test_other_heads_are_refused_by_name_before_anything_runs(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    path = tmp_path / "e.engine"
    path.write_bytes(engine(**changed))
    with pytest.raises(ConfigError, match=message):
        Detector(TracksConfig(weights=str(path)), "cpu")
    (check,) = detector_checks(config(path))
    assert check.verdict == "stop"


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x00\x00\x00\x00rest", b"ftrt" + bytes(100), (500).to_bytes(4, "little") + b"{}",
        (2).to_bytes(4, "little") + b"[]rest", (4).to_bytes(4, "little") + b"\xff\xfe{}rest",
        (60_000).to_bytes(4, "little") + b"[" * 60_000,
    ],
)  # fmt: skip
def test_engines_without_the_header_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "raw.engine"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"raw\.engine is an engine without the header.*Give the \.pt or \.onnx"):
        Detector(TracksConfig(weights=str(path)), "cpu")


def config(path: Path, **sections: Any) -> Config:
    tracks = {"weights": str(path), **sections.pop("tracks", {})}
    return Config.model_validate({"videos": {"uri": "x"}, "out": "y", "tracks": tracks, **sections})


def test_the_preflight_reads_the_header(tmp_path: Path) -> None:
    path = tmp_path / "e.engine"
    (check,) = detector_checks(config(path))
    assert "does not exist" in check.message
    path.write_bytes(engine())
    assert detector_checks(config(path))[0].verdict == "ok"
    masked = detector_checks(config(path, clips={"mask": True}))[0]
    assert (masked.verdict, "`clips.mask`" in masked.message) == ("stop", True)
    words = detector_checks(config(path, tracks={"vocabulary": ["cup"]}))[0]
    assert (words.verdict, "fixed when it was exported" in words.message) == ("stop", True)


class FakeEngine:
    """An ONNX session in the place of a loaded engine."""

    fp16, stride, dynamic, imgsz = False, 32, False, (SIDE, SIDE)

    def __init__(self, path: str) -> None:
        import onnxruntime

        self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        assert len(x) == 3
        (found,) = self._session.run(None, {self._session.get_inputs()[0].name: x.numpy()})
        return torch.from_numpy(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v8/yolov8.yaml", "26/yolo26.yaml"])
def test_the_rows_of_an_engine_are_read_as_the_header_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    final = name.startswith("26")
    made = exported(pt_of(name, tmp_path), name, batch=3, **({"nms": False} if final else {}))
    stated = {entry.key: entry.value for entry in onnx.load(made).metadata_props}
    assert (stated["end2end"] == "True") == final
    header = {"head": stated["head"], "batch": 3, "end2end": final, "names": {i: f"thing {i}" for i in range(3)}}
    path = tmp_path / "e.engine"
    path.write_bytes(engine(**header, imgsz=[SIDE, SIDE]))
    monkeypatch.setattr(tensorrt, "_loaded_engine", lambda *_: FakeEngine(made))
    detector = Detector(tracks_config(str(path), batch_size=8), "cpu")
    wanted = predicted(made, name, picture())
    assert len(wanted) > 5
    found = detector([picture()] * 4)
    assert len(found) == 4
    for one in found:
        assert np.allclose(np.sort(one.confidence), np.sort(wanted[:, 4]), atol=1e-3)
        apart = np.abs(one.boxes[:, None] - wanted[None, :, :4]).max(-1) + 1000 * (one.classes[:, None] != wanted[:, 5])
        assert apart.min(1).max() < 0.5
    path.write_bytes(engine(**{**header, "end2end": not final}, imgsz=[SIDE, SIDE]))
    with pytest.raises(StageError, match=r"e\.engine: output of shape"):
        Detector(tracks_config(str(path)), "cpu")([picture()])
