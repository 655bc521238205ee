"""Equal-tailed permutation p, and the ratio of spreads."""

from __future__ import annotations

import numpy as np
import plain_statistics as plain
import pytest

from vtcav_ray.tcav import concept_effect, concept_effects, effect_family, paired_concept_effect
from vtcav_ray.tcav.permutation import flip


def binomial_bound(trials: int, rate: float) -> float:
    """A share of rejections that a test of this rate exceeds about once in 10,000 such simulations."""
    return rate + 3.8 * float(np.sqrt(rate * (1 - rate) / trials))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("values", ["skewed", "tied"])
def test_equal_tails_are_exact(seed: int, values: str) -> None:
    rng = np.random.default_rng(seed)
    s = rng.gamma(0.5, size=9) if values == "skewed" else np.append(rng.integers(0, 4, 8).astype(float), 9.5)
    got = concept_effect(np.ones((3, 1)), s[:4, None], s[4:, None], tails="equal", permutations=126, bootstrap=2)
    every = plain.every_welch(s.tolist(), 4)
    assert got.p == pytest.approx(plain.tail_p(every, 0, "equal"))
    assert got.p_symmetric == pytest.approx(plain.tail_p(every, 0, "symmetric"))
    assert sum(got.null_counts) == 126
    assert got.effect / got.null_unit == pytest.approx(every[0], rel=1e-6)


def test_equal_is_the_default_and_symmetric_stands_beside_it() -> None:
    rng = np.random.default_rng(0)
    gradients, concept, random = rng.normal(size=(5, 3)), rng.gamma(1, size=(6, 3)), rng.gamma(1, size=(5, 3))
    default = concept_effect(gradients, concept, random, bootstrap=50)
    symmetric = concept_effect(gradients, concept, random, bootstrap=50, tails="symmetric")
    equal = concept_effect(gradients, concept, random, bootstrap=50, tails="equal")
    assert repr(default) == repr(equal)
    assert symmetric.p == symmetric.p_symmetric == equal.p_symmetric != equal.p
    for name in ("effect", "null_sd", "z", "ci_low", "ci_high", "null_unit", "null_counts"):
        assert getattr(symmetric, name) == getattr(equal, name)
    assert sum(equal.null_counts) == 462


def test_a_single_video_on_one_side_has_a_p() -> None:
    concept, random = np.array([[9.0]]), np.arange(7.0)[:, None]
    got = concept_effect(np.ones((2, 1)), concept, random, tails="equal", bootstrap=2)
    assert got.p == pytest.approx(2 / 8)
    assert got.p_symmetric == pytest.approx(1 / 8)
    assert np.isnan(got.spread_ratio)


@pytest.mark.slow
def test_equal_tails_hold_their_level_on_skewed_pools() -> None:
    rng = np.random.default_rng(1)
    simulations = 4000
    # A quarter of the clips show something that lifts the projection by far: both sides are drawn from this pool.
    pool = rng.normal(size=(36, simulations)) + 6 * (rng.random((36, simulations)) < 0.25)
    got = effect_family(pool[:12], pool[12:], permutations=999)
    for alpha in (0.01, 0.05, 0.2):
        assert (got.p <= alpha).mean() <= binomial_bound(simulations, alpha)
    assert (got.p <= 0.05).mean() > 0.035  # and it is not merely conservative


def test_equal_tails_find_what_a_heavy_tail_hides() -> None:
    rng = np.random.default_rng(2)
    # Few skewed concept videos against many random ones: the null of t has a heavy tail on the left, and the concept
    # lies on the right.
    concept, random = 3 * rng.gamma(0.5, size=(12, 300)), rng.gamma(0.5, size=(60, 300))
    got = effect_family(concept, random, permutations=1999)
    assert (got.p < got.p_symmetric).mean() > 0.9
    assert np.median(got.p_symmetric / got.p) > 3


def test_pairs_have_equal_tails_by_symmetry() -> None:
    rng = np.random.default_rng(3)
    gradients, concept = rng.normal(size=(4, 3)), rng.normal(size=(7, 3))
    twin = concept - rng.gamma(1, size=(7, 3))
    symmetric = paired_concept_effect(gradients, concept, twin, bootstrap=2)
    equal = paired_concept_effect(gradients, concept, twin, bootstrap=2, tails="equal")
    assert equal.p == pytest.approx(symmetric.p)  # all 2^7
    drawn = paired_concept_effect(gradients, concept, twin, bootstrap=2, tails="equal", permutations=100)
    signs = np.concatenate([block.numpy() for block in flip(7, 100, 0).blocks(100)])
    differences = (concept - twin) @ gradients.mean(0)
    sums = signs @ differences
    upper, lower = (sums >= differences.sum() - 1e-6).sum(), (sums <= differences.sum() + 1e-6).sum()
    assert drawn.p == pytest.approx(min(1, 2 * (1 + min(upper, lower)) / 101))


def test_the_ratio_of_spreads_by_hand() -> None:
    rng = np.random.default_rng(4)
    gradients, concept, random = rng.normal(size=(5, 4)), 4 * rng.normal(size=(30, 4)), rng.normal(size=(20, 4))
    mean = gradients.mean(0)
    expected = (concept @ mean).std(ddof=1) / (random @ mean).std(ddof=1)
    assert concept_effect(gradients, concept, random, bootstrap=2).spread_ratio == pytest.approx(expected, rel=1e-6)
    assert concept_effect(gradients, random, concept, bootstrap=2).spread_ratio == pytest.approx(expected, rel=1e-6)
    steady = concept_effect(np.ones((2, 1)), np.ones((3, 1)), np.arange(3.0)[:, None], bootstrap=2)
    assert steady.spread_ratio == np.inf
    assert np.isnan(concept_effect(np.ones((2, 1)), np.ones((3, 1)), np.ones((3, 1)), bootstrap=2).spread_ratio)


def test_an_equal_tailed_batch_is_its_cells() -> None:
    rng = np.random.default_rng(5)
    pool = rng.gamma(1, size=(60, 5))
    classes = [rng.normal(size=(4, 5)) for _ in range(3)]
    rows = [np.arange(12), np.arange(12, 20)], [np.arange(20, 45), np.arange(45, 60)]
    batch = concept_effects(classes, pool, *rows, permutations=500, bootstrap=2, tails="equal")
    for k in range(3):
        for j in range(2):
            one = concept_effect(
                classes[k], pool[rows[0][j]], pool[rows[1][j]], permutations=500, bootstrap=2, tails="equal"
            )
            assert (batch.p[k, j], batch.p_symmetric[k, j]) == (one.p, one.p_symmetric)
            assert batch.cell(k, j).spread_ratio == pytest.approx(one.spread_ratio)


def test_unknown_tails() -> None:
    rows = np.random.default_rng(0).normal(size=(5, 3))
    with pytest.raises(ValueError, match="tails must be equal or symmetric, and is 'two'"):
        concept_effect(rows, rows, rows + 1, tails="two")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tails must be equal or symmetric"):
        effect_family(rows, rows, tails="two")  # type: ignore[arg-type]
