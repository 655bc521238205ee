"""`tracks.backend`: ONNX Runtime runs .pt weights on a CPU, and finds the same boxes."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.ultralytics_networks import pt_of
from vtcav_ray.config import TracksConfig
from vtcav_ray.config.loading import parse_config
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.tracks.backends import TorchBackend, exported, load_backend
from vtcav_ray.tracks.detect import Detections, Detector
from vtcav_ray.tracks.stage import STAGE
from vtcav_ray.video.decode import Video
from vtcav_ray.world import write_world

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("onnx", reason="onnx is not installed")


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    folder = tmp_path_factory.mktemp("world")
    write_world(str(folder), 4, seed=0)
    found = []
    for path in sorted(folder.rglob("*.mp4")):
        with Video(str(path)) as video:
            found += [frame for _, frame in video.frames(6)]
    return found


def detector(backend: str, **settings: Any) -> Detector:
    return Detector(TracksConfig.model_validate({"image_size": 128, "backend": backend, **settings}), "cpu")


def assert_equal(one: Detections, other: Detections) -> None:
    assert np.array_equal(one.boxes, other.boxes)
    assert np.array_equal(one.confidence, other.confidence)
    assert np.array_equal(one.classes, other.classes)


@pytest.mark.slow
def test_auto_takes_onnx_runtime_and_finds_the_boxes_of_pytorch(frames: list[np.ndarray]) -> None:
    exact, found = detector("pytorch"), detector("auto")
    assert (exact.backend, found.backend) == ("pytorch", "onnxruntime")
    assert (found.names, found.stride) == (exact.names, exact.stride)
    boxes = 0
    for one, other in zip(exact(frames), found(frames), strict=True):
        assert np.array_equal(one.classes, other.classes)
        assert np.allclose(one.boxes, other.boxes, atol=0.01)
        assert np.allclose(one.confidence, other.confidence, atol=1e-4)
        boxes += len(one.boxes)
    assert boxes >= 10


@pytest.mark.slow
def test_a_frame_has_the_same_boxes_in_every_batch(frames: list[np.ndarray]) -> None:
    found = detector("onnxruntime", confidence=0.01)
    together = found(frames)
    assert len(frames) > 16  # more than one piece
    assert max(len(one.boxes) for one in together) > 0
    for i in (0, 5, len(frames) - 1):
        assert_equal(found(frames[i : i + 1])[0], together[i])
    for one, other in zip(found(frames[3:10]), together[3:10], strict=True):
        assert_equal(one, other)


def assert_equal_rows(exact: Detector, found: Detector, shape: tuple[int, int, int]) -> None:
    """Compare the networks before suppression, where the last digits decide nothing."""
    frame = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    batch = torch.from_numpy(exact.letterbox(frame)[None])
    (one,), (other,) = (each._backend(batch, -1.0) for each in (exact, found))
    assert one.detections.shape == other.detections.shape
    assert torch.allclose(one.detections[:4], other.detections[:4], rtol=0, atol=0.01)
    assert torch.allclose(one.detections[4:], other.detections[4:], rtol=0, atol=1e-4)


@pytest.mark.slow
def test_it_takes_frames_of_any_shape() -> None:
    exact, found = detector("pytorch"), detector("onnxruntime")
    for shape in ((60, 120, 3), (200, 90, 3), (128, 128, 3)):
        assert_equal_rows(exact, found, shape)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "stride"), [("v5/yolov5-p6.yaml", 64), pytest.param("v9/yolov9t.yaml", 32, marks=pytest.mark.full)]
)
def test_it_takes_networks_of_other_strides_and_layers(name: str, stride: int, tmp_path: Path) -> None:
    weights = pt_of(name, tmp_path)
    exact, found = (detector(backend, weights=weights) for backend in ("pytorch", "auto"))
    assert (found.backend, found.stride) == ("onnxruntime", stride)
    assert_equal_rows(exact, found, (200, 300, 3))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"precision": "bfloat16"}, r"`tracks\.precision` is not float32"),
        ({"weights": "v8/yolov8-seg.yaml"}, "only the head `Detect` .* this is `Segment`"),
        ({"weights": "v10/yolov10n.yaml"}, "only the head `Detect` .* this is `v10Detect`"),
    ],
)
def test_what_it_cannot_run_is_left_to_pytorch(settings: dict[str, str], reason: str, tmp_path: Path) -> None:
    if "weights" in settings:
        settings = {"weights": pt_of(settings["weights"], tmp_path)}
    assert detector("auto", **settings).backend == "pytorch"
    with pytest.raises(ConfigError, match=r"`tracks\.backend`: onnxruntime can't run .*: " + reason):
        detector("onnxruntime", **settings)


@pytest.mark.slow
def test_without_the_package_pytorch_runs_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # its import fails
    assert detector("auto").backend == "pytorch"
    with pytest.raises(ConfigError, match=r"can't be imported .*Install it: pip install 'vtcav-ray\[onnx\]'"):
        detector("onnxruntime")


def test_a_gpu_runs_pytorch() -> None:
    network = TorchBackend(TracksConfig(image_size=128), torch.device("cpu"))
    gpu = torch.device("cuda")
    assert exported.fastest(network, TracksConfig(image_size=128), gpu) is network
    with pytest.raises(ConfigError, match=r"the detector has a GPU \(`resources\.detect\.gpus`\)"):
        exported.fastest(network, TracksConfig(backend="onnxruntime"), gpu)
    with pytest.raises(
        ConfigError, match=r"`tracks\.backend: onnxruntime` runs on CPUs, and `resources\.detect\.gpus`"
    ):
        parse_config(
            {
                "tracks": {"backend": "onnxruntime"},
                "resources": {"detect": {"gpus": 1}},
                "out": "x",
                "videos": {"uri": "v"},
            }
        )


def _refuses(*_: object) -> bytes:
    raise RuntimeError("Unsupported operator")


def _halves(network: Any, shape: Any) -> bytes:
    for weights in network.parameters():
        weights.mul_(0.5)
    return _EXPORT(network, shape)


_EXPORT = exported.export_network


@pytest.mark.slow
@pytest.mark.parametrize(
    ("export", "message"), [(_refuses, "Unsupported operator"), (_halves, "finds other boxes than the network")]
)
def test_a_bad_export_is_not_used(
    export: Any,
    message: str,
    frames: list[np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(exported, "export_network", export)
    with caplog.at_level(logging.WARNING, "vtcav_ray"):
        found = detector("auto")
    assert found.backend == "pytorch"
    (record,) = caplog.records
    assert message in record.getMessage()
    assert "PyTorch runs asset:detector.pt instead" in record.getMessage()
    for one, other in zip(found(frames[:3]), detector("pytorch")(frames[:3]), strict=True):
        assert_equal(one, other)
    with pytest.raises(StageError, match=message):
        detector("onnxruntime")


def test_exports_and_engines_have_their_own_backend() -> None:
    for weights in ("d.onnx", "d.engine"):
        with pytest.raises(ConfigError, match=rf"`tracks\.backend`: pytorch can't run {weights}"):
            load_backend(TracksConfig(weights=weights, backend="pytorch"), torch.device("cpu"))


def test_the_backend_is_in_no_key() -> None:
    base = {"out": "x", "videos": {"uri": "v"}}
    keys = {
        str(STAGE.ingredients(_Context(parse_config({**base, "tracks": {"backend": backend}}))))
        for backend in ("auto", "pytorch", "onnxruntime")
    }
    assert len(keys) == 1


class _Context:
    def __init__(self, config: Any) -> None:
        self.config, self.memo = config, {}
