from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.drawn import square_video
from tests.helpers.whole_clip import build_clip
from vtcav_ray.clips.kinds import builder_of

S = 32
RED = (250, 10, 10)


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, np.ndarray]:
    frames, boxes = square_video([(10 + 3 * t, 20 + t) for t in range(12)])
    boxes[6:, 2:] += 8  # the object grows: smaller crops are padded
    return frames, boxes


def is_red(clip: np.ndarray) -> np.ndarray:
    return (clip[..., 0] > 180) & (clip[..., 1] < 90)


def test_spatial_is_one_frame_repeated(scene: tuple[np.ndarray, np.ndarray]) -> None:
    clip = build_clip("spatial", *scene, S, pick=3)
    assert clip.shape == (12, S, S, 3)
    assert (clip == clip[:1]).all()
    assert is_red(clip[0]).all()


def test_spatiotemporal_centres_smaller_crops_on_the_largest_box(scene: tuple[np.ndarray, np.ndarray]) -> None:
    clip = build_clip("spatiotemporal", *scene, S)
    dark = (clip == 0).all(3)
    assert not dark[6:].any()
    border = round(S * (24 - 16) / 24 / 2)
    assert dark[0, :border].all()
    assert dark[0, -border:].all()
    assert dark[0, :, :border].all()
    assert not dark[0, border + 1 : -border - 1, border + 1 : -border - 1].any()


def test_tracked_window_keeps_its_size_and_is_never_padded(scene: tuple[np.ndarray, np.ndarray]) -> None:
    frames, boxes = scene
    clip = build_clip("tracked", np.maximum(frames, 1), boxes, S)
    assert not (clip == 0).all(3).any()
    assert is_red(clip).mean() > 0.3
    # the object is near the corner: the window stops at the frame's edge
    frames, boxes = square_video([(0, 0)] * 4, side=10)
    boxes[:, 2:] += 20
    assert np.array_equal(build_clip("tracked", frames, boxes, 30), frames[:, :30, :30])


def test_tracked_window_is_no_larger_than_the_frame() -> None:
    frames, _ = square_video([(0, 0)] * 4, height=40, width=100)
    clip = build_clip("tracked", frames, np.array([[0.0, 0, 90, 40]] * 4), 40)
    assert np.array_equal(clip, frames[:, :, 25:65])


def test_context_keeps_the_frame_and_blurs_only_off_the_path(scene: tuple[np.ndarray, np.ndarray]) -> None:
    frames, boxes = scene
    kept = build_clip("context", frames, boxes, 48)
    assert kept.shape == (12, 48, 64, 3)
    assert np.array_equal(build_clip("context", frames, None, 200), frames)  # never enlarged
    assert np.array_equal(build_clip("full", frames, boxes, 48), kept)
    blurred = build_clip("context", frames, boxes, 200, blur=0.05)
    same = (blurred == frames).all(3)
    for x1, y1, x2, y2 in boxes.astype(int):
        assert same[:, y1:y2, x1:x2].mean() > 0.95
    assert same[:, 70:, 90:].mean() < 0.2


def test_frozen_is_one_frame_of_its_twin(scene: tuple[np.ndarray, np.ndarray]) -> None:
    twin = build_clip("spatiotemporal", *scene, S, pick=2)
    frozen = build_clip("frozen", *scene, S, pick=2)
    assert (frozen == twin[2]).all()


def test_reversed_and_shuffled_are_the_twins_frames(scene: tuple[np.ndarray, np.ndarray]) -> None:
    twin = build_clip("spatiotemporal", *scene, S)
    assert np.array_equal(build_clip("reversed", *scene, S), twin[::-1])
    builder = builder_of("shuffled")(scene[1], 12, (96, 128), S, seed=5)
    assert sorted(builder.order) == list(range(12))
    shuffled = build_clip("shuffled", *scene, S, seed=5)
    assert np.array_equal(shuffled, twin[builder.order])
    assert np.array_equal(shuffled, build_clip("shuffled", *scene, S, seed=5))
    assert not np.array_equal(shuffled, build_clip("shuffled", *scene, S, seed=6))


@pytest.mark.parametrize("seed", range(30))
def test_shuffles_favour_neither_direction_of_time(seed: int) -> None:
    order = builder_of("shuffled")(np.ones((16, 4)), 16, (9, 9), S, seed=seed).order
    assert abs(np.sign(np.diff(order)).mean()) <= 0.34


def test_padding_is_the_mask_without_the_content(scene: tuple[np.ndarray, np.ndarray]) -> None:
    twin, padding = build_clip("spatiotemporal", *scene, S), build_clip("padding", *scene, S)
    assert np.array_equal((padding == 0).all(3), (twin == 0).all(3))
    assert len(np.unique(padding[(padding > 0).any(3)], axis=0)) == 1  # one colour
    inside = padding[(padding > 0).any(3)][0].astype(int)
    assert np.abs(inside - np.array(RED)).max() < 130


def test_boxes_out_of_the_frame_and_of_no_size_still_give_a_clip() -> None:
    frames, _ = square_video([(5, 5)] * 3)
    boxes = np.array([[-20.0, -5, 10, 10], [120, 90, 160, 140], [50, 50, 50, 50]])
    for kind in ("spatial", "spatiotemporal", "tracked", "context", "padding", "frozen"):
        assert build_clip(kind, frames, boxes, S).dtype == np.uint8


def test_only_the_frames_that_are_needed() -> None:
    assert builder_of("spatial")(np.ones((8, 4)), 8, (9, 9), S, pick=5).needs == [5]
    assert builder_of("frozen")(np.ones((8, 4)), 8, (9, 9), S, pick=5).needs == [5]
    builder = builder_of("tracked")(np.ones((8, 4)), 8, (9, 9), S)
    assert builder.needs == list(range(8))
    builder.put(0, np.zeros((9, 9, 3), np.uint8))
    assert not builder.complete
    with pytest.raises(ValueError, match="no frame was put"):
        builder.finish()
    with pytest.raises(ValueError, match="needs boxes"):
        builder_of("tracked")(None, 8, (9, 9), S)
    with pytest.raises(ValueError, match="No concept kind `sideways`"):
        builder_of("sideways")(None, 8, (9, 9), S)
