"""Detectors in ONNX files: the layouts of their outputs, their names, and files that are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vtcav_ray.config import TracksConfig
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.tracks.detect import Detector

BOXES = [(10, 20, 40, 60, 0.9, 1), (11, 21, 41, 61, 0.8, 1), (60, 10, 90, 50, 0.7, 0), (0, 0, 9, 9, 0.05, 0)]
KEPT = [(10, 20, 40, 60), (60, 10, 90, 50)]  # of BOXES, after suppression; in letterboxed pixels


def onnx_file(
    tmp_path: Path, output: np.ndarray, *, batch: int | str, names: str | None = "{0: 'cup', 1: 'ball'}", **stated: str
) -> str:
    """Write a network that answers `output` for every 96x96 input, repeated for the batch if it has a batch axis."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    from onnx import TensorProto, helper, numpy_helper

    nodes = []
    if isinstance(batch, str) and output.ndim == 3:
        nodes += [
            helper.make_node("Shape", ["images"], ["shape"], start=0, end=1),
            helper.make_node("Concat", ["shape", "ones"], ["repeats"], axis=0),
            helper.make_node("Tile", ["said", "repeats"], ["output"]),
        ]
    else:
        nodes += [helper.make_node("Identity", ["said"], ["output"])]
    graph = helper.make_graph(
        nodes,
        "fixed",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, 96, 96])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(output.astype(np.float32), "said"),
            numpy_helper.from_array(np.array([1, 1], np.int64), "ones"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if names:
        helper.set_model_props(model, {"names": names, **stated})
    path = tmp_path / "model.onnx"
    onnx.save(model, str(path))
    return str(path)


def raw_rows(objectness: bool) -> np.ndarray:
    """Make [n, 4 + 2] or [n, 5 + 2] rows of centre, size, (objectness,) class scores."""
    rows = []
    for x1, y1, x2, y2, score, label in BOXES:
        scores = [0.0, 0.0]
        scores[label] = score if not objectness else score / 0.95
        head = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
        rows.append([*head, *([0.95] if objectness else []), *scores])
    return np.array(rows, np.float32)


def layouts() -> dict[str, np.ndarray]:
    end2end = [[0, *b[:4], b[5], b[4]] for b in (BOXES[0], BOXES[2], BOXES[3])]
    return {
        "yolov8": raw_rows(False).T[None],
        "yolov7": raw_rows(True)[None],
        "yolov7 end to end": np.array(end2end, np.float32),
        "yolov10": np.array([[BOXES[0], BOXES[2], BOXES[3]]], np.float32),
    }


@pytest.mark.parametrize(
    ("layout", "batch"),
    [
        *[(layout, batch) for layout in ("yolov8", "yolov7", "yolov10") for batch in (1, "batch")],
        ("yolov7 end to end", 1),  # its rows name the image, so a fixed answer does not work for a batch
    ],
)
def test_onnx_layouts(tmp_path: Path, layout: str, batch: int | str) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    weights = onnx_file(tmp_path, layouts()[layout], batch=batch)
    detector = Detector(TracksConfig(weights=weights, image_size=640), "cpu")
    frames = np.zeros((3, 192, 192, 3), np.uint8)
    for found in detector(frames):
        assert np.allclose(found.boxes, 2 * np.array(KEPT, float), atol=0.01)
        assert np.allclose(found.confidence, [0.9, 0.7], atol=1e-3)
        assert found.classes.tolist() == [1, 0]


def test_six_numbers_of_one_class_are_boxes_where_the_file_says_so(tmp_path: Path) -> None:
    """[B, n, 6] is YOLOv7 with one class (its fifth is objectness, its sixth a score), or an end-to-end detector."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    output = np.array([[[10, 10, 40, 40, 0.9, 0.0]]], np.float32)
    one = "{0: 'cup'}"
    for stated, count in (({"author": "Ultralytics"}, 1), ({"end2end": "True"}, 1), ({}, 0)):
        weights = onnx_file(tmp_path, output, batch=1, names=one, **stated)
        (found,) = Detector(TracksConfig(weights=weights, image_size=96), "cpu")(np.zeros((1, 96, 96, 3), np.uint8))
        assert len(found.boxes) == count, stated


def test_an_onnx_that_holds_another_size_than_it_declares_is_reported(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("Add", ["images", "held"], ["output"])],
        "held",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["b", 3, "h", "w"])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.zeros((1, 3, 96, 64), np.float32), "held")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {"names": "{0: 'cup'}"})
    onnx.save(model, str(tmp_path / "held.onnx"))
    detector = Detector(TracksConfig(weights=str(tmp_path / "held.onnx"), image_size=96), "cpu")
    with pytest.raises(StageError, match="dynamic=True"):
        detector(np.zeros((1, 96, 96, 3), np.uint8))


class Yolov7Layout(torch.nn.Module):
    """A trained detector with the output layout of YOLOv7's `export.py --grid`: [B, N, 5 + nc]."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        output = self.model(images)
        rows = (output[0] if isinstance(output, tuple | list) else output).transpose(1, 2)
        scores = rows[..., 4:]
        objectness = scores.amax(-1, keepdim=True).sqrt()
        return torch.cat((rows[..., :4], objectness, scores / objectness), -1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_yolov7_export_finds_what_its_network_finds(tmp_path: Path) -> None:
    """A real network in YOLOv7's layout, exported to ONNX with its names in a label file, agrees on real pictures."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from vtcav_ray.video.decode import Video
    from vtcav_ray.world import write_world

    write_world(str(tmp_path / "world"), 8, seed=3)
    frames = []
    for path in sorted((tmp_path / "world").rglob("*.mp4")):
        with Video(str(path)) as video:
            frames += [frame for _, frame in video.frames(12)]
    torch_detector = Detector(TracksConfig(image_size=128, backend="pytorch"), "cpu")
    layout = Yolov7Layout(torch_detector._backend.network.to(memory_format=torch.contiguous_format)).eval()  # type: ignore[attr-defined]
    torch.onnx.export(
        layout,
        (torch.rand(2, 3, 128, 128),),
        str(tmp_path / "yolov7.onnx"),
        dynamo=False,
        opset_version=17,
        input_names=["images"],
        output_names=["output"],
        dynamic_axes={"images": {0: "batch"}, "output": {0: "batch"}},
    )
    (tmp_path / "names.txt").write_text("\n".join(torch_detector.names.values()))
    config = TracksConfig(weights=str(tmp_path / "yolov7.onnx"), names=str(tmp_path / "names.txt"), image_size=128)
    wanted, found = torch_detector(frames), Detector(config, "cpu")(frames)
    assert sum(len(w.boxes) for w in wanted) >= len(frames)
    for w, f in zip(wanted, found, strict=True):
        assert np.abs(w.boxes - f.boxes).max(initial=0) < 0.1
        assert np.allclose(w.confidence, f.confidence, atol=1e-3)
        assert w.classes.tolist() == f.classes.tolist()


def test_onnx_without_names_needs_a_label_file(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    weights = onnx_file(tmp_path, layouts()["yolov7"], batch=1, names=None)
    with pytest.raises(ConfigError, match=r"tracks\.names"):
        Detector(TracksConfig(weights=weights), "cpu")
    labels = tmp_path / "labels.txt"
    labels.write_text("cup\nball\n")
    detector = Detector(TracksConfig(weights=weights, names=str(labels), classes=("cup",)), "cpu")
    (found,) = detector([np.zeros((96, 96, 3), np.uint8)])
    assert found.classes.tolist() == [0]
    labels.write_text("cup\nball\nbox\n")
    wrong = Detector(TracksConfig(weights=weights, names=str(labels)), "cpu")
    with pytest.raises(StageError, match="not a known layout"):
        wrong([np.zeros((96, 96, 3), np.uint8)])
    with pytest.raises(ConfigError, match="does not exist"):
        Detector(TracksConfig(weights=weights, names=str(tmp_path / "none.txt")), "cpu")


def test_what_is_no_onnx_is_reported(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"not a network")
    with pytest.raises(StageError, match="does not load as ONNX"):
        Detector(TracksConfig(weights=str(path)), "cpu")
