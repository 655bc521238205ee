"""The heads of Ultralytics' networks: which give boxes, in what form, and what to do about those that do not.

A head is recognised by its class in a .pt file, and by the metadata in an .onnx file. Anything unknown is refused: the
numbers that another head returns have the right shape often enough to be taken for boxes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from vtcav_ray.errors import ConfigError
from vtcav_ray.tracks.text_encoder import CLIP, PROGRAM
from vtcav_ray.tracks.vocabulary import TextFeatures

DETECTION = frozenset({"Detect", "v10Detect", "WorldDetect", "YOLOEDetect"})
SEGMENTATION = frozenset({"Segment", "Segment26", "YOLOESegment", "YOLOESegment26"})
POSE = frozenset({"Pose", "Pose26"})
RTDETR = "RTDETRDecoder"
OPEN = frozenset({"WorldDetect", "YOLOEDetect", "YOLOESegment", "YOLOESegment26"})  # classes can be set
PROMPTED = frozenset({"YOLOEDetect", "YOLOESegment", "YOLOESegment26"})
WITH_BOXES = DETECTION | SEGMENTATION | POSE | {RTDETR}
TASKS = frozenset({"detect", "segment", "pose"})
AUTHOR = "Ultralytics"

_SAME_FAMILY = "Give the detection weights of the same family, such as yolo11n.pt instead of yolo11n-{}.pt."
_ROTATED = "gives rotated boxes, and tracks need upright ones. " + _SAME_FAMILY.format("obb")
_NO_BOXES = {
    "OBB": _ROTATED,
    "OBB26": _ROTATED,
    "Classify": "gives one class per picture and no boxes. " + _SAME_FAMILY.format("cls"),
    "SemanticSegment": "gives a class per pixel and no boxes. " + _SAME_FAMILY.format("sem"),
    "Depth": "gives a depth per pixel and no boxes. " + _SAME_FAMILY.format("depth"),
}
_NO_BOXES_TASK = {"obb": "OBB", "classify": "Classify", "semantic": "SemanticSegment", "depth": "Depth"}
_MOBILE = "mobileclip_blt.ts (YOLOE) or mobileclip2_b.ts (YOLOE-26)"
_PROMPTS = (
    "Set `tracks.vocabulary`, or set its classes with Ultralytics, and save it: model.set_classes(NAMES, "
    "model.get_text_pe(NAMES)); model.save(FILE)."
)


def check_head(name: str, where: str) -> None:
    """Check that a head of this class gives boxes.

    Raises:
        ConfigError: it does not, or is unknown. The message names the head and says what to do.
    """
    if name in WITH_BOXES:
        return
    if name in _NO_BOXES:
        raise ConfigError(f"`tracks.weights`: {where} has the head `{name}`, which {_NO_BOXES[name]}")
    raise ConfigError(
        f"`tracks.weights`: {where} has the head `{name[:100]}`, which is not known here. Known heads with boxes: "
        f"{', '.join(sorted(WITH_BOXES))}. Give weights with one of these."
    )


def head_of_network(model: Any, where: str, *, words: bool = False) -> str:
    """Return the class of a network's last layer.

    Args:
        model: from `vtcav_ray.tracks.detector_weights.load_pt`.
        where: the file's name, for messages.
        words: its classes will be set by `set_words`.

    Raises:
        ConfigError: the head gives no boxes, is unknown, or has no classes of its own.
    """
    last = model.model[-1]
    name = type(last).__name__
    check_head(name, where)
    if name in PROMPTED:
        if hasattr(last, "lrpc"):
            raise ConfigError(
                f"`tracks.weights`: {where} is a prompt-free YOLOE (head `{name}`), whose output depends on the other "
                f"frames of a batch. Export it to ONNX, or give the YOLOE weights with prompts. {_PROMPTS}"
            )
        if not words and not last.is_fused and getattr(model, "pe", None) is None:
            raise ConfigError(f"`tracks.weights`: {where} is a YOLOE (head `{name}`) without classes. {_PROMPTS}")
    return name


def set_words(model: Any, head: str, features: TextFeatures, where: str) -> None:
    """Set the classes of an open-vocabulary network, as Ultralytics' `set_classes` does with these features.

    Args:
        model: the network, not fused yet; changed.
        head: from `head_of_network`.
        features: of the words.
        where: the file's name, for messages.

    Raises:
        ConfigError: the network's classes are fixed, or the features are of another text encoder than it knows.
    """
    last = model.model[-1]
    if head not in OPEN:
        raise ConfigError(
            f"`tracks.vocabulary`: {where} has the head `{head}`, whose classes are fixed. Give weights of YOLO-World "
            "or YOLOE (`tracks.weights`), or leave `tracks.vocabulary` out."
        )
    if head in PROMPTED and last.is_fused:
        raise ConfigError(
            f"`tracks.vocabulary`: {where} is a YOLOE whose classes were fused into it. Give the weights before that "
            "(`tracks.weights`), or leave `tracks.vocabulary` out."
        )
    wanted, file = (PROGRAM, _MOBILE) if head in PROMPTED else (CLIP, "ViT-B-32.pt of OpenAI's CLIP")
    width = last.embed if head in PROMPTED else last.cv3[0][-1].out_channels
    if features.encoder != wanted or features.vectors.shape[1] != width:
        raise ConfigError(
            f"`tracks.text_encoder`: {where} (head `{head}`) compares with vectors of {width} numbers from {file}. The "
            f"given encoder is of the kind {features.encoder}, and gives {features.vectors.shape[1]} numbers."
        )
    vectors = torch.from_numpy(features.vectors)[None]
    with torch.inference_mode(False), torch.no_grad():
        if head in PROMPTED:
            model.pe = last.get_tpe(vectors)
        else:
            model.txt_feats = vectors
    last.nc = vectors.shape[1]


def classes_of_network(model: Any) -> int | None:
    """Return how many class scores a network gives; None if it does not say."""
    last = model.model[-1]
    embedded = None
    if type(last).__name__ == "WorldDetect":
        embedded = getattr(model, "txt_feats", None)
    elif type(last).__name__ in PROMPTED and not last.is_fused:
        embedded = getattr(model, "pe", None)
    if embedded is not None:
        return int(embedded.shape[1]) if getattr(embedded, "ndim", 0) == 3 else None
    count = getattr(last, "nc", None)
    return count if isinstance(count, int) and not isinstance(count, bool) else None


@dataclass(frozen=True)
class Export:
    """What the metadata of Ultralytics' export says about an ONNX file.

    Attributes:
        task: `detect`, `segment` or `pose`.
        final: suppression is already done: rows [B, n, 6 + extra] instead of [B, 4 + nc + extra, N].
        rtdetr: rows are normalised centres and sizes: [B, n, 6], or [B, n, 4 + nc] from older packages.
        named: the head's class is in the metadata, as current packages write it.
        keypoints: numbers per row of a pose model.
        stride: of the network, pixels; None if unknown.
    """

    task: str
    final: bool
    rtdetr: bool
    named: bool
    keypoints: int
    stride: int | None


def export_of(metadata: Mapping[str, str], where: str) -> Export | None:
    """Read the metadata of an ONNX file; None if Ultralytics did not write it.

    Raises:
        ConfigError: the network gives no boxes, or its head or task is unknown.
    """
    head, task = metadata.get("head"), metadata.get("task")
    if metadata.get("author") != AUTHOR and head is None and task is None:
        return None
    if head is not None:
        check_head(head, where)
    task = "detect" if task is None else task.lower()
    if task in _NO_BOXES_TASK:
        check_head(_NO_BOXES_TASK[task], where)
    if task not in TASKS:
        raise ConfigError(
            f"`tracks.weights`: {where} was exported for the task `{task[:100]}`, which is not known here. Known: "
            f"{', '.join(sorted(TASKS))}. Export a detection model."
        )
    described = re.search(r"rt-?detr", metadata.get("description", ""), re.IGNORECASE) is not None
    stride = metadata.get("stride", "")
    shape = [int(n) for n in re.findall(r"\d{1,4}", metadata.get("kpt_shape", ""))] if task == "pose" else []
    return Export(
        task=task,
        final=_is_true(metadata.get("end2end")) or re.search(r"'nms': True", metadata.get("args", "")) is not None,
        rtdetr=head == RTDETR if head is not None else described,
        named=head is not None,
        keypoints=shape[0] * shape[1] if len(shape) == 2 else 0,
        stride=int(stride) if re.fullmatch(r"\d{1,4}", stride) else None,
    )


def _is_true(text: str | None) -> bool:
    return text is not None and text.strip().lower() == "true"
