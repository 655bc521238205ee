"""Tiny untrained networks from Ultralytics' own yaml files, their exports, and what `predict()` finds with them."""

from __future__ import annotations

import copy
import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vtcav_ray.config import TracksConfig
from vtcav_ray.tracks.ultralytics_import import import_ultralytics, prefer_own_nms

SIDE = 128
CONFIDENCE = 0.3
IOU = 0.7


def network(name: str, classes: int = 3) -> Any:
    """Build the network of a file below Ultralytics' `cfg/models`, thin, with outputs that vary over the picture."""
    ultralytics = import_ultralytics()
    from ultralytics.nn import tasks
    from ultralytics.utils import YAML

    config = YAML.load(Path(ultralytics.__file__).parent / "cfg/models" / name)
    prompted = "world" in name or "yoloe" in name
    config["nc"] = classes = 80 if prompted else classes
    scale = next(iter(config.get("scales", {"n": 0})))
    config["scale"], config["scales"] = scale, {scale: [0.33, 0.125, 1024]}
    task = tasks.guess_model_task(config) or "detect"
    torch.manual_seed(0)
    model = _class_of(name, task)(config, verbose=False)
    model.names, model.task = {i: f"thing {i}" for i in range(classes)}, task
    _vary(model, prompted)
    if "yoloe" in name:
        generator = torch.Generator().manual_seed(2)
        model.pe = torch.nn.functional.normalize(torch.randn(1, classes, 512, generator=generator), dim=-1)
    return model.eval()


def _class_of(name: str, task: str) -> Any:
    from ultralytics.nn import tasks

    if "world" in name:
        return tasks.WorldModel
    if "yoloe" in name:
        return tasks.YOLOESegModel if "seg" in name else tasks.YOLOEModel
    if "rtdetr" in name:
        return tasks.RTDETRDetectionModel
    given = {
        "semantic": "SemanticSegmentation",
        "detect": "Detection",
        "segment": "Segmentation",
        "classify": "Classification",
        "obb": "OBB",
    }
    return getattr(tasks, f"{given.get(task, task.capitalize())}Model")


def _vary(model: Any, prompted: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.2, 0.6, generator=generator)
    head = model.model[-1]
    for part in (*(getattr(head, "cv3", None) or ()), *(getattr(head, "one2one_cv3", None) or ())):
        if not prompted and isinstance(part[-1], torch.nn.Conv2d):
            part[-1].bias.data.fill_(-1.0)
            part[-1].weight.data.normal_(0, 0.5, generator=generator)
    for part in (*(getattr(head, "cv4", None) or ()), *(getattr(head, "one2one_cv4", None) or ())):
        if hasattr(part, "logit_scale"):
            part.bias.data.fill_(-1.0)
            part.logit_scale.data.fill_(1.5)


def tracks_config(weights: str, **options: Any) -> TracksConfig:
    """Return the settings of these networks, and of `predicted`."""
    given = {"image_size": SIDE, "confidence": CONFIDENCE, "iou": IOU, "batch_size": 2, **options}
    if weights.endswith(".pt"):
        given.setdefault("backend", "pytorch")  # an export would take a second
    return TracksConfig(weights=weights, **given)


def pt_of(name: str, folder: Path) -> str:
    """Save `network(name)`. Each network is built once per process."""
    path = _path(folder, name)
    path.write_bytes(_saved(name))
    return str(path)


@cache
def _saved(name: str) -> bytes:
    buffer = io.BytesIO()
    _save(network(name), buffer, name)
    return buffer.getvalue()


def _path(folder: Path, name: str) -> Path:
    return folder / f"w_{name.replace('/', '_').removesuffix('.yaml')}.pt"


def saved_pt(model: Any, folder: Path, name: str) -> str:
    """Save a network as Ultralytics does after training."""
    path = _path(folder, name)
    _save(copy.deepcopy(model), path, name)
    return str(path)


def _save(model: Any, place: Path | io.BytesIO, name: str) -> None:
    model.args = {"task": model.task, "imgsz": SIDE, "model": name}
    torch.save({"model": model.half(), "train_args": model.args, "version": "8", "license": ""}, place)


def opened(path: str, name: str) -> Any:
    """Open weights with the class of Ultralytics that is made for them."""
    prefer_own_nms()  # another test may have imported torchvision
    from ultralytics import RTDETR, YOLO, YOLOE, YOLOWorld

    world = YOLOWorld if path.endswith(".pt") else YOLO  # which opens no exports
    made = RTDETR if "rtdetr" in name else world if "world" in name else YOLOE if "yoloe" in name else YOLO
    return made(path)


def exported(path: str, name: str, **options: Any) -> str:
    """Export weights to ONNX with Ultralytics' own exporter."""
    return str(opened(path, name).export(format="onnx", imgsz=SIDE, simplify=False, device="cpu", **options))


def predicted(path: str, name: str, frame: np.ndarray) -> np.ndarray:
    """Return Ultralytics' boxes in a frame (uint8 RGB): float32 [n, 6], xyxy, confidence, class."""
    (found,) = opened(path, name).predict(
        frame[..., ::-1].copy(), conf=CONFIDENCE, iou=IOU, imgsz=SIDE, verbose=False, device="cpu", save=False
    )
    return np.asarray(found.boxes.data, np.float32)


def picture() -> np.ndarray:
    """Draw coloured squares: uint8 [90, 140, 3]."""
    colours = np.random.default_rng(0).integers(0, 255, (9, 14, 3), np.uint8)
    return np.kron(colours, np.ones((10, 10, 1), np.uint8))
