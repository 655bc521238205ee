"""Every head that Ultralytics has gives the boxes of `predict()`, or is refused by its name."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from tests.helpers.ultralytics_networks import (
    SIDE,
    exported,
    network,
    picture,
    predicted,
    pt_of,
    saved_pt,
    tracks_config,
)
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.tracks.detect import Detector
from vtcav_ray.tracks.heads import _NO_BOXES, WITH_BOXES, check_head
from vtcav_ray.tracks.ultralytics_import import import_ultralytics

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("no_warm_up")]
WITH_NETWORK = {
    "Detect": "v8/yolov8.yaml",
    "Segment": "v8/yolov8-seg.yaml",
    "Pose": "v8/yolov8-pose.yaml",
    "WorldDetect": "v8/yolov8-worldv2.yaml",
    "YOLOEDetect": "v8/yoloe-v8.yaml",
    "YOLOESegment": "v8/yoloe-v8-seg.yaml",
    "RTDETRDecoder": "v8/yolov8-rtdetr.yaml",
    "v10Detect": "v10/yolov10n.yaml",
    "Segment26": "26/yolo26-seg.yaml",
    "Pose26": "26/yolo26-pose.yaml",
    "YOLOESegment26": "26/yoloe-26-seg.yaml",
}
REFUSED = {
    "OBB": "v8/yolov8-obb.yaml",
    "OBB26": "26/yolo26-obb.yaml",
    "Classify": "11/yolo11-cls.yaml",
    "SemanticSegment": "26/yolo26-sem.yaml",
    "Depth": "26/yolo26-depth.yaml",
}
ONNX_BATCHES: dict[str, dict[str, Any]] = {"fixed batch": {"batch": 3}, "dynamic": {"dynamic": True}}
# Other networks with the same heads, and further heads as ONNX, are in `make test-all` alone. Each layout of rows of an
# ONNX has a head here.
OTHER_NETWORKS = ("v5/yolov5-p6.yaml", "v6/yolov6.yaml", "v9/yolov9t.yaml", "v8/yolov8-world.yaml")
AS_ONNX = ("RTDETRDecoder",)  # and the end-to-end layout below; test_masks.py has Segment


def detector(path: str, **options: Any) -> Detector:
    return Detector(tracks_config(path, **options), "cpu")


def same_boxes(path: str, name: str) -> None:
    """Check that our boxes are Ultralytics' own, within half a pixel and in any order of equal confidences."""
    wanted = predicted(path, name, picture())
    assert len(wanted) > 5, "a network that finds nothing shows nothing"
    for found in detector(path)([picture(), picture(), picture()]):
        assert len(found.boxes) == len(wanted)
        apart = np.abs(found.boxes[:, None] - wanted[None, :, :4]).max(-1)
        apart += 1000 * (found.classes[:, None] != wanted[None, :, 5])
        apart += 1000 * (np.abs(found.confidence[:, None] - wanted[None, :, 4]) > 1e-3)
        assert apart[linear_sum_assignment(apart)].max() < 0.5


def test_every_head_of_the_installed_package_is_known() -> None:
    import_ultralytics()
    from ultralytics.nn.modules import head

    heads = {n for n, c in vars(head).items() if inspect.isclass(c) and c.__module__ == head.__name__}
    assert heads - {"LRPCHead"} == WITH_BOXES | set(_NO_BOXES)  # LRPCHead is a part of a prompt-free YOLOE
    assert set(WITH_NETWORK) == set(WITH_BOXES)
    assert set(REFUSED) == set(_NO_BOXES)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *WITH_NETWORK.values(),
        "26/yolo26.yaml",
        *[pytest.param(n, marks=pytest.mark.full) for n in OTHER_NETWORKS],
    ],
)
def test_the_boxes_of_a_pt_are_those_of_predict(tmp_path: Path, name: str) -> None:
    same_boxes(pt_of(name, tmp_path), name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "options"),
    [
        *[("Detect", options) for options in ONNX_BATCHES.values()],
        *[(head, ONNX_BATCHES["fixed batch"]) for head in AS_ONNX],
        # A batch of any size concerns the input alone: one head shows it.
        *[
            pytest.param(head, options, marks=pytest.mark.full)
            for head in sorted(set(WITH_NETWORK) - {"Detect"})
            for i, options in ONNX_BATCHES.items()
            if i != "fixed batch" or head not in AS_ONNX
        ],
    ],
)
def test_the_boxes_of_an_onnx_are_those_of_predict(tmp_path: Path, head: str, options: dict[str, Any]) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    name = WITH_NETWORK[head]
    same_boxes(exported(pt_of(name, tmp_path), name, **options), name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "26/yolo26.yaml",
        pytest.param("v10/yolov10n.yaml", marks=pytest.mark.full),
        *[pytest.param(f"26/{n}.yaml", marks=pytest.mark.full) for n in ("yolo26-pose", "yolo26-seg", "yoloe-26-seg")],
    ],
)
def test_the_boxes_of_an_end_to_end_onnx_are_those_of_predict(tmp_path: Path, name: str) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    model = network(name)
    if name == "26/yolo26-seg.yaml":  # all its scores are just below the threshold: raise them
        for part in model.model[-1].one2one_cv3:
            part[-1].bias.data += 0.5
    same_boxes(exported(saved_pt(model, tmp_path, name), name, nms=False), name)


def prompt_free(name: str) -> Any:
    """Make a YOLOE that needs no prompts: its proposals come from one class, and their names from a vocabulary."""
    named, model = network(name), network(name)
    named.model[-1].fuse(named.pe)
    parts = named.model[-1].one2one_cv3 if named.model[-1].end2end else named.model[-1].cv3
    names = list(model.names.values())
    model.set_classes(["object"], model.pe[:, :1])
    model.model[-1].fuse(model.pe)
    model.args = {"imgsz": SIDE}
    model.set_vocab(torch.nn.ModuleList(part[-1] for part in parts), names)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param("v8/yoloe-v8.yaml", ONNX_BATCHES["dynamic"], marks=pytest.mark.full),
        ("v8/yoloe-v8-seg.yaml", ONNX_BATCHES["fixed batch"]),
    ],
)
def test_the_boxes_of_a_prompt_free_onnx_are_those_of_predict(
    tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    path = saved_pt(prompt_free(name), tmp_path, name)
    with pytest.raises(ConfigError, match=r"prompt-free YOLOE \(head `YOLOE"):
        detector(path)
    same_boxes(exported(path, name, **options), name)


@pytest.mark.slow
@pytest.mark.parametrize(("head", "name"), sorted(REFUSED.items()))
def test_a_head_without_upright_boxes_is_refused_by_its_name(tmp_path: Path, head: str, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"`{head}`.*Give the detection weights"):
        detector(pt_of(name, tmp_path))


@pytest.mark.slow
def test_an_onnx_of_a_head_without_upright_boxes_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    name = REFUSED["OBB"]
    path = exported(pt_of(name, tmp_path), name)
    with pytest.raises(ConfigError, match=r"`OBB`.*Give the detection weights"):
        detector(path)
    rewritten(path, drop=("head",))  # as older packages export it
    with pytest.raises(ConfigError, match=r"`OBB`"):
        detector(path)
    rewritten(path, task="gaze")
    with pytest.raises(ConfigError, match=r"`gaze`, which is not known"):
        detector(path)
    rewritten(path, head="GazeHead")
    with pytest.raises(ConfigError, match=r"`GazeHead`, which is not known"):
        detector(path)


def rewritten(path: str, drop: tuple[str, ...] = (), **changed: str) -> None:
    """Change the metadata of an ONNX file."""
    import onnx

    model = onnx.load(path)
    stated = {entry.key: entry.value for entry in model.metadata_props if entry.key not in drop} | changed
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, stated)
    onnx.save(model, path)


def test_an_unknown_head_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"`Gaze`, which is not known here"):
        check_head("Gaze", "w.pt")


class OldRtdetr(torch.nn.Module):
    """RT-DETR with the output of packages up to 8.4: [B, n, 4 + nc], normalised, in any order."""

    def __init__(self, rows: torch.Tensor) -> None:
        super().__init__()
        self.rows = torch.nn.Parameter(rows)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.rows + 0 * images.mean()


def test_an_old_export_of_rtdetr_is_known_by_its_layout(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    rows = torch.tensor([[[0.5, 0.5, 0.2, 0.4, 0.1, 0.9, 0.0], [0.1, 0.1, 0.1, 0.1, 0.05, 0.02, 0.01]]])
    path = str(tmp_path / "old.onnx")
    torch.onnx.export(OldRtdetr(rows), (torch.rand(1, 3, 96, 96),), path, dynamo=False, opset_version=17)
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"names": "['a', 'b', 'c']", "author": "Ultralytics", "task": "detect"})
    onnx.save(model, path)
    (found,) = detector(path)([np.zeros((100, 200, 3), np.uint8)])
    assert np.allclose(found.boxes, [[80, 30, 120, 70]], atol=1e-3)
    assert found.classes.tolist() == [1]


@pytest.mark.slow
def test_a_yoloe_without_classes_says_how_to_set_them(tmp_path: Path) -> None:
    name = WITH_NETWORK["YOLOEDetect"]
    model = network(name)
    del model.pe
    with pytest.raises(ConfigError, match=r"`YOLOEDetect`.*without classes.*set_classes"):
        detector(saved_pt(model, tmp_path, name))


@pytest.mark.slow
def test_a_network_with_layers_of_more_than_a_million_parameters_loads(tmp_path: Path) -> None:
    """Ultralytics writes the number of parameters on each layer, as an attribute."""
    name = WITH_NETWORK["Detect"]
    model = network(name)
    model.model[1].np = 5_000_000
    assert detector(saved_pt(model, tmp_path, name)).names[0] == "thing 0"


@pytest.mark.slow
def test_label_lists_of_the_wrong_length_are_refused(tmp_path: Path) -> None:
    name = WITH_NETWORK["Detect"]
    path = pt_of(name, tmp_path)
    names = tmp_path / "names.txt"
    names.write_text("cup\nball\n")
    with pytest.raises(ConfigError, match=r"`tracks\.names`.*2 names.*3 classes"):
        detector(path, names=str(names))
    names.write_text("cup\nball\nbox\n")
    assert detector(path, names=str(names)).names == {0: "cup", 1: "ball", 2: "box"}
    names.write_text("path: ../coco\nnames:\n  0: cup\n  1: ball\n  2: hand\n")
    assert detector(path, names=str(names)).names == {0: "cup", 1: "ball", 2: "hand"}
    names.write_text("cup\nball\ncup\n")
    with pytest.raises(ConfigError, match=r"`tracks\.names`.*twice: cup"):
        detector(path, names=str(names))
    world = pt_of(WITH_NETWORK["WorldDetect"], tmp_path)
    names.write_text("cup\nball\n")
    with pytest.raises(ConfigError, match=r"2 names.*80 classes"):
        detector(world, names=str(names))


@pytest.mark.slow
def test_names_in_the_weights_fit_the_network(tmp_path: Path) -> None:
    name = WITH_NETWORK["Detect"]
    model = network(name)
    for names, message in (
        ({0: "cup", 1: "ball"}, "3 classes, and names for 2"),
        ({0: "cup", 1: "ball", 2: "cup"}, "two classes of the name 'cup'"),
        ({0: "cup", 1: "ball", 2: " "}, "not plain text"),
    ):
        other = copy.deepcopy(model)
        other.names = names
        with pytest.raises(ConfigError, match=message):
            detector(saved_pt(other, tmp_path, name))


@pytest.mark.slow
def test_label_lists_for_an_onnx_fit_its_own_names(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    name = WITH_NETWORK["Detect"]
    path = exported(pt_of(name, tmp_path), name)
    names = tmp_path / "names.txt"
    names.write_text("cup\nball\n")
    with pytest.raises(ConfigError, match=r"2 names.*3 classes"):
        detector(path, names=str(names))
    rewritten(path, names="{0: 'cup', 1: 'ball'}")
    with pytest.raises(StageError, match=r"with 2 class names"):
        detector(path)([picture()])
