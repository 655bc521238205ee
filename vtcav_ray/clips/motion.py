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

import functools
import math
from typing import NamedTuple

import numpy as np

from vtcav_ray.config import MotionConfig
from vtcav_ray.video.sample import FALLBACK_FPS

STILL = 0.04  # net displacement in short sides; a smaller one is none
GROWTH = math.log(1.25)
_NET_SHARE = 0.35  # of the path; a net displacement below this has no direction
_STRAIGHT = 0.85
_FLAT = 0.25  # minor over major axis of the path
_SURE = 1e-6  # of the sum of squared axes: a larger difference is none of rounding
_BORDER = 1.5  # pixels: a box this close to the frame's edge is cut off, and its size is not used


class Motion(NamedTuple):
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
    edges_41T, shift_21T = (np.ascontiguousarray(values.T)[:, None] for values in (boxes, shift))
    return describe_motions(edges_41T, frames[None], rate, tall, wide, shift_21T)[0]


def describe_motions(
    edges_4ST: np.ndarray,
    frames_ST: np.ndarray,
    fps_S: np.ndarray,
    height_S: np.ndarray,
    width_S: np.ndarray,
    camera_2ST: np.ndarray,
) -> list[Motion]:
    """Apply `describe_motion` to S spans of equal length at once (S: spans, T: frames).

    Coordinates come first, in contiguous arrays: NumPy works on those several times as fast as on pairs and fours.
    """
    spans, length_T = frames_ST.shape
    short_S = np.minimum(height_S, width_S).astype(np.float64)
    rate_S = np.where(np.isfinite(fps_S) & (fps_S > 0), fps_S, FALLBACK_FPS)
    if length_T == 1:
        return [Motion("still", 0.0, "straight", (0.0, 0.0), 0.0, 1.0)] * spans
    duration_S = frames_ST[:, -1] - frames_ST[:, 0]
    t_ST = frames_ST - frames_ST.mean(1, keepdims=True)
    at_2ST = ((edges_4ST[:2] + edges_4ST[2:]) / 2 + camera_2ST) / short_S[:, None]
    at_2TS = np.ascontiguousarray(at_2ST.swapaxes(1, 2))
    sums_2TS = _running_sums(at_2TS)
    # Least squares: one bad box changes the net displacement little.
    centred_2TS = at_2TS - sums_2TS[:, -1:] / length_T
    slope_2S = _running_sums(np.ascontiguousarray(t_ST.T) * centred_2TS)[:, -1] / (t_ST**2).sum(1)
    net_2S = slope_2S * duration_S
    path_2PS = _smooth(at_2TS, sums_2TS)
    step_2PS = path_2PS[:, 1:] - path_2PS[:, :-1]
    length_S = np.ascontiguousarray(np.sqrt(step_2PS[0] ** 2 + step_2PS[1] ** 2).T).sum(1)
    shape_S = _shapes(path_2PS, length_S)
    length_S = length_S * (length_T - 1) / (path_2PS.shape[1] - 1)  # smoothing shortens the path at its ends
    extent_S = (path_2PS.max(1) - path_2PS.min(1)).max(0)
    growth_S, spread_S = _growth(edges_4ST, t_ST, duration_S, height_S, width_S)
    direction_S, clarity_S = _directions(net_2S, length_S, extent_S, growth_S, spread_S)
    shape_S[direction_S == "still"] = "straight"
    columns = (direction_S, length_S * rate_S / duration_S, shape_S, growth_S, clarity_S)
    direction, speed, shape, growth, clarity = (column.tolist() for column in columns)
    rows = zip(direction, speed, shape, zip(*net_2S.tolist(), strict=True), growth, clarity, strict=True)
    # As `Motion(*row)`, without a call of Python for each.
    return list(map(functools.partial(tuple.__new__, Motion), rows))


def _running_sums(values_2TS: np.ndarray) -> np.ndarray:
    """Return the sums over the frames so far. Twice as fast as `cumsum`, and equal: one frame after the other."""
    sums_2TS = values_2TS.copy()
    for frame in range(1, values_2TS.shape[1]):
        sums_2TS[:, frame] += sums_2TS[:, frame - 1]
    return sums_2TS


def _directions(
    net_2S: np.ndarray, length_S: np.ndarray, extent_S: np.ndarray, growth_S: np.ndarray, spread_S: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (direction, clarity) of each span; lengths in short sides."""
    x_S, y_S = net_2S
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


def _smooth(at_2TS: np.ndarray, sums_2TS: np.ndarray) -> np.ndarray:
    """Smooth with a moving average over an eighth of the path, so that box jitter adds no length: [2, P, S], P <= T.

    Args:
        at_2TS: positions.
        sums_2TS: their sums over the frames so far.
    """
    length_T = at_2TS.shape[1]
    window = max(length_T // 8 | 1, 3)
    if length_T <= window:
        return at_2TS
    path_2PS = sums_2TS[:, window - 1 :].copy()
    path_2PS[:, 1:] -= sums_2TS[:, :-window]
    path_2PS /= window
    return path_2PS


def _growth(
    edges_4ST: np.ndarray, t_ST: np.ndarray, duration_S: np.ndarray, height_S: np.ndarray, width_S: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return what growth alone does to the box over each span, from boxes not cut by the frame.

    Returns:
        (log growth of its side; how far its sides move, in short sides: 0 where it grows by less than `GROWTH`).
    """
    sides_2ST = np.maximum(edges_4ST[2:] - edges_4ST[:2], 1e-3)
    side_ST = np.sqrt(sides_2ST[0] * sides_2ST[1])
    x1_ST, y1_ST, x2_ST, y2_ST = edges_4ST
    whole_ST = (x1_ST > _BORDER) & (y1_ST > _BORDER)
    whole_ST &= x2_ST < width_S[:, None] - _BORDER
    whole_ST &= y2_ST < height_S[:, None] - _BORDER
    count_S = np.count_nonzero(whole_ST, axis=1)
    enough_S = count_S >= max(3, side_ST.shape[1] // 3)
    weight_ST = whole_ST / np.maximum(count_S, 1)[:, None]
    log_ST = np.log(side_ST)
    centred_ST = t_ST - (weight_ST * t_ST).sum(1, keepdims=True)
    log_ST -= (weight_ST * log_ST).sum(1, keepdims=True)
    spread_S = (weight_ST * centred_ST**2).sum(1)
    slope_S = (weight_ST * centred_ST * log_ST).sum(1) / np.where(spread_S > 0, spread_S, 1.0)
    growth_S = np.where(enough_S, slope_S * duration_S, 0.0)
    moved_S = np.zeros_like(growth_S)
    if (grown := np.flatnonzero(np.abs(growth_S) >= GROWTH)).size:
        short_S = np.minimum(height_S, width_S)[grown]
        moved_S[grown] = np.median(side_ST[grown], axis=1) / short_S * np.abs(np.sinh(growth_S[grown] / 2))
    return growth_S, moved_S


def _shapes(path_2PS: np.ndarray, length_S: np.ndarray) -> np.ndarray:
    """Return the shape of each path: str objects [S]."""
    whole_2S = path_2PS[:, -1] - path_2PS[:, 0]
    straight_S = np.sqrt(whole_2S[0] ** 2 + whole_2S[1] ** 2) >= _STRAIGHT * length_S
    shape_S = np.where(straight_S, "straight", "curved").astype(object)
    if (others := np.flatnonzero(~straight_S)).size:
        shape_S[others[_flat(path_2PS[..., others])]] = "back_and_forth"
    return shape_S


def _flat(path_2PS: np.ndarray) -> np.ndarray:
    """Return whether the minor axis of each path is short beside its major one: bool [S].

    The axes are the singular values of the path around its middle. The squares of two singular values follow from
    three sums. Only where these leave it open does rounding matter, and there the singular values are computed.
    """
    x_PS, y_PS = path_2PS - path_2PS.mean(1, keepdims=True)
    xx_S, yy_S, xy_S = (x_PS * x_PS).sum(0), (y_PS * y_PS).sum(0), (x_PS * y_PS).sum(0)
    total_S, apart_S = xx_S + yy_S, np.hypot(xx_S - yy_S, 2 * xy_S)
    over_S = (total_S - apart_S) - _FLAT**2 * (total_S + apart_S)
    flat_S = over_S < 0
    if (open_ := np.flatnonzero(~(np.abs(over_S) > _SURE * total_S))).size:  # also where it is not a number
        path = np.ascontiguousarray(path_2PS[..., open_].transpose(2, 1, 0))
        axes = np.linalg.svd(path - path.mean(1, keepdims=True), compute_uv=False)
        flat_S[open_] = axes[:, -1] <= _FLAT * axes[:, 0]
    return flat_S
