"""Non-maximum suppression of one frame's boxes on NumPy, equal to Ultralytics' `non_max_suppression` in every bit.

A frame has tens of candidates. Then the calls into torch cost more than the arithmetic: this takes about a tenth of the
time. The operations and their order are Ultralytics' own, in float32.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch

MOST_BOXES = 300  # kept per frame, as in `predict()`
_MOST_CANDIDATES = 30_000
_CLASS_OFFSET = 7680.0  # pixels, which separate the boxes of different classes


def suppress(
    candidates: np.ndarray,
    classes: int,
    confidence: float,
    iou: float,
    *,
    wanted: Collection[int] | None = None,
    agnostic: bool = False,
) -> np.ndarray:
    """Keep the best of overlapping boxes.

    Args:
        candidates: float32 [n, 4 + classes + extra]: xywh, class scores, and numbers to carry along.
        classes: number of class scores.
        confidence: boxes with a lower or equal score are dropped.
        iou: boxes that overlap a better one by more are dropped.
        wanted: keep only these classes.
        agnostic: boxes of different classes suppress each other, too.

    Returns:
        float32 [kept, 6 + extra], best first: xyxy, score, class, and the numbers carried along.
    """
    scores = candidates[:, 4 : 4 + classes]
    labels = scores.argmax(1)
    best = scores[np.arange(len(scores)), labels]
    chosen = best > confidence
    if wanted is not None:
        chosen &= np.isin(labels, list(wanted))
    places = np.flatnonzero(chosen)
    if len(places) > _MOST_CANDIDATES:
        places = places[_best_first(best[places])][:_MOST_CANDIDATES]
    places = places[_best_first(best[places])]
    centre, half = candidates[places, :2], candidates[places, 2:4] / 2
    with np.errstate(invalid="ignore"):  # boxes that are not finite are left out later
        boxes = np.concatenate((centre - half, centre + half), axis=1)
    labels = labels[places].astype(np.float32)
    kept = _greedy(boxes if agnostic else boxes + labels[:, None] * np.float32(_CLASS_OFFSET), iou)
    places = places[kept]
    return np.concatenate(
        (boxes[kept], best[places, None], labels[kept, None], candidates[places, 4 + classes :]), axis=1
    )


def _best_first(scores: np.ndarray) -> np.ndarray:
    """Return the order of falling scores. It is torch's, which orders equal scores in its own way."""
    return torch.from_numpy(scores).argsort(0, descending=True).numpy()


def _greedy(boxes: np.ndarray, iou: float) -> list[int]:
    """Return the places of the boxes (float32 [n, 4] xyxy, best first) that no better kept one overlaps."""
    x1, y1, x2, y2 = np.ascontiguousarray(boxes.T)
    areas = (x2 - x1) * (y2 - y1)
    left = np.arange(len(boxes))
    kept: list[int] = []
    while len(left) and len(kept) < MOST_BOXES:
        best, left = left[0], left[1:]
        kept.append(int(best))
        width = np.minimum(x2[best], x2[left]) - np.maximum(x1[best], x1[left])
        height = np.minimum(y2[best], y2[left]) - np.maximum(y1[best], y1[left])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        if shared.any():  # else two boxes without area would count as overlapping: 0 / 0
            left = left[shared / (areas[best] + areas[left] - shared) <= iou]
    return kept
