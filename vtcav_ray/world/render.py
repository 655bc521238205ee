"""Render a scene to frames and their ground truth. Pure NumPy and OpenCV, deterministic, one scene at a time."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vtcav_ray.world.scene import Actor, Backdrop, Scene
from vtcav_ray.world.sprites import Sprite, draw_sprite

MIN_VISIBLE = 0.25  # an object with a smaller visible share has no box in that frame
_NOISE_STREAM = 2


@dataclass(frozen=True, eq=False)
class ObjectTruth:
    """Ground truth of one object. Lists only frames in which at least `MIN_VISIBLE` of it is visible.

    Attributes:
        kind: cup, ball, box or hand.
        motion: up, down, left, right or none.
        frames_N: int32 frame numbers, rising.
        boxes_N4: float32 xyxy in px, clipped to the frame; parts hidden behind another object are inside the box.
        visible_N: float32, the share of the object that is in the frame and not hidden, 0..1.
    """

    object_id: int
    kind: str
    motion: str
    frames_N: NDArray[np.int32]
    boxes_N4: NDArray[np.float32]
    visible_N: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class RenderedVideo:
    """`frames_THW3` is uint8 RGB; `objects` has one entry per object of the scene, in the scene's order."""

    scene: Scene
    frames_THW3: NDArray[np.uint8]
    objects: tuple[ObjectTruth, ...]


def render_scene(scene: Scene) -> RenderedVideo:
    """Draw every frame of a scene. The same scene always gives the same bytes."""
    ground_HW3 = _draw_backdrop(scene.backdrop, scene.height, scene.width)
    light_HW1 = _light(scene)
    sprites = [draw_sprite(actor.look, scene.light_deg) for actor in scene.actors]
    rng = np.random.default_rng(np.random.SeedSequence([scene.seed, scene.index, _NOISE_STREAM]))
    frames_THW3 = np.empty((scene.frames, scene.height, scene.width, 3), np.uint8)
    visible_AT = np.zeros((len(scene.actors), scene.frames), np.float32)
    areas_A = np.array([max(1, int((sprite.cover_SS > 0.5).sum())) for sprite in sprites])
    # Still objects at the back are the same in every frame: draw them once.
    first_moving = next((n for n, actor in enumerate(scene.actors) if actor.moving), len(scene.actors))
    ground_owner = np.full((scene.height, scene.width), -1, np.int8)
    for number in range(first_moving):
        _place(ground_HW3, ground_owner, number, sprites[number], scene.actors[number].centres_T2[0])
    for t in range(scene.frames):
        frame, owner = ground_HW3.copy(), ground_owner.copy()
        for number in range(first_moving, len(scene.actors)):
            _place(frame, owner, number, sprites[number], scene.actors[number].centres_T2[t])
        visible_AT[:, t] = np.bincount(owner.ravel() + 1, minlength=len(sprites) + 1)[1:] / areas_A
        frame *= light_HW1
        frame += scene.noise_sd * rng.standard_normal(frame.shape, np.float32)
        frames_THW3[t] = np.clip(frame, 0, 255, out=frame)
    objects = tuple(
        _truth(number, actor, sprite, visible_AT[number], scene)
        for number, (actor, sprite) in enumerate(zip(scene.actors, sprites, strict=True))
    )
    return RenderedVideo(scene, frames_THW3, objects)


def _place(
    frame_HW3: NDArray[np.float32],
    owner_HW: NDArray[np.int8],
    number: int,
    sprite: Sprite,
    centre: NDArray[np.float32],
) -> None:
    """Draw a sprite with the centre of its box at `centre`, with subpixel precision."""
    x1, y1, x2, y2 = sprite.box
    left, top = float(centre[0]) - (x1 + x2) / 2, float(centre[1]) - (y1 + y2) / 2
    column, row = int(np.floor(left)), int(np.floor(top))
    shift = np.array([[1, 0, left - column], [0, 1, top - row]], np.float32)
    side = sprite.cover_SS.shape[0] + 1
    colour = cv2.warpAffine(sprite.colour_SS3, shift, (side, side), flags=cv2.INTER_LINEAR)
    cover = cv2.warpAffine(sprite.cover_SS, shift, (side, side), flags=cv2.INTER_LINEAR)
    height, width = owner_HW.shape
    top_in, left_in = max(0, row), max(0, column)
    bottom_in, right_in = min(height, row + side), min(width, column + side)
    if top_in >= bottom_in or left_in >= right_in:
        return
    inside = (slice(top_in - row, bottom_in - row), slice(left_in - column, right_in - column))
    there = (slice(top_in, bottom_in), slice(left_in, right_in))
    frame_HW3[there] = frame_HW3[there] * (1 - cover[inside][..., None]) + colour[inside]
    owner_HW[there][cover[inside] > 0.5] = number


def _truth(number: int, actor: Actor, sprite: Sprite, visible_T: NDArray[np.float32], scene: Scene) -> ObjectTruth:
    x1, y1, x2, y2 = sprite.box
    half = np.array([(x2 - x1) / 2, (y2 - y1) / 2], np.float32)
    boxes_T4 = np.concatenate([actor.centres_T2 - half, actor.centres_T2 + half], axis=1)
    edges = np.array([scene.width, scene.height, scene.width, scene.height], np.float32)
    boxes_T4 = np.clip(boxes_T4, 0, edges).astype(np.float32)
    frames_N = np.nonzero(visible_T >= MIN_VISIBLE)[0].astype(np.int32)
    return ObjectTruth(
        object_id=number,
        kind=actor.look.kind,
        motion=actor.motion,
        frames_N=frames_N,
        boxes_N4=boxes_T4[frames_N],
        visible_N=np.minimum(visible_T[frames_N], 1.0),
    )


def _draw_backdrop(backdrop: Backdrop, height: int, width: int) -> NDArray[np.float32]:
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / min(height, width)
    angle = np.deg2rad(backdrop.angle_deg)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    turns = np.pi * backdrop.cells
    if backdrop.kind == "noise":
        cells = int(backdrop.cells) + 2
        grain = np.random.default_rng(backdrop.seed).random((cells, cells), np.float32)
        mix = np.clip(cv2.resize(grain, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)
    elif backdrop.kind == "gradient":
        mix = (along - along.min()) / (along.max() - along.min())
    elif backdrop.kind == "stripes":
        mix = 0.5 + 0.5 * np.sin(turns * along)
    elif backdrop.kind == "checks":
        mix = (np.sin(turns * along) * np.sin(turns * across) > 0).astype(np.float32)
    else:
        mix = np.zeros_like(x)
    first = np.array(backdrop.colour, np.float32)
    second = np.array(backdrop.second_colour, np.float32)
    return (first + mix[..., None] * (second - first)).astype(np.float32)


def _light(scene: Scene) -> NDArray[np.float32]:
    y, x = np.mgrid[0 : scene.height, 0 : scene.width].astype(np.float32)
    angle = np.deg2rad(scene.light_deg)
    towards = (x / scene.width - 0.5) * np.cos(angle) + (y / scene.height - 0.5) * np.sin(angle)
    return (1 + 0.5 * scene.light_strength * towards)[..., None].astype(np.float32)
