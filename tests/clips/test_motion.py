from __future__ import annotations

import math

import numpy as np
import pytest

from vtcav_ray.clips.motion import _flat, describe_motion, matches
from vtcav_ray.config import MotionConfig

T = np.arange(32)


def boxes(x: np.ndarray | float, y: np.ndarray | float, side: np.ndarray | float = 20.0) -> np.ndarray:
    x, y, half = (np.broadcast_to(np.asarray(v, float), T.shape) for v in (x, y, np.asarray(side) / 2))
    return np.stack((x - half, y - half, x + half, y + half), axis=1)


def words(b: np.ndarray, **more: object):
    return describe_motion(b, T, 25.0, 200, 300, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("dx", "dy", "direction"),
    [(2, 0, "right"), (-2, 0.5, "left"), (0.3, -2, "up"), (0, 2, "down"), (0, 0, "still"), (0.1, 0, "still")],
)
@pytest.mark.parametrize("jitter", [0.0, 1.0])
def test_directions(dx: float, dy: float, direction: str, jitter: float) -> None:
    noise = np.random.default_rng(0).normal(0, jitter, (2, len(T)))
    assert words(boxes(150 + dx * (T - 16) + noise[0], 100 + dy * (T - 16) + noise[1])).direction == direction


@pytest.mark.parametrize(("factor", "direction"), [(2.0, "towards"), (0.5, "away"), (1.1, "still")])
def test_growing_and_shrinking(factor: float, direction: str) -> None:
    assert words(boxes(150, 100, 40 * factor ** (T / 31))).direction == direction


def test_a_box_that_enters_the_frame_does_not_come_nearer() -> None:
    b = boxes(-20 + 4.0 * T, 100, 60)
    b[:, 0] = np.maximum(b[:, 0], 0)
    assert words(b).direction == "right"


def test_speed_is_in_short_sides_a_second_at_any_size_and_rate() -> None:
    motion = words(boxes(50 + 4.0 * T, 100))
    assert motion.speed == pytest.approx(4 * 25 / 200)
    double = describe_motion(2 * boxes(50 + 4.0 * T, 100), T, 25.0, 400, 600)
    assert double.speed == pytest.approx(motion.speed)
    assert describe_motion(boxes(50 + 4.0 * T, 100), 2 * T, 50.0, 200, 300).speed == pytest.approx(motion.speed)
    for no_rate in (0.0, math.nan):
        assert describe_motion(boxes(50 + 4.0 * T, 100), T, no_rate, 200, 300).speed == pytest.approx(motion.speed)


def test_camera_is_taken_off() -> None:
    camera = np.stack((3.0 * T, 0 * T), axis=1)  # pans right: a still object goes left in the picture
    assert words(boxes(200 - 3.0 * T, 100)).direction == "left"
    assert words(boxes(200 - 3.0 * T, 100), camera=camera).direction == "still"
    assert words(boxes(150 + 0.0 * T, 100), camera=camera).direction == "right"


def test_path_shapes() -> None:
    swing = 40 * np.sin(T / 31 * 2 * np.pi * 2)
    there_and_back = words(boxes(150 + swing, 100))
    assert (there_and_back.path, there_and_back.direction) == ("back_and_forth", "mixed")
    turn = T / 31 * np.pi
    assert words(boxes(150 - 50 * np.cos(turn), 100 - 50 * np.sin(turn))).path == "curved"
    assert words(boxes(100 + 2.0 * T, 100)).path == "straight"


def test_clarity_prefers_the_straight_way() -> None:
    diagonal, straight = words(boxes(100 + 2.0 * T, 60 + 1.8 * T)), words(boxes(100 + 2.0 * T, 100))
    assert 0 < diagonal.clarity < straight.clarity <= 1


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        (None, True),
        (MotionConfig(), True),
        (MotionConfig(direction="right"), True),
        (MotionConfig(direction="left"), False),
        (MotionConfig(min_speed=0.4), True),
        (MotionConfig(min_speed=0.6), False),
        (MotionConfig(max_speed=0.4), False),
        (MotionConfig(direction="right", path="straight"), True),
        (MotionConfig(path="curved"), False),
    ],
)
def test_matching(wanted: MotionConfig | None, fits: bool) -> None:
    assert matches(words(boxes(50 + 4.0 * T, 100)), wanted) is fits


def test_one_frame_is_still_and_nonsense_is_refused() -> None:
    assert describe_motion(boxes(1, 1)[:1], T[:1], 25, 200, 300).direction == "still"
    with pytest.raises(ValueError, match="belong together"):
        describe_motion(boxes(1, 1), T[:5], 25, 200, 300)


def test_flat_paths_are_those_of_the_singular_values() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 20, 400))
    path = np.stack((x, y * rng.uniform(0.05, 0.6, 400)))  # [2, P, S]
    path[..., 0] = 0.0
    # On the edge, where only the singular values decide: one axis is a quarter of the other.
    circle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    path[..., 1:40] = np.stack((np.cos(circle), np.sin(circle) / 4))[..., None] * rng.uniform(0.1, 9, 39)
    centred = np.ascontiguousarray(path.transpose(2, 1, 0))
    axes = np.linalg.svd(centred - centred.mean(1, keepdims=True), compute_uv=False)
    wanted = axes[:, 1] <= 0.25 * axes[:, 0]
    assert np.array_equal(_flat(path), wanted)
    assert 100 < np.count_nonzero(wanted) < 300
