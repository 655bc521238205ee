"""A pool of rendered, encoded and decoded training videos, created once with one thread per core."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vtcav_ray.video.mp4 import decode_mp4, encode_mp4
from vtcav_ray.world.render import ObjectTruth, render_scene
from vtcav_ray.world.rules import MOTION_ONLY
from vtcav_ray.world.scene import sample_scene

CLIP_SIDE = 64
MAX_FRAMES = 32


@dataclass(frozen=True, eq=False)
class DecodedVideo:
    """A video after the codec: frames uint8 [T, H, W, 3] RGB, with its ground truth."""

    label: str
    frames_THW3: NDArray[np.uint8]
    objects: tuple[ObjectTruth, ...]


@dataclass(frozen=True, eq=False)
class ClipPool:
    """Videos at 64 x 64: the shorter side is scaled, then the centre is cropped, as in the test pipeline.

    Attributes:
        frames_NTHW3: uint8 [N, 32, 64, 64, 3]; frames after a video's length are zero.
        lengths_N: number of frames, 16..32.
        labels_N: index into MOTION_ONLY.labels.
        paths_NT2: (x, y) of the main object's centre in each frame, px at 64 x 64; zero after a video's length.
        radii_N: half the main object's size, px at 64 x 64.
    """

    frames_NTHW3: NDArray[np.uint8]
    lengths_N: NDArray[np.int64]
    labels_N: NDArray[np.int64]
    paths_NT2: NDArray[np.float32]
    radii_N: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels_N)


def decoded_video(seed: int, index: int) -> DecodedVideo:
    """Render video `index` of world `seed`, encode it as H.264 and decode it again."""
    rendered = render_scene(sample_scene(seed, index, MOTION_ONLY.role(seed, index)))
    frames = decode_mp4(encode_mp4(rendered.frames_THW3, rendered.scene.fps))
    return DecodedVideo(rendered.scene.role.label, frames, rendered.objects)


def decoded_videos(seed: int, count: int) -> Iterator[DecodedVideo]:
    """Yield videos 0..count-1 of world `seed`, in order, made by one thread per core."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(decoded_video, itertools.repeat(seed, count), range(count))


def clip_pool(seed: int, count: int, cache: Path | None = None) -> ClipPool:
    """Return `count` videos of world `seed` at 64 x 64. If the file `cache` exists, read them from it, else write it.

    Raises:
        ValueError: the file contains other videos.
    """
    if cache is not None and cache.exists():
        with np.load(cache) as stored:
            frames, lengths, labels = stored["frames"], stored["lengths"], stored["labels"]
        expected = [MOTION_ONLY.labels.index(MOTION_ONLY.role(seed, number).label) for number in range(len(labels))]
        if len(labels) != count or not np.array_equal(labels, expected):
            raise ValueError(f"{cache} does not hold {count} videos of seed {seed}; remove it or name another file")
        return ClipPool(frames, lengths, labels, *_main_paths(seed, len(labels)))
    frames = np.zeros((count, MAX_FRAMES, CLIP_SIDE, CLIP_SIDE, 3), np.uint8)
    lengths, labels = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for number, video in enumerate(decoded_videos(seed, count)):
        lengths[number] = len(video.frames_THW3)
        labels[number] = MOTION_ONLY.labels.index(video.label)
        for t, frame in enumerate(video.frames_THW3):
            frames[number, t] = scale_and_crop(frame)
    if cache is not None:
        np.savez(cache, frames=frames, lengths=lengths, labels=labels)
    return ClipPool(frames, lengths, labels, *_main_paths(seed, count))


def _main_paths(seed: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    paths = np.zeros((count, MAX_FRAMES, 2), np.float32)
    radii = np.zeros(count, np.float32)
    for number in range(count):
        scene = sample_scene(seed, number, MOTION_ONLY.role(seed, number))
        short = min(scene.height, scene.width)
        corner = np.array([scene.width - short, scene.height - short]) / 2
        main = scene.actors[-1]
        paths[number, : scene.frames] = (main.centres_T2 - corner) * CLIP_SIDE / short
        radii[number] = main.look.size / 2 * CLIP_SIDE / short
    return paths, radii


def scale_and_crop(frame_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Scale and crop like MMAction2's Resize(scale=(-1, 64)) and CenterCrop(64): uint8 [64, 64, 3]."""
    height, width = frame_HW3.shape[:2]
    scale = CLIP_SIDE / min(height, width)
    size = (int(width * scale + 0.5), int(height * scale + 0.5))
    scaled = cv2.resize(frame_HW3, size, interpolation=cv2.INTER_LINEAR)
    left, top = (size[0] - CLIP_SIDE) // 2, (size[1] - CLIP_SIDE) // 2
    return scaled[top : top + CLIP_SIDE, left : left + CLIP_SIDE]
