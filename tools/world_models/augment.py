"""Training clips for the recogniser: cropped, rotated and recoloured so that only the motion shows the class."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.world_models.pool import CLIP_SIDE, ClipPool
from vtcav_ray.world.rules import DIRECTIONS, MOTION_OF_LABEL, MOTION_ONLY

CLIP_FRAMES = 16
STILL = len(MOTION_ONLY.labels)
UNSURE = -100  # ignored by PyTorch's cross-entropy
_CELL = 8  # px at 64 x 64, the tokens of the recogniser's second stage
_DIRECTION_OF_CLASS = [DIRECTIONS[MOTION_OF_LABEL[label]] for label in MOTION_ONLY.labels]
_BORDERS = (cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE)  # a mirrored object would move the opposite way


@dataclass(frozen=True)
class Augmentation:
    """How often clips are changed.

    Attributes:
        zoom: share of clips that are scaled and shifted, with black or stretched borders.
        frozen: share of clips that repeat one frame, with the same target for every class. Without them the model could
            use the object's position in the first frame, which is slightly correlated with the class.
    """

    zoom: float
    frozen: float


def sample_batch(
    pool: ClipPool, size: int, augmentation: Augmentation, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
    """Sample clips uint8 [B, 3, 16, 64, 64], targets float32 [B, 4] (rows sum to 1), and motion maps.

    A motion map int64 [B, 8, 8, 8] gives the class of the motion in each 2 frames x 8 px x 8 px: STILL if nothing
    moves, UNSURE if the object hardly moves.
    """
    clips, targets, maps = [], [], []
    for number in rng.integers(len(pool), size=size):
        clip_THW3, label, map_THW = _sample_clip(pool, int(number), augmentation.zoom, rng)
        target = np.zeros(STILL, np.float32)
        target[label] = 1
        if rng.random() < augmentation.frozen:
            clip_THW3 = np.repeat(clip_THW3[rng.integers(CLIP_FRAMES)][None], CLIP_FRAMES, 0)
            target[:] = 1 / STILL
            map_THW = np.full_like(map_THW, STILL)
        clips.append(_recolour(clip_THW3, rng).transpose(3, 0, 1, 2))
        targets.append(target)
        maps.append(map_THW)
    return np.stack(clips), np.stack(targets), np.stack(maps)


def centre_clips(pool: ClipPool) -> NDArray[np.uint8]:
    """Return the clips that the test pipeline uses (the middle 16 frames): uint8 [N, 3, 16, 64, 64]."""
    starts = (pool.lengths_N - CLIP_FRAMES) // 2
    clips = [frames[s : s + CLIP_FRAMES] for frames, s in zip(pool.frames_NTHW3, starts, strict=True)]
    return np.stack(clips).transpose(0, 4, 1, 2, 3)


def _sample_clip(
    pool: ClipPool, number: int, zoom: float, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], int, NDArray[np.int64]]:
    start = rng.integers(pool.lengths_N[number] - CLIP_FRAMES + 1)
    clip = pool.frames_NTHW3[number, start : start + CLIP_FRAMES]
    path = pool.paths_NT2[number, start : start + CLIP_FRAMES]
    radius = float(pool.radii_N[number])
    if rng.random() < zoom:
        clip, path, scale = _zoom(clip, path, rng)
        radius *= scale
    x, y = _DIRECTION_OF_CLASS[pool.labels_N[number]]
    # The eight symmetries of the square, and time reversal: each changes the class in a known way.
    if rng.random() < 0.5:
        clip, path, x, y = clip[::-1], path[::-1], -x, -y
    if rng.random() < 0.5:
        clip, path, x = clip[:, :, ::-1], _mirrored(path, 0), -x
    if rng.random() < 0.5:
        clip, path, y = clip[:, ::-1], _mirrored(path, 1), -y
    if rng.random() < 0.5:
        clip, path, x, y = clip.transpose(0, 2, 1, 3), path[:, ::-1], y, x
    label = _DIRECTION_OF_CLASS.index((x, y))
    return clip, label, _motion_map(path, radius, label)


def _mirrored(path_T2: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    mirrored = path_T2.copy()
    mirrored[:, axis] = CLIP_SIDE - mirrored[:, axis]
    return mirrored


def _motion_map(path_T2: NDArray[np.float32], radius: float, label: int) -> NDArray[np.int64]:
    pairs = path_T2.reshape(-1, 2, 2)
    speed = np.linalg.norm(pairs[:, 1] - pairs[:, 0], axis=1)
    grid = np.arange(_CELL / 2, CLIP_SIDE, _CELL)
    away = np.abs(np.stack(np.meshgrid(grid, grid), axis=-1)[None] - pairs.mean(1)[:, None, None])
    near = (away < radius + 1).all(-1)
    here = np.where(speed > 0.5, label, UNSURE)[:, None, None]
    return np.where(near, here, STILL).astype(np.int64)


def _zoom(
    clip_THW3: NDArray[np.uint8], path_T2: NDArray[np.float32], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32], float]:
    scale = float(np.exp(rng.uniform(np.log(0.7), np.log(1.6))))
    target = rng.uniform(0.25 * CLIP_SIDE, 0.75 * CLIP_SIDE, 2)
    shift = target - scale * (path_T2[0] + path_T2[-1]) / 2
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], np.float64)
    border = _BORDERS[rng.integers(len(_BORDERS))]
    size = (CLIP_SIDE, CLIP_SIDE)
    zoomed = np.stack(
        [cv2.warpAffine(frame, matrix, size, flags=cv2.INTER_LINEAR, borderMode=border) for frame in clip_THW3]
    )
    return zoomed, scale * path_T2 + shift, scale


def _recolour(clip_THW3: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    gain, offset = rng.uniform(0.75, 1.25), rng.uniform(-20, 20)
    changed = clip_THW3[..., rng.permutation(3)].astype(np.float32) * gain + offset
    return np.clip(changed, 0, 255).astype(np.uint8)
