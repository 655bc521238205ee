"""Link boxes of unknown objects into tracks, by their overlap from one annotated frame to the next."""

from __future__ import annotations

import numpy as np

LEAST_OVERLAP = 0.5  # intersection over union of two boxes of one object


def link(frames_N: np.ndarray, labels_N: np.ndarray, boxes_N4: np.ndarray, reach: int) -> np.ndarray:
    """Number the objects: int64 [N], from 0, in the order in which they appear.

    From each annotated frame to the next, boxes of one label are matched so that the sum of their overlaps is largest.
    Pairs that overlap by less than `LEAST_OVERLAP` are not linked.

    Args:
        frames_N: of the boxes, in any order.
        labels_N: numbers of the labels.
        boxes_N4: xyxy.
        reach: link boxes whose frames are at most this far apart.
    """
    from scipy.optimize import linear_sum_assignment  # only detections without ids need SciPy

    objects_N = np.full(len(frames_N), -1, np.int64)
    count = 0
    before: np.ndarray = np.empty(0, np.int64)
    before_frame = 0
    order = np.argsort(frames_N, kind="stable")
    frames, starts = np.unique(frames_N[order], return_index=True)
    for frame, now in zip(frames.tolist(), np.split(order, starts[1:]), strict=True):
        if len(before) and frame - before_frame <= reach:
            overlap = _overlap(boxes_N4[before], boxes_N4[now])
            overlap[labels_N[before][:, None] != labels_N[now][None]] = 0
            rows, columns = linear_sum_assignment(-overlap)
            good = overlap[rows, columns] >= LEAST_OVERLAP
            objects_N[now[columns[good]]] = objects_N[before[rows[good]]]
        new = now[objects_N[now] < 0]
        objects_N[new] = count + np.arange(len(new))
        count += len(new)
        before, before_frame = now, frame
    return objects_N


def _overlap(a_N4: np.ndarray, b_M4: np.ndarray) -> np.ndarray:
    """Return the intersection over union of each pair of boxes: float [N, M]."""
    low = np.maximum(a_N4[:, None, :2], b_M4[None, :, :2])
    high = np.minimum(a_N4[:, None, 2:], b_M4[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a_N4, b_M4)]
    return shared / (areas[0][:, None] + areas[1][None] - shared)
