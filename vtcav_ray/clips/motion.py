"""Describe in words how an object moves, from its boxes: direction, speed and shape of its path.

Positions are box centres plus the camera's shift, so a panning camera does not make everything move. The unit of length
is the frame's short side, so the words mean the same for every video size.

- direction: `left`, `right`, `up`, `down` by the larger component of the net displacement; `towards` and `away` if the
  box grows or shrinks by at least a quarter and this moves its sides further than the net displacement does; `still` if
  it has no net displacement and does not move around; `mixed` if it moves and comes back, or has no direction for
  another reason.
- speed: length of the smoothed path over time, short sides per second.
- path: `straight`, `curved` or `back_and_forth`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vtcav_ray.config import MotionConfig
from vtcav_ray.video.sample import FALLBACK_FPS

STILL = 0.04  # net displacement in short sides; a smaller one is none
GROWTH = math.log(1.25)
_NET_SHARE = 0.35  # of the path; a net displacement below this has no direction
_STRAIGHT = 0.85
_FLAT = 0.25  # minor over major axis of the path
_BORDER = 1.5  # pixels: a box this close to the frame's edge is cut off, and its size is not used


@dataclass(frozen=True, slots=True)
class Motion:
    """The motion of a track over some frames.

    Attributes:
        direction: left, right, up, down, towards, away, still or mixed.
        speed: short sides per second.
        path: straight, curved or back_and_forth.
        net: (x, y) net displacement, short sides; y points down.
        growth: log of the ratio of the box's side at the end to that at the start.
        clarity: share of the movement that is in the direction, in [0, 1].
    """

    direction: str
    speed: float
    path: str
    net: tuple[float, float]
    growth: float
    clarity: float


def describe_motion(
    boxes: np.ndarray, frames: np.ndarray, fps: float, height: int, width: int, camera: np.ndarray | None = None
) -> Motion:
    """Describe the motion of one object.

    Args:
        boxes: [T, 4] xyxy, source pixels.
        frames: [T] source frame of each box, rising. If the frame rate varies: its time in units of 1 / fps.
        fps: frames per second. If it is 0 or not a number, `FALLBACK_FPS` (25) is used; speeds are then only
            comparable with each other.
        height, width: of the source frame, pixels.
        camera: [T, 2] (x, y) shift of the camera, pixels, relative to any origin; None: a still camera.
    """
    boxes, frames = np.asarray(boxes, np.float64), np.asarray(frames, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or len(frames) != len(boxes) or not len(boxes):
        raise ValueError(f"boxes {boxes.shape} and frames {frames.shape} don't belong together")
    shift = np.zeros((len(boxes), 2)) if camera is None else np.asarray(camera, np.float64)
    rate, tall, wide = (np.array([number], np.float64) for number in (fps, height, width))
    return describe_motions(boxes[None], frames[None], rate, tall, wide, shift[None])[0]


def describe_motions(
    boxes_ST4: np.ndarray,
    frames_ST: np.ndarray,
    fps_S: np.ndarray,
    height_S: np.ndarray,
    width_S: np.ndarray,
    camera_ST2: np.ndarray,
) -> list[Motion]:
    """Apply `describe_motion` to S spans of equal length at once (S: spans, T: frames)."""
    spans, length_T = frames_ST.shape
    short_S = np.minimum(height_S, width_S).astype(np.float64)
    rate_S = np.where(np.isfinite(fps_S) & (fps_S > 0), fps_S, FALLBACK_FPS)
    if length_T == 1:
        return [Motion("still", 0.0, "straight", (0.0, 0.0), 0.0, 1.0)] * spans
    duration_S = frames_ST[:, -1] - frames_ST[:, 0]
    t_ST = frames_ST - frames_ST.mean(1, keepdims=True)
    at_ST2 = ((boxes_ST4[..., :2] + boxes_ST4[..., 2:]) / 2 + camera_ST2) / short_S[:, None, None]
    # Least squares: one bad box changes the net displacement little.
    slope_S2 = (t_ST[..., None] * (at_ST2 - at_ST2.mean(1, keepdims=True))).sum(1) / (t_ST**2).sum(1)[:, None]
    net_S2 = slope_S2 * duration_S[:, None]
    path_SP2 = _smooth(at_ST2)
    # Over x and y, here and below, arithmetic on the two columns is several times as fast as a reduction.
    step_SP2 = path_SP2[:, 1:] - path_SP2[:, :-1]
    length_S = np.sqrt(step_SP2[..., 0] ** 2 + step_SP2[..., 1] ** 2).sum(1)
    shape_S = _shapes(path_SP2, length_S)
    length_S = length_S * (length_T - 1) / (path_SP2.shape[1] - 1)  # smoothing shortens the path at its ends
    extent_S = np.ptp(path_SP2, axis=1).max(1)
    growth_S, side_S = _growth(boxes_ST4, t_ST, duration_S, height_S, width_S)
    spread_S = side_S / short_S * np.abs(np.sinh(growth_S / 2))  # movement of the box's sides through growth alone
    direction_S, clarity_S = _directions(net_S2, length_S, extent_S, growth_S, spread_S)
    shape_S[direction_S == "still"] = "straight"
    columns = (direction_S, length_S * rate_S / duration_S, shape_S, net_S2, growth_S, clarity_S)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [
        Motion(direction, speed, path, (net[0], net[1]), growth, clarity)
        for direction, speed, path, net, growth, clarity in rows
    ]


def _directions(
    net_S2: np.ndarray, length_S: np.ndarray, extent_S: np.ndarray, growth_S: np.ndarray, spread_S: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (direction, clarity) of each span; lengths in short sides."""
    x_S, y_S = net_S2[:, 0], net_S2[:, 1]
    wide_S, tall_S = np.abs(x_S), np.abs(y_S)
    far_S = np.maximum(wide_S, tall_S)
    # The first case that holds counts.
    grows_S = (np.abs(growth_S) >= GROWTH) & (spread_S >= far_S)
    still_S = ~grows_S & (extent_S < 2 * STILL) & (far_S < STILL)
    mixed_S = ~grows_S & ~still_S & ((far_S < STILL) | (far_S < _NET_SHARE * length_S))
    share_S = far_S / np.where(length_S == 0, 1.0, length_S)
    word_S = np.where(wide_S >= tall_S, np.where(x_S > 0, "right", "left"), np.where(y_S > 0, "down", "up")).astype(
        object
    )
    clarity_S = np.minimum(share_S, 1.0) * far_S / np.where(far_S == 0, 1.0, wide_S + tall_S)
    word_S[grows_S] = np.where(growth_S[grows_S] > 0, "towards", "away")
    clarity_S[grows_S] = spread_S[grows_S] / (spread_S[grows_S] + far_S[grows_S])
    word_S[still_S] = "still"
    clarity_S[still_S] = 1 - extent_S[still_S] / (2 * STILL)
    word_S[mixed_S] = "mixed"
    clarity_S[mixed_S] = np.where(length_S == 0, 0.0, np.maximum(1 - share_S, 0.0))[mixed_S]
    return word_S, clarity_S


def matches(motion: Motion, wanted: MotionConfig | None) -> bool:
    """Return whether a motion matches a concept's; None matches every motion."""
    if wanted is None:
        return True
    return (
        (wanted.direction is None or motion.direction == wanted.direction)
        and (wanted.min_speed is None or motion.speed >= wanted.min_speed)
        and (wanted.max_speed is None or motion.speed <= wanted.max_speed)
        and (wanted.path is None or motion.path == wanted.path)
    )


def _smooth(at_ST2: np.ndarray) -> np.ndarray:
    """Smooth with a moving average over an eighth of the path, so that box jitter adds no length: [S, P, 2], P <= T."""
    window = max(at_ST2.shape[1] // 8 | 1, 3)
    if at_ST2.shape[1] <= window:
        return at_ST2
    total = np.concatenate((np.zeros_like(at_ST2[:, :1]), at_ST2.cumsum(1)), axis=1)
    return (total[:, window:] - total[:, :-window]) / window


def _growth(
    boxes_ST4: np.ndarray, t_ST: np.ndarray, duration_S: np.ndarray, height_S: np.ndarray, width_S: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (log growth of the side over the span, median side in pixels), from boxes not cut by the frame."""
    sides_ST2 = np.maximum(boxes_ST4[..., 2:] - boxes_ST4[..., :2], 1e-3)
    side_ST = np.sqrt(sides_ST2[..., 0] * sides_ST2[..., 1])
    whole_ST = (boxes_ST4[..., 0] > _BORDER) & (boxes_ST4[..., 1] > _BORDER)
    whole_ST &= boxes_ST4[..., 2] < width_S[:, None] - _BORDER
    whole_ST &= boxes_ST4[..., 3] < height_S[:, None] - _BORDER
    count_S = whole_ST.sum(1)
    enough_S = count_S >= max(3, side_ST.shape[1] // 3)
    weight_ST = whole_ST / np.maximum(count_S, 1)[:, None]
    log_ST = np.log(side_ST)
    centred_ST = t_ST - (weight_ST * t_ST).sum(1, keepdims=True)
    log_ST = log_ST - (weight_ST * log_ST).sum(1, keepdims=True)
    spread_S = (weight_ST * centred_ST**2).sum(1)
    slope_S = (weight_ST * centred_ST * log_ST).sum(1) / np.where(spread_S > 0, spread_S, 1.0)
    return np.where(enough_S, slope_S * duration_S, 0.0), np.median(side_ST, axis=1)


def _shapes(path_SP2: np.ndarray, length_S: np.ndarray) -> np.ndarray:
    """Return the shape of each path: str objects [S]."""
    reach_S = np.linalg.norm(path_SP2[:, -1] - path_SP2[:, 0], axis=1)
    straight_S = reach_S >= _STRAIGHT * length_S
    shape_S = np.where(straight_S, "straight", "curved").astype(object)
    if (others := np.flatnonzero(~straight_S)).size:
        path = path_SP2[others]
        axes = np.linalg.svd(path - path.mean(1, keepdims=True), compute_uv=False)
        shape_S[others[axes[:, -1] <= _FLAT * axes[:, 0]]] = "back_and_forth"
    return shape_S
