"""Boxes in whole pixels, windows of one size, and the order of shuffled frames."""

from __future__ import annotations

import numpy as np


def whole_pixels(boxes: np.ndarray, frame_size: tuple[int, int]) -> np.ndarray:
    """Return int [T, 4]: the smallest whole-pixel boxes around `boxes`, in the frame, at least one pixel per side."""
    height, width = frame_size
    low = np.floor(np.asarray(boxes, np.float64)[:, :2]).astype(int)
    high = np.ceil(np.asarray(boxes, np.float64)[:, 2:]).astype(int)
    low = np.clip(low, 0, [width - 1, height - 1])
    high = np.clip(high, low + 1, [width, height])
    return np.concatenate((low, high), axis=1)


def square_windows(boxes: np.ndarray, frame_size: tuple[int, int]) -> np.ndarray:
    """Return int [T, 4]: squares of one size around each box's centre, pushed back into the frame."""
    height, width = frame_size
    side = int(np.ceil((boxes[:, 2:] - boxes[:, :2]).max()))
    side = int(np.clip(side, 1, min(height, width)))
    low = np.round((boxes[:, :2] + boxes[:, 2:]) / 2 - side / 2).astype(int)
    low = np.clip(low, 0, [width - side, height - side])
    return np.concatenate((low, low + side), axis=1)


def shuffled(length: int, seed: int) -> np.ndarray:
    """Return a permutation that runs neither forwards nor backwards in time (if the length allows it)."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(length)
    for _ in range(20):
        steps = np.diff(order)
        # |mean sign| near 0: as many steps back as forth
        if length < 4 or abs(np.sign(steps).mean()) <= 0.34:
            break
        order = rng.permutation(length)
    return order
