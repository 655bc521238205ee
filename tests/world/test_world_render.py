"""The drawn pixels agree with the truth."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vtcav_ray.video.mp4 import decode_mp4, encode_mp4
from vtcav_ray.world.render import MIN_VISIBLE, render_scene
from vtcav_ray.world.rules import KINDS, MOTION_ONLY
from vtcav_ray.world.scene import Geometry, Scene, sample_scene
from vtcav_ray.world.sprites import draw_sprite


def scene_of(index: int, distractors: tuple[int, int] = (0, 2)) -> Scene:
    role = MOTION_ONLY.role(1, index)
    return sample_scene(1, index, role, Geometry(distractors=distractors))


def edges(changed_HW: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(changed_HW.any(1))[0], np.nonzero(changed_HW.any(0))[0]
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


@pytest.mark.parametrize("index", range(12))
def test_boxes_hold_what_was_drawn_and_no_more(index: int) -> None:
    scene = dataclasses.replace(scene_of(index, distractors=(0, 0)), noise_sd=0.0)
    with_object = render_scene(scene)
    without = render_scene(dataclasses.replace(scene, actors=()))
    (truth,) = with_object.objects
    difference = np.abs(with_object.frames_THW3.astype(int) - without.frames_THW3).max(3)
    for t, box in zip(truth.frames_N, truth.boxes_N4, strict=True):
        drawn = edges(difference[t] > 10)
        # Edges are soft: a pixel that is covered by less than a quarter may lie outside.
        assert (drawn[:2] >= box[:2] - 2).all(), (t, drawn, box)
        assert (drawn[2:] <= box[2:] + 2).all(), (t, drawn, box)
        assert np.abs(drawn - box).max() <= 3, (t, drawn, box)


@pytest.mark.slow
def test_boxes_move_with_the_motion() -> None:
    for index in range(16):
        scene = scene_of(index)
        main = render_scene(scene).objects[-1]
        middles = (main.boxes_N4[:, :2] + main.boxes_N4[:, 2:]) / 2
        way = middles[-1] - middles[0]
        axis, sign = {"up": (1, -1), "down": (1, 1), "left": (0, -1), "right": (0, 1)}[main.motion]
        assert way[axis] * sign > 5
        assert abs(way[axis]) > 2 * abs(way[1 - axis])


@pytest.mark.slow
def test_still_objects_stand_still_and_hidden_frames_are_left_out() -> None:
    hidden = 0
    for index in range(30):
        rendered = render_scene(scene_of(index, distractors=(2, 2)))
        for thing in rendered.objects[:-1]:
            assert thing.motion == "none"
            assert (thing.boxes_N4 == thing.boxes_N4[:1]).all()
            hidden += len(thing.frames_N) < rendered.scene.frames
        for thing in rendered.objects:
            assert (np.diff(thing.frames_N) > 0).all()
            assert len(thing.boxes_N4) == len(thing.visible_N) == len(thing.frames_N)
            assert ((thing.visible_N >= MIN_VISIBLE) & (thing.visible_N <= 1)).all()
            scene = rendered.scene
            assert (thing.boxes_N4 >= 0).all()
            assert (thing.boxes_N4 <= [scene.width, scene.height, scene.width, scene.height]).all()
    assert hidden > 0, "none of 60 distractors was ever covered: the check above saw nothing"


def test_visible_share_falls_when_an_object_is_covered() -> None:
    scene = scene_of(0, distractors=(1, 1))
    still, main = scene.actors
    behind = dataclasses.replace(still, centres_T2=main.centres_T2.copy(), look=main.look, motion="none")
    truth = render_scene(dataclasses.replace(scene, actors=(behind, main))).objects
    # The still object lies where the main one is in the first frame, so it is wholly hidden there.
    assert 0 not in truth[0].frames_N
    assert truth[1].visible_N[0] > 0.9


@pytest.mark.slow
def test_main_object_is_seen_in_every_frame() -> None:
    for index in range(60):
        rendered = render_scene(scene_of(index))
        assert len(rendered.objects[-1].frames_N) == rendered.scene.frames


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_look_different(kind: str) -> None:
    look = dataclasses.replace(
        scene_of(0).actors[-1].look, size=32.0, aspect=1.0, angle_deg=0.0, mirrored=False, pattern="plain"
    )
    mine = draw_sprite(dataclasses.replace(look, kind=kind), 0.0).cover_SS > 0.5
    for other in KINDS:
        theirs = draw_sprite(dataclasses.replace(look, kind=other), 0.0).cover_SS > 0.5
        overlap = (mine & theirs).sum() / (mine | theirs).sum()
        assert overlap == 1 if kind == other else overlap < 0.92


def test_rendering_is_deterministic_and_seeds_differ() -> None:
    first, second = render_scene(scene_of(5)), render_scene(scene_of(5))
    np.testing.assert_array_equal(first.frames_THW3, second.frames_THW3)
    other = render_scene(sample_scene(2, 5, MOTION_ONLY.role(2, 5)))
    assert first.frames_THW3.shape != other.frames_THW3.shape or (first.frames_THW3 != other.frames_THW3).any()


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_same_frames_give_the_same_bytes_on_every_call(index: int) -> None:
    frames = render_scene(scene_of(index)).frames_THW3
    assert len({encode_mp4(frames, fps=25) for _ in range(12)}) == 1


def test_codec_keeps_the_picture() -> None:
    frames = render_scene(dataclasses.replace(scene_of(7), noise_sd=1.0)).frames_THW3
    decoded = decode_mp4(encode_mp4(frames, fps=25))
    assert decoded.shape == frames.shape
    assert np.abs(decoded.astype(int) - frames).mean() < 6


@pytest.mark.parametrize(("shape", "fps"), [((4, 63, 64, 3), 25), ((4, 64, 65, 3), 25), ((4, 64, 64, 3), 0)])
def test_codec_refuses_odd_sizes(shape: tuple[int, int, int, int], fps: int) -> None:
    with pytest.raises(ValueError, match="even size"):
        encode_mp4(np.zeros(shape, np.uint8), fps)
