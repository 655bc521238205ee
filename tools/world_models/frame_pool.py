"""Single frames with boxes for the detector, taken from rendered videos, and their augmentation."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vtcav_ray.video.mp4 import decode_mp4, encode_mp4
from vtcav_ray.world.render import render_scene
from vtcav_ray.world.rules import KINDS, MOTION_ONLY
from vtcav_ray.world.scene import sample_scene

IMAGE_SIDE = 128
_GREY = 114  # the border colour of Ultralytics' letterbox
_RAW_SHARE = 0.2  # of the videos, which bypass the codec
_KEPT_AREA = 0.25  # a box is dropped if augmentation leaves less than this share of it


@dataclass(frozen=True, eq=False)
class LabelledFrame:
    """A frame uint8 [H, W, 3] RGB with its boxes float32 [N, 4] (xyxy px) and kinds int64 [N]."""

    image_HW3: NDArray[np.uint8]
    boxes_N4: NDArray[np.float32]
    kinds_N: NDArray[np.int64]


def labelled_frames(seed: int, videos: int, per_video: int, crf: int | None = None) -> list[LabelledFrame]:
    """Return `per_video` frames of each of `videos` videos of world `seed`.

    `crf` is the encoder's quality. None draws it for each video from 18 to 30, and leaves a fifth of the videos
    unencoded.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(lambda index: _frames_of(seed, index, per_video, crf), range(videos))
        return [frame for frames in found for frame in frames]


def _frames_of(seed: int, index: int, per_video: int, crf: int | None) -> list[LabelledFrame]:
    rendered = render_scene(sample_scene(seed, index, MOTION_ONLY.role(seed, index)))
    rng = np.random.default_rng([seed, index, 77])
    frames = rendered.frames_THW3
    if crf is not None or rng.random() >= _RAW_SHARE:
        quality = int(rng.integers(18, 31)) if crf is None else crf
        frames = decode_mp4(encode_mp4(frames, rendered.scene.fps, crf=quality))
    chosen = []
    for t in rng.choice(len(frames), size=min(per_video, len(frames)), replace=False):
        boxes, kinds = [], []
        for thing in rendered.objects:
            for box in thing.boxes_N4[thing.frames_N == t]:
                boxes.append(box)
                kinds.append(KINDS.index(thing.kind))
        chosen.append(
            LabelledFrame(frames[t].copy(), np.array(boxes, np.float32).reshape(-1, 4), np.array(kinds, np.int64))
        )
    return chosen


def letterbox(frame: LabelledFrame) -> LabelledFrame:
    """Scale the longer side to 128 and pad to 128 x 128 with grey, with the picture in the centre."""
    height, width = frame.image_HW3.shape[:2]
    scale = IMAGE_SIDE / max(height, width)
    shift = (np.array([IMAGE_SIDE, IMAGE_SIDE]) - scale * np.array([width, height])) / 2
    return _move(frame, scale, shift)


def augment(frame: LabelledFrame, rng: np.random.Generator) -> LabelledFrame:
    """Scale, shift, mirror and recolour a frame at random, letterboxed to 128 x 128."""
    height, width = frame.image_HW3.shape[:2]
    scale = IMAGE_SIDE / max(height, width) * float(np.exp(rng.uniform(np.log(0.75), np.log(1.3))))
    middle = (np.array([IMAGE_SIDE, IMAGE_SIDE]) - scale * np.array([width, height])) / 2
    moved = _move(frame, scale, middle + rng.uniform(-16, 16, 2))
    image, boxes = moved.image_HW3, moved.boxes_N4
    if rng.random() < 0.5:
        image, boxes = image[:, ::-1], boxes.copy()
        boxes[:, [0, 2]] = IMAGE_SIDE - boxes[:, [2, 0]]
    changed = image[..., rng.permutation(3)] * rng.uniform(0.75, 1.25) + rng.uniform(-20, 20)
    return LabelledFrame(np.clip(changed, 0, 255).astype(np.uint8), boxes, moved.kinds_N)


def _move(frame: LabelledFrame, scale: float, shift: NDArray[np.float64]) -> LabelledFrame:
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], np.float64)
    # warpAffine maps pixel centres, not corners: a shift by half a pixel keeps boxes and picture aligned.
    matrix[:, 2] += 0.5 * scale - 0.5
    image = cv2.warpAffine(
        frame.image_HW3,
        matrix,
        (IMAGE_SIDE, IMAGE_SIDE),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(_GREY, _GREY, _GREY),
    )
    boxes = frame.boxes_N4 * scale + np.tile(shift, 2)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    boxes = np.clip(boxes, 0, IMAGE_SIDE).astype(np.float32)
    kept = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) >= _KEPT_AREA * areas
    return LabelledFrame(np.asarray(image, np.uint8), boxes[kept], frame.kinds_N[kept])
