"""Only motion defines the classes: nothing else in a scene distinguishes them."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from vtcav_ray.world.rules import DIRECTIONS, KINDS, MOTION_OF_LABEL, MOTION_ONLY, Role
from vtcav_ray.world.scene import Geometry, Scene, sample_scene

SEED = 3
LABELS = MOTION_ONLY.labels


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [sample_scene(SEED, index, MOTION_ONLY.role(SEED, index)) for index in range(1600)]


def place(scene: Scene, t: int) -> np.ndarray:
    """Return the centre of the main object relative to the frame's centre, in shorter sides."""
    centre = scene.actors[-1].centres_T2[t] - np.array([scene.width, scene.height]) / 2
    return centre / min(scene.height, scene.width)


def test_classes_kinds_and_splits_are_crossed_evenly() -> None:
    roles = [MOTION_ONLY.role(SEED, index) for index in range(160)]
    pairs = Counter((role.label, role.kind) for role in roles)
    assert pairs == {(label, kind): 10 for label in LABELS for kind in KINDS}
    splits = Counter((role.label, role.split) for role in roles)
    assert splits == {
        (label, split): count for label in LABELS for split, count in (("train", 20), ("val", 10), ("test", 10))
    }


def test_order_of_labels_is_shuffled() -> None:
    blocks = {tuple(MOTION_ONLY.role(SEED, 16 * b + i).label for i in range(16)) for b in range(20)}
    assert len(blocks) == 20


@pytest.mark.slow
def test_each_class_moves_its_way_at_the_stated_speeds(scenes: list[Scene]) -> None:
    peaks = []
    for scene in scenes:
        main = scene.actors[-1]
        assert main.motion == MOTION_OF_LABEL[scene.role.label]
        steps = np.diff(main.centres_T2, axis=0) * 64 / min(scene.height, scene.width)
        along = steps @ np.array(DIRECTIONS[main.motion])
        across = np.abs(steps @ np.array(DIRECTIONS[main.motion])[::-1])
        assert (along > 0).all(), "a moving object never stands still and never turns"
        assert (across < 0.2 * along + 1e-3).all()
        peaks.append(along.max())
    assert np.quantile(peaks, 0.01) > 1.4
    assert np.quantile(peaks, 0.99) < 3.05


@pytest.mark.slow
def test_course_is_the_same_run_backwards(scenes: list[Scene]) -> None:
    for scene in scenes[:200]:
        steps = np.diff(scene.actors[-1].centres_T2.astype(np.float64), axis=0)
        np.testing.assert_allclose(steps, steps[::-1], atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("axis", [0, 1], ids=["x", "y"])
def test_a_frame_of_unknown_time_does_not_tell_the_class(scenes: list[Scene], axis: int) -> None:
    rng = np.random.default_rng(0)
    places = {label: [] for label in LABELS}
    for scene in scenes:
        places[scene.role.label].append(place(scene, int(rng.integers(scene.frames)))[axis])
    for first, second in itertools.combinations(LABELS, 2):
        assert stats.ks_2samp(places[first], places[second]).pvalue > 0.001, (first, second)


def test_first_frames_are_the_last_frames_of_the_reverse(scenes: list[Scene]) -> None:
    starts = [place(scene, 0)[1] for scene in scenes if scene.role.label == "lift"]
    ends = [place(scene, scene.frames - 1)[1] for scene in scenes if scene.role.label == "put_down"]
    assert stats.ks_2samp(starts, ends).pvalue > 0.001


def test_looks_and_surroundings_are_independent_of_the_class(scenes: list[Scene]) -> None:
    def p_value(values: list[object]) -> float:
        kinds = sorted(set(values), key=str)
        table = np.zeros((len(LABELS), len(kinds)))
        for scene, value in zip(scenes, values, strict=True):
            table[LABELS.index(scene.role.label), kinds.index(value)] += 1
        return float(stats.chi2_contingency(table).pvalue)

    assert p_value([scene.backdrop.kind for scene in scenes]) > 0.001
    assert p_value([scene.fps for scene in scenes]) > 0.001
    assert p_value([len(scene.actors) for scene in scenes]) > 0.001
    assert p_value([scene.actors[-1].look.pattern for scene in scenes]) > 0.001
    for numbers in (
        [scene.frames for scene in scenes],
        [scene.actors[-1].look.size / min(scene.height, scene.width) for scene in scenes],
        [scene.height / scene.width for scene in scenes],
        [sum(scene.actors[-1].look.colour) for scene in scenes],
        [sum(scene.backdrop.colour) for scene in scenes],
    ):
        groups = [
            [number for scene, number in zip(scenes, numbers, strict=True) if scene.role.label == label]
            for label in LABELS
        ]
        assert stats.kruskal(*groups).pvalue > 0.001


def test_shapes_stay_in_their_ranges(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert 16 <= scene.frames <= 32
        assert min(scene.height, scene.width) >= 64
        assert max(scene.height, scene.width) <= 112
        assert scene.height % 2 == scene.width % 2 == 0
        assert 1 <= len(scene.actors) <= 3
        assert [actor.moving for actor in scene.actors] == [False] * (len(scene.actors) - 1) + [True]
    assert any(scene.height != scene.width for scene in scenes)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"frames": (8, 32)}, "frames"),
        ({"frames": (32, 16)}, "frames"),
        ({"size": (65, 112)}, "even"),
        ({"size": (32, 64)}, "size"),
        ({"distractors": (-1, 2)}, "distractors"),
    ],
)
def test_odd_geometry_is_refused(fields: dict[str, tuple[int, int]], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Geometry(**fields)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "index", "role"),
    [
        (-1, 0, Role("lift", "cup", "up", "train")),
        (0, -1, Role("lift", "cup", "up", "train")),
        (0, 0, Role("lift", "teapot", "up", "train")),
        (0, 0, Role("lift", "cup", "sideways", "train")),
    ],
)
def test_odd_scenes_are_refused(seed: int, index: int, role: Role) -> None:
    with pytest.raises(ValueError):
        sample_scene(seed, index, role)
