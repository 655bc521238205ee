"""The test of the patch effect: that of the concept effect, on responses; with cells that have no answer."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from vtcav_ray.patch.effect import (
    NO_OTHER_SIDE,
    NO_SPREAD,
    NOT_FINITE,
    ONE_VIDEO,
    corrected,
    paired_patch_effects,
    patch_effects,
)
from vtcav_ray.tcav import concept_effects, holm_over_families, paired_concept_effects, step_down


def of_concept_effects(rows_NC: np.ndarray, n: int, groups: list[str] | None, *, paired: bool) -> tuple[object, ...]:
    """Return effect, z, p and p_symmetric of `concept_effects` with the gradient 1, which projects on the response."""
    gradients = [np.eye(rows_NC.shape[1])[[k, k]] for k in range(rows_NC.shape[1])]
    compute = paired_concept_effects if paired else concept_effects
    sides = [np.arange(n)], [np.arange(n, len(rows_NC))]
    found = compute(gradients, rows_NC, *sides, groups=groups, tails="equal", permutations=400, seed=5)
    return found.effect[:, 0], found.z[:, 0], found.p[:, 0], found.p_symmetric[:, 0], found.n_concept[0]


@pytest.mark.parametrize("sizes", [(4, 5), (6, 20)])  # all arrangements, and some of them
def test_it_is_the_test_of_the_concept_effect(sizes: tuple[int, int]) -> None:
    n, m = sizes
    rows = np.random.default_rng(0).gamma(1, size=(n + m, 3)) + np.arange(3) * (np.arange(n + m) < n)[:, None]
    groups = [f"video {i // 2 if i < n else i:02d}" for i in range(n + m)]
    found = patch_effects(rows[:n], rows[n:], groups=groups, permutations=400, seed=5)
    effect, z, p, p_symmetric, videos = of_concept_effects(rows, n, groups, paired=False)
    assert found.effect == pytest.approx(effect)
    assert found.z == pytest.approx(z)
    assert found.p == pytest.approx(p)
    assert found.p_symmetric == pytest.approx(p_symmetric)
    assert (found.n_concept, found.n_random) == (videos, m) == (n // 2, m)
    assert found.note == ("",) * 3
    assert (found.p_adjusted >= found.p).all()


@pytest.mark.parametrize("n", [6, 30])  # all sign patterns, and some of them
def test_the_test_of_pairs_is_that_of_paired_concept_effects(n: int) -> None:
    rng = np.random.default_rng(1)
    own, twin = rng.normal(size=(2, n, 3)) + np.array([[0.0, 0.3, 1.0], [0, 0, 0]])[:, None]
    found = paired_patch_effects(own, twin, permutations=400, seed=5)
    effect, z, p, p_symmetric, videos = of_concept_effects(np.concatenate((own, twin)), n, None, paired=True)
    assert found.effect == pytest.approx(effect)
    assert found.z == pytest.approx(z)
    assert found.p == pytest.approx(p)
    assert found.p_symmetric == pytest.approx(p_symmetric)
    assert found.n_concept == found.n_random == videos == n
    assert np.isnan(found.spread_ratio).all()


def test_pairs_are_corrected_by_step_down_over_every_sign_pattern() -> None:
    rng = np.random.default_rng(2)
    own = rng.normal(size=(7, 4)) + np.array([0.0, 1.0, 1.5, 0.2])
    own[:, 3] = 2 * own[:, 2]  # a copy costs nothing
    found = paired_patch_effects(own, np.zeros_like(own), groups=list("abcdefg"))
    signs = np.array(list(itertools.product((1.0, -1.0), repeat=7)))
    expected = step_down((signs @ own).T, tails="equal")
    assert found.p == pytest.approx(expected.p)
    assert found.p_adjusted == pytest.approx(expected.adjusted)
    assert found.p_adjusted[3] == found.p_adjusted[2]


def test_pairs_of_one_video_are_flipped_together() -> None:
    own = np.array([[1.0], [3.0], [2.0], [2.5]])
    found = paired_patch_effects(own, np.zeros((4, 1)), groups=["a", "a", "b", "c"])
    assert found.effect[0] == pytest.approx((2 + 2 + 2.5) / 3)
    assert found.n_concept == 3
    assert found.p[0] == pytest.approx(2 / 8)


def test_cells_without_an_answer_are_nan_and_change_no_other_cell() -> None:
    rng = np.random.default_rng(3)
    own, other = rng.normal(size=(6, 3)) + 1, rng.normal(size=(8, 3))
    alone = patch_effects(own[:, :1], other[:, :1])
    own[2, 1] = np.nan
    own[:, 2] = other[:, 2] = 7.25
    found = patch_effects(own, other)
    assert found.note == ("", NOT_FINITE, NO_SPREAD)
    assert found.effect[0] == alone.effect[0]
    assert found.effect[2] == 0
    for name in ("z", "p", "p_symmetric", "p_adjusted", "null_sd"):
        assert getattr(found, name)[0] == getattr(alone, name)[0]
        assert np.isnan(getattr(found, name)[1:]).all(), name
    pairs = paired_patch_effects(own, own - np.array([[1.0, 1.0, 0.0]]))
    assert pairs.note == ("", NOT_FINITE, NO_SPREAD)
    # All differences are equal and not 0: an effect without noise, which has a p and no z.
    assert pairs.effect[0] == pytest.approx(1)
    assert pairs.p[0] == pytest.approx(2 / 2**6)
    assert np.isnan(pairs.z[1:]).all()


def test_one_sided_cells_are_nan_and_say_so() -> None:
    rows = np.random.default_rng(4).normal(size=(4, 2))
    for found in (
        patch_effects(rows, rows[:0]),
        patch_effects(rows[:0], rows),
        paired_patch_effects(rows[:0], rows[:0]),
    ):
        assert found.note == (NO_OTHER_SIDE,) * 2
        assert np.isnan([found.effect, found.z, found.p, found.p_adjusted]).all()
    single = patch_effects(rows, rows[:1] + 9)
    assert single.note == (ONE_VIDEO,) * 2
    assert np.isnan(single.z).all()
    assert single.p == pytest.approx([2 / 5] * 2)


def test_families_are_corrected_for_each_other() -> None:
    rng = np.random.default_rng(5)
    families = [patch_effects(rng.normal(size=(8, 2)) + shift, rng.normal(size=(9, 2))) for shift in (0, 2, 3)]
    families.append(patch_effects(np.zeros((2, 2)), np.zeros((2, 2))))
    q = corrected(families)
    expected = holm_over_families([family.p_adjusted for family in families])
    for got, wanted in zip(q, expected, strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert np.isnan(q[3]).all()
    assert (q[2] >= families[2].p_adjusted).all()


@pytest.mark.slow
def test_the_test_holds_its_level_where_responses_saturate() -> None:
    """Concept and random clips of one distribution, through a function that saturates and turns back."""
    rng = np.random.default_rng(6)
    z = 2 * rng.normal(size=(400, 16)) + 1
    r = z * np.exp(1 - np.abs(z))
    rejected = [patch_effects(one[:6, None], one[6:, None], permutations=500).p[0] <= 0.1 for one in r]
    bound = 3.8 * np.sqrt(0.1 * 0.9 / 400)
    assert 0.1 - bound < np.mean(rejected) < 0.1 + bound


def test_what_does_not_fit_is_refused() -> None:
    rows = np.random.default_rng(7).normal(size=(4, 2))
    with pytest.raises(ValueError, match="infinite"):
        patch_effects(rows, np.full((4, 2), np.inf))
    with pytest.raises(ValueError, match="d = 1"):
        patch_effects(rows, rows[:, :1])
    with pytest.raises(ValueError, match="at least one cell"):
        patch_effects(rows[:, :0], rows[:, :0])
    with pytest.raises(ValueError, match="both concept and random"):
        patch_effects(rows, rows, groups=list("abcdabcd"))
    with pytest.raises(ValueError, match="pair row by row"):
        paired_patch_effects(rows, rows[:3])
