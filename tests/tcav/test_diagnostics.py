import math

import numpy as np
import pytest
import scipy.stats

from vtcav_ray.tcav import (
    collinearity,
    entanglement,
    is_degenerate,
    learnability,
    mean_pairwise_cosine,
    needed,
    stability,
)

RNG = np.random.default_rng(0)
ROW = RNG.normal(size=40).astype(np.float32)


def test_a_constant_gradient_is_degenerate_up_to_float_noise():
    constant = np.tile(ROW, (10, 1))
    assert is_degenerate(constant)
    assert is_degenerate(constant * (1 + 1e-6 * RNG.normal(size=constant.shape)).astype(np.float32))
    assert is_degenerate(constant * RNG.uniform(0.1, 3, size=(10, 1))), "scaling a gradient changes no sign"
    assert is_degenerate(np.zeros((5, 4)))
    assert is_degenerate(ROW[None])
    assert not is_degenerate(constant + 0.01 * RNG.normal(size=constant.shape))
    assert not is_degenerate(constant * np.sign(np.arange(10) - 4.5)[:, None]), "both signs: scores of 1/2"
    with pytest.raises(ValueError, match="no clips"):
        is_degenerate(np.zeros((0, 4)))


def test_collinearity_is_the_mean_cosine_of_pairs():
    gradients = RNG.normal(size=(9, 5)) + 1
    unit = gradients / np.linalg.norm(gradients, axis=1, keepdims=True)
    expected = (unit @ unit.T)[np.triu_indices(9, 1)].mean()
    assert collinearity(gradients) == pytest.approx(expected)
    assert collinearity(np.concatenate((gradients, np.zeros((1, 5))))) == pytest.approx(expected)
    assert math.isnan(collinearity(gradients[:1]))
    assert collinearity(np.tile(ROW, (4, 1))) == pytest.approx(1.0)


def test_stability_and_entanglement():
    axis = np.eye(4)[[0, 0, 1]]
    cavs = np.concatenate((axis, -axis, RNG.normal(size=(3, 4))))
    cavs[8] = np.nan
    got = stability(cavs, 3)
    assert got[0] == pytest.approx(1 / 3)
    assert got[2] == pytest.approx(mean_pairwise_cosine(cavs[6:8]))
    cosines = entanglement(cavs, 3)
    assert np.diag(cosines) == pytest.approx(np.ones(3))
    assert cosines[0, 1] == pytest.approx(-1.0)
    assert np.isnan(entanglement(np.full((2, 3), np.nan), 2)).all()
    with pytest.raises(ValueError, match="R = 2"):
        stability(cavs, 2)


def test_learnability_is_the_rank_among_stand_ins():
    null = np.linspace(0.4, 0.6, 39)
    good = learnability(0.598, null)
    assert good.learnable
    assert good.p == pytest.approx(2 / 40)
    assert good.null_accuracy == pytest.approx(null[-2])
    bad = learnability(null[-2], null)  # a tie counts as at least as accurate
    assert not bad.learnable
    assert bad.p == pytest.approx(3 / 40)
    assert "held-out accuracy 0.59: random sets reach 0.59 by chance" in bad.reason
    assert learnability(0.3, null).p == 1
    assert not learnability(0.598, np.append(null[:-2], [np.nan, np.nan])).learnable
    assert not learnability(np.nan, null).learnable
    assert not learnability(0.9, []).learnable
    with pytest.raises(ValueError, match="alpha must be in"):
        learnability(0.9, null, alpha=0.0)


def test_too_few_stand_ins_decide_nothing_and_say_how_many_would():
    few = learnability(0.99, np.linspace(0.4, 0.6, 18))
    assert not few.learnable
    assert "18 random sets in the concept's place can't give a p below 0.053: 19 are needed" in few.reason
    assert learnability(0.99, np.linspace(0.4, 0.6, 19)).learnable
    assert learnability(0.99, np.linspace(0.4, 0.6, 9), alpha=0.1).learnable


def test_needed_is_what_reaches_the_power_asked_for():
    n, sd, effect = 25, 0.4, 0.5
    got = needed(effect, sd, n, 50, num_cells=10)
    assert got.more_clips == got.clips - n
    z = effect / (sd * np.sqrt(n / got.clips))
    power = scipy.stats.norm.sf(scipy.stats.norm.isf(0.0025) - z)
    assert power == pytest.approx(0.8, abs=0.02)
    assert got.random_sets == 199
    assert got.more_random_sets == 149
    assert str(int(got.clips)) in got.sentence
    enough = needed(5.0, 0.4, 25, 19)
    assert (enough.more_clips, enough.more_random_sets) == (0, 0)
    assert math.isnan(needed(0.0, 0.4, 25, 19).clips)
    assert math.isnan(needed(math.nan, 0.4, 25, 19).clips)
    with pytest.raises(ValueError, match="at least 1"):
        needed(1.0, 1.0, 0, 5)


def test_needed_follows_the_p_that_the_correction_accepts():
    n, sd, effect = 25, 0.4, 0.5
    strict = needed(effect, sd, n, 50, num_cells=448)
    actual = needed(effect, sd, n, 50, num_cells=448, p_needed=0.05 / 14)
    assert actual.clips < strict.clips
    assert actual.random_sets == strict.random_sets  # of the sign counts, which share no permutations
    z = effect / (sd * np.sqrt(n / actual.clips))
    assert scipy.stats.norm.sf(scipy.stats.norm.isf(0.05 / 28) - z) == pytest.approx(0.8, abs=0.02)
    with pytest.raises(ValueError, match="p_needed"):
        needed(effect, sd, n, 50, p_needed=0.0)


def test_needed_also_moves_the_interval_beyond_the_smallest_effect():
    n, sd, effect, half, size = 25, 0.1, 0.5, 0.3, 0.2
    got = needed(effect, sd, n, 50, min_effect=size, half_width=half)
    spread = half / scipy.stats.norm.isf(0.025) * np.sqrt(n / got.clips)
    beyond = scipy.stats.norm.sf((size + half * np.sqrt(n / got.clips) - effect) / spread)
    assert beyond == pytest.approx(0.8, abs=0.02)
    assert got.clips > needed(effect, sd, n, 50).clips
    small = needed(0.15, sd, n, 50, min_effect=size, half_width=half)
    assert math.isnan(small.clips)
    assert "smallest effect of interest" in small.sentence
