"""The test of mistakes: its figures, its null, its ranking."""

from __future__ import annotations

import numpy as np
import pytest

from vtcav_ray.explain.mistakes import NO_CONTRAST, NO_MISTAKES, NO_SPREAD, mistake_tests, pushes_to_rival


def test_a_push_to_the_rival_is_presence_times_the_difference_of_the_effects() -> None:
    presence = np.array([[0.5, 1.0], [0.0, 0.25]])
    effects = np.array([[1.0, 3.0, -2.0], [0.0, -4.0, 8.0]])  # of two cells on three classes
    found = pushes_to_rival(presence, effects, truth=[0, 1], rival=[1, 2])
    np.testing.assert_allclose(found, [[0.5 * (3 - 1), 1.0 * (-4 - 0)], [0.0, 0.25 * (8 - -4)]])


def test_bad_input_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match="rival of video 1 is its true class"):
        pushes_to_rival(np.zeros((2, 1)), np.zeros((1, 2)), truth=[0, 1], rival=[1, 1])
    with pytest.raises(ValueError, match="presence must be"):
        pushes_to_rival(np.zeros((2, 3)), np.zeros((1, 2)), truth=[0, 1], rival=[1, 0])
    with pytest.raises(ValueError, match="pushes must be"):
        mistake_tests(np.zeros((3, 1)), [True, False], [0, 0])


def test_the_planted_concept_comes_first_and_the_one_that_helps_last() -> None:
    rng = np.random.default_rng(1)
    truth = np.repeat([0, 1, 2], 40)
    mistaken = rng.random(120) < 0.3
    pushes = rng.normal(size=(120, 8))
    pushes[mistaken, 5] += 2.0
    pushes[mistaken, 2] -= 2.0
    found = mistake_tests(pushes, mistaken, truth, permutations=2000)
    order = found.ranking()
    assert order[0] == 5
    assert order[-1] == 2
    assert found.q[5] < 0.05
    assert found.q[2] < 0.05
    assert found.difference[5] > 1 > 0 > found.difference[2]
    assert (found.q[[0, 1, 3, 4, 6, 7]] > 0.05).all()
    assert (found.num_mistakes, found.num_correct) == (mistaken.sum(), (~mistaken).sum())
    assert found.push[5] == pytest.approx(pushes[mistaken, 5].mean())


def test_a_class_that_is_hard_and_rich_in_a_concept_is_no_evidence() -> None:
    # Every video of class 1 has more of the push, and class 1 is wrong far more often. Within a class, nothing differs.
    rng = np.random.default_rng(2)
    truth = np.repeat([0, 1], 100)
    mistaken = rng.random(200) < np.where(truth == 1, 0.8, 0.1)
    pushes = rng.normal(size=(200, 1)) + 3.0 * truth[:, None]
    found = mistake_tests(pushes, mistaken, truth, permutations=2000)
    assert found.push[0] - found.push_correct[0] > 1.5
    assert abs(found.difference[0]) < 0.6
    assert found.p[0] > 0.05


def test_under_the_null_a_wrong_row_is_as_rare_as_alpha_says() -> None:
    # 200 draws of 6 correlated cells: at most 5 % have any q below 0.05, up to 3 standard errors.
    rng = np.random.default_rng(3)
    truth = np.repeat([0, 1], 15)
    wrong = 0
    for draw in range(200):
        pushes = rng.normal(size=(30, 1)) + rng.normal(size=(30, 6)) + truth[:, None]
        mistaken = rng.random(30) < np.where(truth == 1, 0.6, 0.2)
        found = mistake_tests(pushes, mistaken, truth, permutations=199, seed=draw)
        wrong += bool((found.q <= 0.05).any())
    assert wrong <= 10 + 3 * np.sqrt(200 * 0.05 * 0.95)


def test_without_a_contrast_there_is_no_test_and_the_note_says_why() -> None:
    pushes = np.random.default_rng(4).normal(size=(6, 2))
    right = mistake_tests(pushes, [False] * 6, [0, 0, 0, 1, 1, 1])
    assert right.note == (NO_MISTAKES, NO_MISTAKES)
    apart = mistake_tests(pushes, [True] * 3 + [False] * 3, [0, 0, 0, 1, 1, 1])
    assert apart.note == (NO_CONTRAST, NO_CONTRAST)
    assert apart.no_contrast == ("0",)
    assert np.isnan(apart.q).all()
    assert apart.push == pytest.approx(pushes[:3].mean(axis=0))
    flat = mistake_tests(np.ones((8, 1)), [True, False] * 4, [0, 0, 0, 0, 1, 1, 1, 1])
    assert flat.note == (NO_SPREAD,)
