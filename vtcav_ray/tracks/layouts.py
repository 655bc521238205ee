"""The output of a detector's network, in its many layouts, as rows of two kinds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from vtcav_ray.tracks.heads import Export

_BOXES_AT_ONCE = 16  # whose masks are held at a time


class UnknownLayout(ValueError):
    """The output has another shape than the file says. The message is a clause."""


@dataclass(frozen=True)
class Rows:
    """The network's output for one frame, on the CPU.

    Attributes:
        detections: float32 [4 + nc + extra, n] (xywh, class scores, and what else there is, in letterboxed pixels)
            before suppression, or [n, 6 + extra] (xyxy, confidence, class, ...) if `final`.
        final: whether suppression is already done.
        prototypes: float32 [extra, h, w] of a segmentation model, whose mask is a weighted sum of these.
    """

    detections: torch.Tensor
    final: bool
    prototypes: torch.Tensor | None = None


def rows_of_network(
    output: object, classes: int, confidence: float, size: Sequence[int], *, final: bool, rtdetr: bool
) -> list[Rows]:
    """Split the output of an Ultralytics network (.pt) by frame. Boxes below the confidence are left out.

    Args:
        output: what the network returns in eval mode: (y, raw) or, with masks, ((y, prototypes), raw).
        size: (height, width) of the input.

    Raises:
        UnknownLayout: the output is something else.
    """
    first = output[0] if isinstance(output, tuple | list) else output
    prototypes = None
    if isinstance(first, tuple | list):
        first, prototypes = first[0], first[1]
    if not isinstance(first, torch.Tensor) or first.ndim != 3:
        raise UnknownLayout("it returns no rows of boxes")
    if rtdetr:
        return _rtdetr_rows(first, classes, confidence, size, old=False)
    if final:
        return _final_rows(first, confidence, prototypes)
    if first.shape[1] < 4 + classes:
        raise UnknownLayout(f"output of shape {list(first.shape)} with {classes} class names")
    return list(_candidates(first, classes, confidence, prototypes))


def rows_of_export(
    outputs: Sequence[torch.Tensor], export: Export, classes: int, confidence: float, size: Sequence[int]
) -> list[Rows]:
    """Split the outputs of Ultralytics' own ONNX export by frame.

    Raises:
        UnknownLayout: they are not what the metadata says.
    """
    y = outputs[0]
    prototypes = outputs[1] if export.task == "segment" and len(outputs) > 1 else None
    extra = export.keypoints if prototypes is None else prototypes.shape[1]
    if y.ndim != 3:
        raise UnknownLayout(f"output of shape {list(y.shape)}")
    if not export.named and export.task == "detect" and not export.final and y.shape[2] == 4 + classes != y.shape[1]:
        return _rtdetr_rows(y, classes, confidence, size, old=True)  # as RT-DETR was exported up to 8.4
    if export.rtdetr and y.shape[2] == 6:
        return _rtdetr_rows(y, classes, confidence, size, old=False)
    if not export.rtdetr and not export.final and y.shape[1] == 4 + classes + extra:
        return list(_candidates(y, classes, confidence, prototypes))
    # Exports of YOLOv10 before there was the key `end2end`.
    if not export.rtdetr and (export.final or not export.named) and y.shape[2] == 6 + extra:
        return _final_rows(y, confidence, prototypes)
    wanted = "[B, n, 6]" if export.rtdetr or export.final else f"[B, {4 + classes + extra}, N]"
    raise UnknownLayout(f"output of shape {list(y.shape)} with {classes} class names; {wanted} is expected")


def rows_of_unknown(y: torch.Tensor, classes: int, count: int, confidence: float, *, sixes: bool) -> list[Rows]:
    """Split the output of any other ONNX export by frame, known by its shape alone.

    Args:
        count: frames in the batch.
        sixes: [B, n, 6] are boxes, and not YOLOv7's rows with one class.

    Raises:
        UnknownLayout: the shape is none of a YOLOv8, a YOLOv7 or an end-to-end detector.
    """
    if y.ndim == 2 and y.shape[1] == 7:  # (image, x1, y1, x2, y2, class, score): YOLOv7 with built-in suppression
        y = y[y[:, 6] > confidence]
        return [Rows(y[y[:, 0] == i][:, [1, 2, 3, 4, 6, 5]], True) for i in range(count)]
    if y.ndim == 3 and y.shape[1] == 4 + classes:
        return list(_candidates(y, classes, confidence))
    boxes = y.ndim == 3 and y.shape[2] == 6 and sixes
    if y.ndim == 3 and y.shape[2] == 5 + classes and not boxes:  # YOLOv7 and v5: xywh, objectness, class scores
        y = torch.cat((y[..., :4], y[..., 5:] * y[..., 4:5]), dim=2).transpose(1, 2)
        return list(_candidates(y, classes, confidence))
    if y.ndim == 3 and y.shape[2] == 6:
        return _final_rows(y, confidence, None)
    raise UnknownLayout(
        f"output of shape {list(y.shape)} with {classes} class names is not a known layout: "
        f"[B, {4 + classes}, N], [B, N, {5 + classes}], [n, 7] or [B, n, 6]"
    )


def with_mask(kept: torch.Tensor, prototypes: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Keep the boxes whose mask has a pixel, as Ultralytics' `predict()` does.

    Args:
        kept: float32 [n, 6 + extra], after suppression, in letterboxed pixels.
        prototypes: float32 [extra, h, w].
        size: (height, width) of the input.
    """
    from ultralytics.utils.ops import process_mask

    some = [
        process_mask(prototypes, part[:, 6:], part[:, :4], tuple(size), upsample=True).amax((-2, -1)) > 0
        for part in torch.split(kept, _BOXES_AT_ONCE)
        if len(part)
    ]
    return kept[torch.cat(some)] if some else kept


def _candidates(
    prediction: torch.Tensor, classes: int, confidence: float, prototypes: torch.Tensor | None = None
) -> Iterator[Rows]:
    """Split [B, 4+nc(+extra), N] by frame and keep boxes above the confidence, so that little leaves the device."""
    if prototypes is None:
        prediction = prediction[:, : 4 + classes]
    keep = prediction[:, 4 : 4 + classes].amax(1) > confidence
    frame, box = keep.nonzero(as_tuple=True)
    kept = prediction.transpose(1, 2)[frame, box].float().cpu()
    for i, part in enumerate(torch.split(kept, keep.sum(1).tolist())):
        yield Rows(part.T, False, None if prototypes is None else prototypes[i].float().cpu())


def _final_rows(y: torch.Tensor, confidence: float, prototypes: torch.Tensor | None) -> list[Rows]:
    """Split [B, n, 6 + extra] by frame."""
    columns = y.shape[2] if prototypes is not None else 6
    return [
        Rows(
            rows[rows[:, 4] > confidence].float().cpu()[:, :columns],
            True,
            None if prototypes is None else prototypes[i].float().cpu(),
        )
        for i, rows in enumerate(y)
    ]


def _rtdetr_rows(y: torch.Tensor, classes: int, confidence: float, size: Sequence[int], *, old: bool) -> list[Rows]:
    """Split RT-DETR's rows by frame: normalised centre and size, then confidence and class, or `old`: class scores."""
    columns = 4 + classes if old else 6
    if y.shape[2] != columns:
        raise UnknownLayout(f"output of shape {list(y.shape)}; [B, n, {columns}] is expected of RT-DETR")
    y = y.float().cpu()
    if old:
        score, label = y[..., 4:].max(-1, keepdim=True)
        y = torch.cat((y[..., :4], score, label.float()), -1)
    height, width = size
    centre, half = y[..., :2], y[..., 2:4] / 2
    boxes = torch.cat((centre - half, centre + half), -1) * torch.tensor([width, height, width, height])
    y = torch.cat((boxes, y[..., 4:]), -1)
    return [Rows(rows[rows[:, 4] > confidence], True) for rows in y]
