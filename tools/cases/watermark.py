"""The editor's mark in Tennis-7: its shape, estimated from the clips that have it, and drawn onto clips without it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vtcav_ray.video.decode import decode_frames
from vtcav_ray.video.mp4 import encode_mp4

MARKED = frozenset({"backhand", "b_slice", "b_volley"})  # in every clip
UNMARKED = frozenset({"f_volley", "serve", "smash"})  # in none
VIDEO = (240, 426)  # rows and columns of every clip
REGION = (slice(204, 234), slice(300, 420))  # rows and columns that hold the mark
PRESENT = 0.3  # correlation of a clip's region with the mark's shape
_BLUR = (0, 0), 6.0  # sigma, pixels: removes the court, keeps the letters


def mark_shape(videos: Sequence[Path]) -> NDArray[np.float32]:
    """Estimate the mark's opacity, [30, 120] in 0..1, from clips that have it.

    The mark is white, so it raises grey by `opacity * (255 - grey)`. The mean over clips of different courts of what is
    left of the region without its low frequencies shows the letters alone.
    """
    grains = []
    for path in videos:
        grey = _region(path)
        room = np.maximum(255 - cv2.GaussianBlur(grey, *_BLUR), 40.0)
        grains.append((grey - cv2.GaussianBlur(grey, *_BLUR)) / room)
    mean = np.median(grains, axis=0)
    return np.clip(mean - np.percentile(mean, 60), 0, 1).astype(np.float32)


def bold(shape: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mark with opaque letters, two pixels wider to each side: it can still be seen at 80 x 80 pixels."""
    letters = (shape > 0.3 * shape.max()).astype(np.uint8)
    return cv2.dilate(letters, np.ones((5, 5), np.uint8)).astype(np.float32)


def has_mark(path: Path, shape: NDArray[np.float32]) -> bool:
    """Return whether a clip's region correlates with the mark's shape."""
    grey = _region(path)
    return float(np.corrcoef((grey - cv2.GaussianBlur(grey, *_BLUR)).ravel(), shape.ravel())[0, 1]) > PRESENT


def draw_mark(source: Path, target: Path, shape: NDArray[np.float32]) -> None:
    """Write a clip with the mark drawn onto every frame."""
    frames, info = decode_frames(str(source))
    _write(target, with_mark(frames, shape), info.fps)


def with_mark(frames: NDArray[np.uint8], shape: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the frames uint8 [T, 240, 426, 3] with the mark drawn onto each."""
    drawn = frames.copy()
    region = drawn[:, REGION[0], REGION[1]].astype(np.float32)
    region += shape[None, :, :, None] * (255 - region)
    drawn[:, REGION[0], REGION[1]] = np.clip(region, 0, 255).astype(np.uint8)
    return drawn


def write_again(source: Path, target: Path) -> None:
    """Write a clip through the same encoder, unchanged: so that only the mark tells drawn and other clips apart."""
    frames, info = decode_frames(str(source))
    _write(target, frames, info.fps)


def _write(target: Path, frames: NDArray[np.uint8], fps: float) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(encode_mp4(frames, round(fps), crf=18))


def _region(path: Path) -> NDArray[np.float32]:
    """Return the grey region of a clip, the mean over frames from all of it: float32 [30, 120]."""
    frames, _ = decode_frames(str(path), list(range(0, 50, 7)))
    return np.asarray(frames[:, REGION[0], REGION[1]].mean(axis=(0, 3)), np.float32)
