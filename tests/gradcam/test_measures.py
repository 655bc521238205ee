"""Measures on maps with results that are known by construction."""

from __future__ import annotations

import numpy as np
import pytest

from vtcav_ray.gradcam import measures
from vtcav_ray.heatmaps.pointing import pointing


def moving_square(frames: int = 8, size: int = 40, side: int = 8, step: int = 4) -> np.ndarray:
    """Make maps of a bright square that moves `step` pixels to the right in each frame."""
    maps = np.zeros((frames, size, size), np.float32)
    for t in range(frames):
        maps[t, 10 : 10 + side, t * step : t * step + side] = 1
    return maps


def test_flicker_is_the_share_of_mass_that_moves() -> None:
    assert measures.flicker(moving_square(step=0)) == 0
    assert measures.flicker(moving_square(step=4)) == pytest.approx(0.5)  # in each frame, half of the square is new
    alternating = moving_square(step=0)
    alternating[1::2] = np.roll(alternating[1::2], 20, axis=2)
    assert measures.flicker(alternating) == pytest.approx(1.0)
    # A change of a map's scale, also from frame to frame, is no flicker.
    assert measures.flicker(moving_square(step=0) * np.arange(1, 9)[:, None, None]) == pytest.approx(0, abs=1e-7)


def test_jumps_and_drift_are_in_fractions_of_the_frame() -> None:
    maps = moving_square(step=4)
    assert measures.jump(maps) == pytest.approx(0.1)
    x, y = measures.drift(maps)
    assert (x, y) == (pytest.approx(0.7), pytest.approx(0, abs=1e-9))
    down = maps.transpose(0, 2, 1)
    assert measures.drift(down)[1] == pytest.approx(0.7)  # y is down
    there_and_back = np.concatenate((maps, maps[::-1]))
    assert abs(measures.drift(there_and_back)[0]) < 1e-9
    assert measures.jump(there_and_back) > 0.09
    np.testing.assert_allclose(measures.centres(maps)[0], (4 / 40, 14 / 40))


def test_empty_frames_are_left_out_and_counted() -> None:
    maps = moving_square(step=4)
    maps[3] = 0
    assert measures.empty_share(maps) == pytest.approx(1 / 8)
    assert measures.flicker(maps) == pytest.approx(0.5)
    assert measures.jump(maps) == pytest.approx(0.1)
    nothing = np.zeros((4, 8, 8), np.float32)
    assert measures.empty_share(nothing) == 1
    for figure in (measures.flicker(nothing), measures.jump(nothing), *measures.drift(nothing)):
        assert np.isnan(figure)
    assert np.isnan(measures.background_share(nothing, nothing))
    assert np.isnan(pointing(nothing, np.ones((4, 8, 8), np.float32)))


def test_similarity_is_one_for_the_same_map_and_near_zero_for_another() -> None:
    stream = np.random.RandomState(0)
    a, b = stream.rand(2, 8, 20, 20).astype(np.float32)
    assert measures.similarity(a, 3 * a + 1) == pytest.approx(1)
    assert abs(measures.similarity(a, b)) < 0.06
    assert measures.similarity(a, 1 - a) == pytest.approx(-1)
    assert np.isnan(measures.similarity(a, np.full_like(a, 0.3)))
    maps = moving_square()
    assert measures.similarity(maps, maps[::-1]) < 0.3  # a map that follows the object differs from its reverse
    still = np.repeat(maps.mean(0, keepdims=True), 8, axis=0)
    assert measures.similarity(still, still[::-1]) == pytest.approx(1)


def test_background_and_pointing_against_boxes() -> None:
    maps, inside = moving_square(), moving_square()
    assert measures.background_share(maps, inside) == 0
    assert pointing(maps, inside) == 1
    assert measures.background_share(np.ones_like(maps), inside) == pytest.approx(1 - 64 / 1600)
    assert measures.background_share(maps, np.roll(inside, 4, axis=2)) == pytest.approx(0.5)
    assert pointing(maps, np.roll(inside, 12, axis=1)) == 0


def test_an_aligned_map_follows_the_box() -> None:
    """A map that follows the object's box has a bright middle; a map that stays in place is smeared."""
    maps = moving_square(step=4)
    boxes = np.array([[4 * t, 10, 4 * t + 8, 18] for t in range(8)], float)
    total, seen = measures.aligned(maps, boxes)
    mean = total / seen
    third = measures.ALIGNED_SIDE // 3
    assert mean[third + 2 : 2 * third - 2, third + 2 : 2 * third - 2] == pytest.approx(1600 / 64, rel=1e-5)
    assert mean[:8].max() == 0
    assert seen.max() == 8
    assert seen[0, 0] < 8  # in the first frames, the area left of the box is outside the frame
    boxes[:4] = np.nan
    assert measures.aligned(maps, boxes)[1].max() == 4
    uniform, seen = measures.aligned(np.ones_like(maps), boxes)
    assert np.nanmax(uniform / np.where(seen > 0, seen, np.nan)) == pytest.approx(1)


def test_the_share_in_a_place_is_its_part_of_the_mass() -> None:
    maps = moving_square(frames=8, step=4)  # it begins at column 0 and ends at columns 28 to 35
    place = np.zeros((1, 40, 40), np.float32)
    place[:, :, :8] = 1
    assert measures.inside_share(maps, place) == pytest.approx((8 + 4) / (8 * 8))
    assert measures.inside_share(maps * 3, np.ones((1, 40, 40), np.float32)) == pytest.approx(1)
    assert np.isnan(measures.inside_share(np.zeros_like(maps), place))
