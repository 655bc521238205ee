"""Measures of a clip's maps. All maps are float `[T, h, w]`, not negative, one per frame.

Each frame's map is divided by its sum and treated as a distribution, so neither a layer's scale nor a normalisation by
the largest value matters. A frame whose map is zero everywhere has no distribution and is left out. If no frame is
left, a measure is NaN.
"""

from __future__ import annotations

import cv2
import numpy as np

ALIGNED_SIDE = 36  # pixels of an aligned map
ALIGNED_REACH = 1.5  # box sides from the centre of the box to the edge of an aligned map


def flicker(maps_Thw: np.ndarray) -> float:
    """Return the mean total variation distance between the maps of neighbouring frames, in [0, 1].

    It is the share of a map's mass that has to move to give the next frame's map. 0: the maps are equal; 1: they share
    no pixel.
    """
    shares, usable = _distributions(maps_Thw)
    pairs = usable[1:] & usable[:-1]
    if not pairs.any():
        return float("nan")
    return float(0.5 * np.abs(np.diff(shares, axis=0)).sum((1, 2))[pairs].mean())


def centres(maps_Thw: np.ndarray) -> np.ndarray:
    """Return each map's centre of mass: `[T, 2]`, (x, y) in fractions of the frame, y down; NaN: no mass."""
    shares, usable = _distributions(maps_Thw)
    _, height, width = maps_Thw.shape
    x = shares.sum(1) @ ((np.arange(width) + 0.5) / width)
    y = shares.sum(2) @ ((np.arange(height) + 0.5) / height)
    return np.where(usable[:, None], np.stack((x, y), 1), np.nan)


def jump(maps_Thw: np.ndarray) -> float:
    """Return the mean distance that the centre of mass moves between frames, in fractions of the frame."""
    steps = np.linalg.norm(np.diff(centres(maps_Thw), axis=0), axis=1)
    steps = steps[~np.isnan(steps)]
    return float(steps.mean()) if len(steps) else float("nan")


def drift(maps_Thw: np.ndarray) -> tuple[float, float]:
    """Return how far the centre of mass moves from first to last frame, (x, y) in fractions of the frame, y down.

    This is the slope of a least-squares line through the centres, times T - 1. Moving there and back gives about 0.
    """
    at = centres(maps_Thw)
    usable = ~np.isnan(at[:, 0])
    time = np.flatnonzero(usable).astype(float)
    if len(time) < 2:
        return float("nan"), float("nan")
    time -= time.mean()
    slope = (time[:, None] * (at[usable] - at[usable].mean(0))).sum(0) / (time**2).sum()
    return float(slope[0] * (len(at) - 1)), float(slope[1] * (len(at) - 1))


def similarity(a_Thw: np.ndarray, b_Thw: np.ndarray) -> float:
    """Return the Pearson correlation of two clips' maps over all frames and pixels, in [-1, 1]; NaN: one is constant.

    The cosine would not do: it is large even for unrelated maps, since they are nowhere negative.
    """
    a = a_Thw.astype(np.float64) - a_Thw.mean(dtype=np.float64)
    b = b_Thw.astype(np.float64) - b_Thw.mean(dtype=np.float64)
    lengths = np.sqrt((a * a).sum() * (b * b).sum())
    # The deviations of a constant map are rounding errors.
    floor = 1e-12 * a.size * max(float(np.abs(a_Thw).max()), 1e-30) * max(float(np.abs(b_Thw).max()), 1e-30)
    return float((a * b).sum() / lengths) if lengths > floor else float("nan")


def background_share(maps_Thw: np.ndarray, inside_Thw: np.ndarray) -> float:
    """Return the share of the clip's map mass outside the boxes, in [0, 1]. `inside_Thw`: 1 inside a box, 0 outside."""
    total = maps_Thw.sum(dtype=np.float64)
    return float((maps_Thw * (1 - inside_Thw)).sum(dtype=np.float64) / total) if total > 0 else float("nan")


def inside_share(maps_Thw: np.ndarray, inside_1hw: np.ndarray) -> float:
    """Return the share of the clip's map mass inside a mask, in [0, 1]; NaN: the map has no mass."""
    total = maps_Thw.sum(dtype=np.float64)
    return float((maps_Thw * inside_1hw).sum(dtype=np.float64) / total) if total > 0 else float("nan")


def empty_share(maps_Thw: np.ndarray) -> float:
    """Return the share of frames whose map is zero everywhere: Grad-CAM shows no evidence for the class."""
    return float((maps_Thw.max((1, 2)) <= 0).mean())


def aligned(maps_Thw: np.ndarray, boxes_T4: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum the clip's maps over frames in the coordinates of its box, and count the frames that show each place.

    The box is the middle third of the square. Its surroundings are included up to the edge of the frame. All frames
    have equal weight. The unit is a uniform map: a map without any preference for a place is 1 everywhere.

    Args:
        maps_Thw: maps on the model's input.
        boxes_T4: xyxy, in pixels of the same input; NaN: no box in this frame.

    Returns:
        (sum, count), both float64 `[S, S]`, S = ALIGNED_SIDE.
    """
    total, seen = np.zeros((ALIGNED_SIDE, ALIGNED_SIDE)), np.zeros((ALIGNED_SIDE, ALIGNED_SIDE))
    _, height, width = maps_Thw.shape
    offset = ((np.arange(ALIGNED_SIDE) + 0.5) / ALIGNED_SIDE - 0.5) * 2 * ALIGNED_REACH  # box sides from its centre
    for frame, (x1, y1, x2, y2) in zip(maps_Thw, boxes_T4, strict=True):
        mean = frame.mean()
        if not np.isfinite(x1) or mean <= 0 or x2 <= x1 or y2 <= y1:
            continue
        x = (x1 + x2) / 2 + offset * (x2 - x1)
        y = (y1 + y2) / 2 + offset * (y2 - y1)
        inside = ((y >= 0) & (y <= height))[:, None] & ((x >= 0) & (x <= width))[None]
        # OpenCV puts pixel centres at whole numbers.
        grid_x, grid_y = np.meshgrid((x - 0.5).astype(np.float32), (y - 0.5).astype(np.float32))
        taken = cv2.remap(frame.astype(np.float32), grid_x, grid_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        total += np.where(inside, taken / mean, 0.0)
        seen += inside
    return total, seen


def _distributions(maps_Thw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mass = maps_Thw.sum((1, 2), dtype=np.float64)
    usable = mass > 0
    return maps_Thw / np.where(usable, mass, 1.0)[:, None, None], usable
