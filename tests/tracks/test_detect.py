from __future__ import annotations

import io
import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.drawn import square_video
from vtcav_ray.config import TracksConfig
from vtcav_ray.config.loading import parse_config
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.runs.stage import Context
from vtcav_ray.store.commits import stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.tracks.detect import Detector
from vtcav_ray.tracks.detector_files import read_bytes
from vtcav_ray.tracks.detector_weights import load_pt
from vtcav_ray.tracks.stage import STAGE as TRACKS
from vtcav_ray.tracks.ultralytics_import import import_ultralytics


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this must not run",)


def saved(thing: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Save a small, fast, untrained detector in Ultralytics' format."""
    import_ultralytics()
    from ultralytics.nn.tasks import DetectionModel

    layers = [[-1, 1, "Conv", [8, 3, 4]], [-1, 1, "Conv", [16, 3, 2]], [[1], 1, "Detect", ["nc"]]]
    torch.manual_seed(0)
    model = DetectionModel({"nc": 2, "backbone": layers[:2], "head": layers[2:], "scales": {}}, verbose=False)
    model.names = {0: "cup", 1: "ball"}
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    path.write_bytes(saved({"model": model.half(), "train_args": {"imgsz": 64}}))
    return str(path)


def test_a_pickle_that_runs_code_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    for thing in (Evil(), {"model": Evil()}):
        with pytest.raises(StageError, match="print"):
            load_pt(saved(thing), "evil.pt")
    with pytest.raises(StageError, match=r"subprocess\.Popen"):
        load_pt(_pickle_naming("subprocess", "Popen"), "evil.pt")
    assert "must not run" not in capsys.readouterr().out


def _pickle_naming(module: str, name: str) -> bytes:
    """Write a torch file whose pickle only names a global."""
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", f"\x80\x02c{module}\n{name}\n.".encode("latin-1"))
        archive.writestr("archive/version", "3")
        archive.writestr("archive/byteorder", "little")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "name", ["os.system", "torch.nn.modules.module.warnings", "ultralytics.nn.tasks.torch_safe_load"]
)
def test_only_layers_are_let_in(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    with pytest.raises(StageError, match=attribute):
        load_pt(_pickle_naming(module, attribute), "evil.pt")


def test_what_is_no_detector_is_reported() -> None:
    with pytest.raises(StageError, match="no Ultralytics model"):
        load_pt(saved({"state_dict": {"a": torch.zeros(2)}}), "other.pt")
    for junk in (b"", b"not a checkpoint", saved({"a": 1})[:200]):
        with pytest.raises(StageError, match=r"junk\.pt"):
            load_pt(junk, "junk.pt")
    with pytest.raises(ConfigError, match="does not exist"):
        read_bytes("/nowhere/a.pt")
    with pytest.raises(ConfigError, match="neither"):
        Detector(TracksConfig(weights="a.safetensors"))


@pytest.mark.slow
def test_pt_weights_load_and_boxes_do_not_depend_on_the_batch(tiny_weights: str) -> None:
    config = TracksConfig(weights=tiny_weights, image_size=64, confidence=0.0, batch_size=2)
    detector = Detector(config, "cpu")
    assert detector.names == {0: "cup", 1: "ball"}
    wide, _ = square_video([(5, 5), (30, 30)])
    tall, _ = square_video([(9, 9)], height=120, width=64)
    frames = [wide[0], tall[0], wide[1], wide[0]]
    together = detector(frames)
    for frame, found in zip(frames, together, strict=True):
        (alone,) = detector([frame])
        assert len(found.boxes) == len(alone.boxes) > 0
        assert np.array_equal(found.boxes, alone.boxes)
        assert np.array_equal(found.confidence, alone.confidence)
        height, width = frame.shape[:2]
        assert found.boxes.min() >= 0
        assert (found.boxes[:, 2] <= width).all()
        assert (found.boxes[:, 3] <= height).all()
        assert (np.diff(found.confidence) <= 1e-6).all()
    assert detector([]) == []


def test_letterbox_is_ultralytics_own(tiny_weights: str) -> None:
    detector = Detector(TracksConfig(weights=tiny_weights, image_size=96), "cpu")
    from ultralytics.data.augment import LetterBox

    theirs = LetterBox(96, auto=True, stride=32)
    for height, width in [(72, 128), (96, 96), (31, 47), (240, 50), (3, 400)]:
        frame = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
        assert np.array_equal(detector.letterbox(frame), theirs(image=frame)), (height, width)


@pytest.mark.slow
def test_classes_are_kept_by_name(tiny_weights: str) -> None:
    frames, _ = square_video([(5, 5)])
    config = TracksConfig(weights=tiny_weights, image_size=64, confidence=0.0, classes=("ball",))
    (found,) = Detector(config, "cpu")(frames)
    assert set(found.classes) == {1}
    with pytest.raises(ConfigError, match="Did you mean 'ball'"):
        Detector(config.model_copy(update={"classes": ("bal",)}), "cpu")


@pytest.mark.slow
def test_torchvision_is_not_needed(tiny_weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)  # an import of it fails
    monkeypatch.delitem(sys.modules, "torchvision")
    before = set(sys.modules)
    Detector(TracksConfig(weights=tiny_weights, image_size=64), "cpu")(square_video([(5, 5)])[0])
    assert not {m for m in set(sys.modules) - before if m.startswith("torchvision")}


@pytest.mark.slow
def test_a_torchvision_without_its_operators_is_not_used(tiny_weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers and timm import it in the process in which a detector runs, too."""
    frames = square_video([(5, 5)])[0]
    config = TracksConfig(weights=tiny_weights, image_size=64, confidence=0.0)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    expected = Detector(config, "cpu")(frames)
    vision = types.ModuleType("torchvision")
    vision.extension = types.SimpleNamespace(_has_ops=lambda: False)  # type: ignore[attr-defined]
    vision.ops = types.SimpleNamespace(nms=None)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", vision)
    found = Detector(config, "cpu")(frames)
    assert len(expected[0].boxes) > 0
    np.testing.assert_array_equal(found[0].boxes, expected[0].boxes)


@pytest.mark.slow
def test_ultralytics_can_be_imported_without_any_torchvision() -> None:
    code = """
import importlib.metadata
known = importlib.metadata.version

def version(name):
    if name == "torchvision":
        raise importlib.metadata.PackageNotFoundError(name)
    return known(name)

importlib.metadata.version = version
from vtcav_ray.tracks.ultralytics_import import import_ultralytics
import_ultralytics()
import ultralytics.utils.nms
assert importlib.metadata.version is version
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_tracks_go_by_what_is_in_the_detectors_files_and_not_by_where_they_lie(tmp_path: Path) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "d.onnx").write_bytes(b"weights")
        (tmp_path / folder / "names.txt").write_text("cup\nball\n")

    def key(folder: str, **more: object) -> str:
        files = {"weights": f"{tmp_path}/{folder}/d.onnx", "names": f"{tmp_path}/{folder}/names.txt"}
        config = parse_config({"videos": {"uri": "v"}, "tracks": {**files, **more}})
        run = Folder(str(tmp_path / "run"))
        return TRACKS.key(Context(config, run, {"videos": stage_folder(run, "videos", "k")}))

    first = key("here")
    assert key("there") == first
    (tmp_path / "there" / "names.txt").write_text("ball\ncup\n")
    assert key("there") != first, "the same weights, and every label another one"
    assert key("here", names=None) != first
    assert key("here", confidence=0.2) != first
    assert key("here", precision="float32", frame_stride=1) == first
    assert key("here", precision="bfloat16") != first
    assert key("here", frame_stride="auto") != first
    (tmp_path / "here" / "d.onnx").write_bytes(b"other weights")
    assert key("here") != first
    (tmp_path / "here" / "names.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"tracks\.names.*UTF-8"):
        key("here")


def test_engine_without_tensorrt_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    header = json.dumps({"author": "Ultralytics", "task": "detect", "head": "Detect", "names": {"0": "cup"}}).encode()
    path = tmp_path / "a.engine"
    path.write_bytes(len(header).to_bytes(4, "little") + header + b"engine")
    with pytest.raises(StageError, match="TensorRT is not installed"):
        Detector(TracksConfig(weights=str(path)), "cpu")
