"""Boxes of the source video on the model's input, and the track of the clip's own object."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from vtcav_ray.clips.spans import Track
from vtcav_ray.heatmaps.boxes import boxes_at, mask, own_object, placement
from vtcav_ray.models.preprocess import Crop, Preprocessor, Resize

GIVEN = Preprocessor(
    resizes=(Resize((float("inf"), 64.0), True, cv2.INTER_LINEAR),),
    crop=Crop("center", 64, 64),
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    swap_channels=False,
    sampling=None,
)


def test_a_box_lies_where_the_object_lies_on_the_input() -> None:
    """An object drawn into a source frame lies in its box after both are mapped to the input."""
    source = np.zeros((120, 200, 3), np.uint8)
    box = np.array([90.0, 30.0, 130.0, 60.0])
    source[30:60, 90:130] = 255
    stored = cv2.resize(source, (133, 80), interpolation=cv2.INTER_AREA)
    seen = GIVEN._views(stored[None], center_only=True)[0, 0].mean(-1) / 255
    place = placement(GIVEN, source.shape[:2], stored.shape[:2])
    assert (place.height, place.width) == (64, 64)
    drawn = mask([place.boxes(box[None])], 64, 64)[0]
    assert np.abs(seen - drawn).mean() < 0.02
    assert drawn.sum() == pytest.approx(seen.sum(), rel=0.05)


def test_masks_count_parts_of_pixels_and_unite_boxes() -> None:
    one = np.array([[1.5, 1.0, 3.0, 2.0]])
    assert mask([one], 4, 4).sum() == pytest.approx(1.5)
    two = np.array([[2.0, 1.0, 4.0, 2.0]])
    assert mask([one, two], 4, 4).sum() == pytest.approx(2.5)
    assert mask([np.full((2, 4), np.nan)], 4, 4).sum() == 0


def track(frames: list[int], boxes: np.ndarray) -> Track:
    n = len(frames)
    return Track("v", 1, "cup", np.array(frames), boxes, np.ones(n), 10.0, 64, 64, 40, np.zeros((n, 2)), np.ones(n),
                 np.zeros(n, int))  # fmt: skip


def test_boxes_are_interpolated_inside_a_track_only() -> None:
    found = boxes_at(track([2, 4], np.array([[0, 0, 4, 4], [8, 0, 12, 4.0]])), np.array([1, 2, 3, 4, 5]))
    assert np.isnan(found[[0, 4]]).all()
    np.testing.assert_allclose(found[2], [4, 0, 8, 4])


def test_the_own_object_is_the_one_that_moves() -> None:
    still = np.tile([0.0, 0, 20, 20], (8, 1))
    moving = np.array([[t * 3.0, 0, t * 3.0 + 10, 10] for t in range(8)])
    glimpse = np.where(np.arange(8)[:, None] < 2, moving * 10, np.nan)
    assert own_object([still, moving, glimpse]) == 1
    assert own_object([glimpse]) is None
    assert own_object([]) is None
