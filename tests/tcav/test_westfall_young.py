"""Step-down min-p within a family, and Holm over families."""

from __future__ import annotations

import itertools

import numpy as np
import plain_statistics as plain
import pytest

from vtcav_ray.tcav import adjust, effect_family, holm_over_families, paired_effect_family, permuted_cells, step_down
from vtcav_ray.tcav.permutation import Tails
from vtcav_ray.tcav.permuted_cells import tail_counts
from vtcav_ray.tcav.westfall_young import step_down_and_smallest, strictest_p


def binomial_bound(trials: int, rate: float) -> float:
    return rate + 3.8 * float(np.sqrt(rate * (1 - rate) / trials))


@pytest.mark.parametrize("tails", ["equal", "symmetric"])
@pytest.mark.parametrize("seed", range(4))
def test_step_down_is_the_plain_one(seed: int, tails: str) -> None:
    rng = np.random.default_rng(seed)
    statistics = np.round(rng.standard_t(4, size=(5, 60)), 1)  # with ties
    statistics[1] = 2 * statistics[0]
    statistics[:2, 0] += 3
    got = step_down(statistics, tails=tails)  # type: ignore[arg-type]
    assert got.p == pytest.approx([plain.tail_p(row, 0, tails) for row in statistics.tolist()])
    assert got.adjusted == pytest.approx(plain.step_down(statistics.tolist(), tails))
    assert (got.adjusted >= got.p - 1e-12).all()


def test_a_family_is_the_plain_one() -> None:
    rng = np.random.default_rng(0)
    s = rng.gamma(1, size=(9, 4)) + np.repeat([[1.0], [0.0]], (4, 5), axis=0) * [0, 2, 0, 1]
    got = effect_family(s[:4], s[4:])
    every = [plain.every_welch(cell.tolist(), 4) for cell in s.T]
    assert got.p == pytest.approx([plain.tail_p(cell, 0, "equal") for cell in every])
    assert got.p_adjusted == pytest.approx(plain.step_down(every, "equal"))
    assert got.null_counts.sum(axis=1).tolist() == [126] * 4


@pytest.mark.parametrize("tails", ["equal", "symmetric"])
def test_a_family_of_pairs_is_the_plain_one(tails: Tails) -> None:
    rng = np.random.default_rng(5)
    differences = rng.gamma(1, size=(7, 4)) - [0.2, 0.9, 1.0, 1.1]
    got = paired_effect_family(differences, tails=tails, permutations=128)
    every = [[float(np.dot(signs, d)) for signs in itertools.product((1, -1), repeat=7)] for d in differences.T]
    assert got.p == pytest.approx([plain.tail_p(one, 0, tails) for one in every])
    assert got.p_adjusted == pytest.approx(plain.step_down(every, tails))
    assert got.effect / got.null_unit == pytest.approx([one[0] / np.std(one) for one in every])
    assert (got.null_counts.sum(axis=1) == 128).all()
    assert np.isnan([got.spread_ratio, got.effect_within, got.p_within]).all()


def test_a_family_of_pairs_flips_whole_videos_and_leaves_cells_out() -> None:
    rng = np.random.default_rng(6)
    differences = rng.normal(size=(9, 3)) + 1
    differences[:, 1] = 0
    differences[3, 2] = np.nan
    videos = [0, 0, 1, 2, 3, 4, 5, 6, 6]
    got = paired_effect_family(differences, groups=videos, permutations=500)
    by_video = np.stack([differences[np.equal(videos, v), 0].mean() for v in range(7)])
    assert got.n_concept == got.n_random == 7
    assert got.p[0] == got.p_adjusted[0] == paired_effect_family(by_video[:, None]).p[0]
    assert np.isnan(got.p[1:]).all()
    assert got.effect[1] == 0
    steady = paired_effect_family(np.ones((7, 1)))
    assert steady.p[0] == pytest.approx(2 / 2**7)
    with pytest.raises(ValueError, match="permutations must be at least 1"):
        paired_effect_family(differences, permutations=0)


def test_step_down_is_monotone_and_leaves_nan_out() -> None:
    rng = np.random.default_rng(1)
    statistics = rng.normal(size=(20, 400))
    statistics[:5, 0] += np.arange(5)
    got = step_down(statistics)
    order = np.argsort(got.p)
    assert (np.diff(got.adjusted[order]) >= 0).all()
    with_nan = np.insert(statistics, [3, 9], np.nan, axis=0)
    with_nan[0, 7] = np.nan
    left_out = step_down(with_nan)
    kept = step_down(statistics[1:])
    assert np.isnan(left_out.p[[0, 3, 10]]).all()
    assert np.isnan(left_out.adjusted[[0, 3, 10]]).all()
    assert np.delete(left_out.adjusted, [0, 3, 10]) == pytest.approx(kept.adjusted)
    assert np.isnan(step_down(np.full((2, 9), np.nan)).adjusted).all()


def test_copies_cost_nothing_and_one_cell_keeps_its_p() -> None:
    statistics = np.random.default_rng(2).normal(size=(1, 500))
    statistics[0, 0] = 2.5
    one = step_down(statistics)
    assert one.adjusted == pytest.approx(one.p)
    copies = step_down(np.repeat(statistics, 30, axis=0) * np.arange(1, 31)[:, None])
    assert copies.adjusted == pytest.approx(np.repeat(one.p, 30))


@pytest.mark.slow
def test_the_family_wise_error_is_kept_and_power_beats_holm() -> None:
    rng = np.random.default_rng(3)
    simulations, null_wrong, part_wrong, found, found_by_holm = 200, 0, 0, 0, 0
    for number in range(simulations):
        # 16 cells that share most of their noise, skewed, as neighbouring layers do.
        both = rng.gamma(1, size=(24, 1)) + 0.4 * rng.gamma(1, size=(24, 16))
        null = effect_family(both[:12], both[12:], permutations=399, seed=number)
        null_wrong += bool((null.p_adjusted <= 0.05).any())
        both[:12, :4] += 1.2
        some = effect_family(both[:12], both[12:], permutations=399, seed=number)
        part_wrong += bool((some.p_adjusted[4:] <= 0.05).any())
        found += int((some.p_adjusted[:4] <= 0.05).sum())
        found_by_holm += int((adjust(some.p) <= 0.05)[:4].sum())
    assert null_wrong / simulations <= binomial_bound(simulations, 0.05)
    assert part_wrong / simulations <= binomial_bound(simulations, 0.05)
    assert null_wrong > 0.01 * simulations
    assert found > 1.3 * found_by_holm


def test_statistics_that_are_not_kept_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    concept, random = rng.normal(size=(10, 9)) + 0.5, rng.normal(size=(14, 9))
    strata = rng.choice(list("ab"), 24)
    kept = effect_family(concept, random, strata=strata, permutations=700)
    monkeypatch.setattr(permuted_cells, "_KEPT_NUMBERS", 0)
    monkeypatch.setattr(permuted_cells, "_BLOCK_NUMBERS", 50)
    computed = effect_family(concept, random, strata=strata, permutations=700)
    for name in ("p", "p_symmetric", "p_adjusted", "p_within", "p_within_adjusted", "null_counts"):
        assert np.array_equal(getattr(kept, name), getattr(computed, name)), name


def test_cells_without_a_test_are_left_out_of_a_family() -> None:
    rng = np.random.default_rng(5)
    concept, random = rng.normal(size=(6, 3)) + 1, rng.normal(size=(7, 3))
    whole = effect_family(concept, random, permutations=300)
    more = [np.insert(side, [1, 2], np.nan, axis=1) for side in (concept, random)]
    more[0][:, 3] = more[1][:, 3] = 4.0
    got = effect_family(*more, permutations=300)
    assert np.isnan(got.p[[1, 3]]).all()
    assert np.isnan(got.p_adjusted[[1, 3]]).all()
    assert got.p_adjusted[[0, 2, 4]] == pytest.approx(whole.p_adjusted)
    assert got.null_counts[[1, 3]].sum() == 0


@pytest.mark.parametrize("claim", ["cells", "families"])
def test_holm_over_families_is_the_sequential_procedure(claim: str) -> None:
    rng = np.random.default_rng(6)
    for _ in range(30):
        families = [rng.choice([0.001, 0.004, 0.01, 0.02, 0.04, 0.2, 0.7], size=rng.integers(1, 4)) for _ in range(4)]
        q = holm_over_families(families, claim=claim)  # type: ignore[arg-type]
        for alpha in (0.003, 0.011, 0.021, 0.05, 0.1, 0.5):
            expected = plain.families_rejected(families, alpha, claim)
            assert [set(np.flatnonzero(one <= alpha + 1e-12)) for one in q] == expected


def test_families_of_one_cell_are_holm() -> None:
    p = np.random.default_rng(7).random(12) ** 3
    for claim in ("cells", "families"):
        q = holm_over_families(p[:, None], claim=claim)  # type: ignore[arg-type]
        assert np.concatenate(q) == pytest.approx(adjust(p))


def test_nan_in_families() -> None:
    q = holm_over_families([[0.01, np.nan], [np.nan], [[0.2], [0.03]]])
    assert q[0] == pytest.approx([0.02, np.nan], nan_ok=True)
    assert np.isnan(q[1]).all()
    assert q[2].shape == (2, 1)
    assert q[2].ravel() == pytest.approx([0.2, 0.03])  # the first family is settled at 0.02
    assert holm_over_families([]) == []


@pytest.mark.slow
def test_what_each_claim_is_about() -> None:
    rng = np.random.default_rng(8)
    simulations, families = 2000, 8
    wrong = {"cells": 0, "families": 0}
    named_wrong = 0
    for _ in range(simulations):
        # In each family one cell is certain and the other has no effect; its p is uniform.
        mixed = [np.array([1e-9, p]) for p in rng.random(families)]
        for claim in ("cells", "families"):
            q = holm_over_families(mixed, claim=claim)  # type: ignore[arg-type]
            wrong[claim] += any(one[1] <= 0.05 for one in q)
        half = [*mixed[:4], *(np.array([p]) for p in rng.random(4))]
        named_wrong += any(one[0] <= 0.05 for one in holm_over_families(half, claim="families")[4:])
    assert wrong["cells"] / simulations <= binomial_bound(simulations, 0.05)
    assert wrong["families"] / simulations > 0.09  # up to 0.05 * (1 + 1/2 + ... + 1/8)
    assert named_wrong / simulations <= binomial_bound(simulations, 0.05)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"statistics must be \[cells, arrangements\] with the observed"):
        step_down(np.zeros(5))
    with pytest.raises(ValueError, match="statistics has infinite values, first in cell 1: set the cell to NaN"):
        step_down([[1.0, 2.0], [np.inf, 0.0]])
    with pytest.raises(ValueError, match="tails must be equal or symmetric"):
        step_down(np.zeros((2, 5)), tails="both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"adjusted\[1\] must hold p-values in \[0, 1\]"):
        holm_over_families([[0.1], [1.2]])
    with pytest.raises(ValueError, match="claim must be cells or families"):
        holm_over_families([[0.1]], claim="all")  # type: ignore[arg-type]
    rows = np.random.default_rng(0).normal(size=(5, 3))
    with pytest.raises(ValueError, match=r"random has d = 2, and concept has d = 3"):
        effect_family(rows, rows[:, :2])
    with pytest.raises(ValueError, match=r"concept must be projections \[videos, cells\]"):
        effect_family(rows[:0], rows)
    with pytest.raises(ValueError, match="random has infinite values, first in cell 0"):
        effect_family(rows, np.full((4, 3), np.inf))
    with pytest.raises(ValueError, match="permutations must be at least 1"):
        effect_family(rows, rows, permutations=0)
    with pytest.raises(ValueError, match=r"1 source video\(s\) are in both concept and random: draw"):
        effect_family(rows, rows, groups=[*range(5), 4, *range(5, 9)])


@pytest.mark.slow
@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("level", [0.05, 0.012])
def test_the_strictest_step_accepts_this_p_and_no_larger_one(copies: bool, level: float) -> None:
    """Brute force: give each arrangement in turn the place of the observed one, and see which p it has and needs."""
    rng = np.random.default_rng(5)
    statistics = rng.normal(size=(1 if copies else 6, 400)).astype(np.float32)
    statistics = np.repeat(statistics, 6, axis=0) if copies else statistics
    counts = tail_counts(statistics, "equal")
    _, smallest = step_down_and_smallest(counts, lambda cells: statistics[cells], "equal")
    limit = strictest_p(smallest, level)
    for observed in range(statistics.shape[1]):
        order = np.r_[observed, np.delete(np.arange(400), observed)]
        found = step_down(statistics[:, order])
        best = int(np.argmin(found.p))
        assert (found.adjusted[best] <= level) == (found.p[best] <= limit)
    assert limit == pytest.approx(level if copies else level / 6, abs=0.005)


def test_too_few_permutations_leave_no_p_that_is_small_enough() -> None:
    smallest = np.array([2, 4, 6, 8], np.int32)
    assert strictest_p(smallest, 0.2) == 0.0
    assert strictest_p(smallest, 0.3) == 0.0  # one arrangement in four may pass, and each has a p of 2 / 4 or more
    assert strictest_p(smallest, 0.5) == pytest.approx(2 / 4)
    assert strictest_p(smallest, 1.0) == 1.0
