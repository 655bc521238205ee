"""The test of mistakes: its figures, its null, its ranking."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from vtcav_ray.why.mistakes import (
    NO_CONTRAST,
    NO_MISTAKES,
    NO_SPREAD,
    Margins,
    direction_p,
    mistake_tests,
    pushes_to_rival,
)


def test_a_push_is_the_margin_moved_through_the_amount_of_the_concept() -> None:
    rng = np.random.default_rng(0)
    z, gradients, v, m = rng.normal(size=(2, 5)), rng.normal(size=(3, 5)), rng.normal(size=5), rng.normal(size=5)
    found = pushes_to_rival(z, v, m, gradients, truth=[0, 1], rival=[1, 2])
    for i, (t, r) in enumerate(((0, 1), (1, 2))):
        part = ((z[i] - m) @ v) / (v @ v) * v  # of the video's difference from random clips, what lies along v
        assert found[i] == pytest.approx((gradients[r] - gradients[t]) @ part)
    np.testing.assert_allclose(pushes_to_rival(z, 7 * v, m, gradients, truth=[0, 1], rival=[1, 2]), found)
    assert np.isnan(pushes_to_rival(z, 0 * v, m, gradients, truth=[0, 1], rival=[1, 2])).all()


def test_bad_input_is_an_error_that_names_it() -> None:
    z, gradients, v = np.zeros((2, 3)), np.zeros((2, 3)), np.ones(3)
    with pytest.raises(ValueError, match="rival of video 1 is its true class"):
        pushes_to_rival(z, v, v, gradients, truth=[0, 1], rival=[1, 1])
    with pytest.raises(ValueError, match="the same d"):
        pushes_to_rival(z, v[:2], v, gradients, truth=[0, 1], rival=[1, 0])
    with pytest.raises(ValueError, match="pushes must be"):
        mistake_tests(np.zeros((3, 1)), [True, False], [0, 0], [0.5])
    with pytest.raises(ValueError, match="p_direction must have one entry per cell"):
        mistake_tests(np.zeros((2, 1)), [True, False], [0, 0], [0.5, 0.5])


def world(
    seed: int, *, amount: float
) -> tuple[Margins, np.ndarray, np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """The margins of 60 videos whose mistakes come from dimension 0, their x, and a concept in that dimension."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(60, 6)) * [5, 1, 1, 1, 1, 1]
    truth, gradients = np.arange(60) % 2, np.zeros((2, 6))
    gradients[1, 0], gradients[0, 0] = 1.0, -1.0
    mistaken = (z[:, 0] > 0) != truth.astype(bool)
    own, random = rng.normal(size=(12, 6)) * [5, 1, 1, 1, 1, 1], rng.normal(size=(24, 6)) * [5, 1, 1, 1, 1, 1]
    own[:, 0] += amount
    margins = Margins.of(z, gradients, truth, 1 - truth, mistaken)
    v, m = own.mean(axis=0) - random.mean(axis=0), random.mean(axis=0)
    return (
        margins,
        pushes_to_rival(z, v, m, gradients, truth, 1 - truth),
        mistaken,
        truth,
        np.stack((own[:12], random[:12])),
    )


def test_both_tests_measure_the_same_difference() -> None:
    rng = np.random.default_rng(5)
    z, gradients, v, m = rng.normal(size=(40, 4)), rng.normal(size=(3, 4)), rng.normal(size=4), rng.normal(size=4)
    truth = np.arange(40) % 3
    rival = (truth + rng.integers(1, 3, 40)) % 3
    mistaken = rng.random(40) < 0.4
    x = pushes_to_rival(z, v, m, gradients, truth, rival)
    found = mistake_tests(x[:, None], mistaken, truth, [0.01], permutations=99)
    margins = Margins.of(z, gradients, truth, rival, mistaken)
    by_group = (margins.slopes @ v) * ((margins.means - m) @ v) / (v @ v)
    assert margins.coefficients @ by_group == pytest.approx(found.difference[0])


@pytest.mark.slow
def test_a_concept_that_carries_the_cause_is_found_and_a_random_one_is_not() -> None:
    # The first test alone would call the random concept: its direction also contains a little of the cause.
    called_by_first = called = found = 0
    for seed in range(40):
        for amount in (0.0, 25.0):
            margins, x, mistaken, truth, (own, random) = world(seed, amount=amount)
            p = direction_p(margins, own, random, permutations=399, seed=seed)
            tested = mistake_tests(x[:, None], mistaken, truth, [p], permutations=399, seed=seed)
            if amount:
                found += bool(tested.q[0] <= 0.05)
            else:
                called_by_first += bool(tested.p_examples[0] <= 0.05)
                called += bool(tested.q[0] <= 0.05)
    assert called_by_first > 30
    assert called <= 5
    assert found > 30


def test_the_planted_concept_comes_first_and_the_one_that_helps_last() -> None:
    rng = np.random.default_rng(1)
    truth = np.repeat([0, 1, 2], 40)
    mistaken = rng.random(120) < 0.3
    pushes = rng.normal(size=(120, 8))
    pushes[mistaken, 5] += 2.0
    pushes[mistaken, 2] -= 2.0
    found = mistake_tests(pushes, mistaken, truth, np.full(pushes.shape[1], 1e-4), permutations=2000)
    order = found.ranking()
    assert order[0] == 5
    assert found.difference[order[-1]] < 0
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
    found = mistake_tests(pushes, mistaken, truth, np.full(pushes.shape[1], 1e-4), permutations=2000)
    assert found.push[0] - found.push_correct[0] > 1.5
    assert abs(found.difference[0]) < 0.6
    assert found.p[0] > 0.05


@pytest.mark.slow
def test_under_the_null_a_wrong_row_is_as_rare_as_alpha_says() -> None:
    # 200 draws of 6 correlated cells: at most 5 % have any q below 0.05, up to 3 standard errors.
    rng = np.random.default_rng(3)
    truth = np.repeat([0, 1], 15)
    wrong = 0
    for draw in range(200):
        pushes = rng.normal(size=(30, 1)) + rng.normal(size=(30, 6)) + truth[:, None]
        mistaken = rng.random(30) < np.where(truth == 1, 0.6, 0.2)
        found = mistake_tests(pushes, mistaken, truth, np.full(6, 1e-6), permutations=199, seed=draw)
        wrong += bool((found.q <= 0.05).any())
    assert wrong <= 10 + 3 * np.sqrt(200 * 0.05 * 0.95)


def test_without_a_contrast_there_is_no_test_and_the_note_says_why() -> None:
    pushes = np.random.default_rng(4).normal(size=(6, 2))
    right = mistake_tests(pushes, [False] * 6, [0, 0, 0, 1, 1, 1], [0.1, 0.1])
    assert right.note == (NO_MISTAKES, NO_MISTAKES)
    apart = mistake_tests(pushes, [True] * 3 + [False] * 3, [0, 0, 0, 1, 1, 1], [0.1, 0.1])
    assert apart.note == (NO_CONTRAST, NO_CONTRAST)
    assert apart.no_contrast == ("0",)
    assert np.isnan(apart.q).all()
    assert apart.push == pytest.approx(pushes[:3].mean(axis=0))
    flat = mistake_tests(np.ones((8, 1)), [True, False] * 4, [0, 0, 0, 0, 1, 1, 1, 1], [0.1])
    assert flat.note == (NO_SPREAD,)


def test_p_of_the_direction_counts_arrangements_of_the_videos() -> None:
    rng = np.random.default_rng(6)
    z, gradients, own, random = (rng.normal(size=(size, 4)) for size in (20, 2, 3, 4))
    truth, mistaken = np.arange(20) % 2, rng.random(20) < 0.5
    margins = Margins.of(z, gradients, truth, 1 - truth, mistaken)
    both = np.concatenate((own, random))

    def figure(chosen: tuple[int, ...]) -> float:
        rest = [row for row in range(7) if row not in chosen]
        v, m = both[list(chosen)].mean(axis=0) - both[rest].mean(axis=0), both[rest].mean(axis=0)
        x = pushes_to_rival(z, v, m, gradients, truth, 1 - truth)
        return mistake_tests(x[:, None], mistaken, truth, [0.5], permutations=1).difference[0] * (v @ v)

    every = [figure(chosen) for chosen in itertools.combinations(range(7), 3)]
    expected = np.mean([one >= every[0] - 1e-12 for one in every])
    assert direction_p(margins, own, random, permutations=1000) == pytest.approx(expected)
    drawn = direction_p(margins, own, random, permutations=30)
    assert drawn * 31 == pytest.approx(round(drawn * 31))
    assert drawn >= 1 / 31


def test_the_clips_of_pairs_are_swapped() -> None:
    rng = np.random.default_rng(8)
    z, gradients, own, other = (rng.normal(size=(size, 4)) for size in (20, 2, 5, 5))
    truth, mistaken = np.arange(20) % 2, rng.random(20) < 0.5
    margins = Margins.of(z, gradients, truth, 1 - truth, mistaken)

    def figure(swap: tuple[bool, ...]) -> float:
        here = np.array(swap)[:, None]
        left, right = np.where(here, other, own).mean(axis=0), np.where(here, own, other).mean(axis=0)
        v = left - right
        x = pushes_to_rival(z, v, right, gradients, truth, 1 - truth)
        return mistake_tests(x[:, None], mistaken, truth, [0.5], permutations=1).difference[0] * (v @ v)

    figures = [figure(swap) for swap in itertools.product((False, True), repeat=5)]
    expected = np.mean([one >= figures[0] - 1e-9 * abs(figures[0]) for one in figures])
    assert 0 < expected < 1
    assert direction_p(margins, own, other, permutations=1000, paired=True) == pytest.approx(expected)
    assert direction_p(margins, own, other, permutations=1000) != pytest.approx(expected)
