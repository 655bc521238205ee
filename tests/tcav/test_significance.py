import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.examples import examples
from vtcav_ray.tcav import (
    adjust,
    empirical_test,
    minimum_p,
    null_pairs,
    paper_test,
    resolution_warning,
    round_robin_test,
    welch_test,
)


def test_round_robin_by_hand():
    # Three random sets: 0 beats 1 with 0.8, 0 beats 2 with 0.6, 1 beats 2 with 0.3.
    got = round_robin_test([0.9, 0.7, 0.5], [0.8, 0.6, 0.3])
    mean_0 = (0.8 + 0.6 + (1 - 0.9)) / 3
    mean_1 = ((1 - 0.8) + 0.3 + (1 - 0.7)) / 3
    mean_2 = ((1 - 0.6) + (1 - 0.3) + (1 - 0.5)) / 3
    distances = np.abs(np.array([mean_0, mean_1, mean_2]) - 0.5)
    assert got.score[0] == pytest.approx(0.7)
    assert got.p[0] == pytest.approx((1 + (distances >= 0.2 - 1e-12).sum()) / 4)
    assert got.null_mean[0] == pytest.approx(np.mean([0.8, 0.6, 0.3]))
    assert got.effect[0] == pytest.approx(0.7 - np.mean([0.8, 0.6, 0.3]))
    assert got.smallest_p == 0.25


@examples(50)
@given(st.integers(3, 9), st.integers(0, 10_000))
def test_round_robin_treats_all_sets_alike(num, seed):
    """With each of the R + 1 sets as the concept in turn, the p-values are the ranks, for any scores."""
    rng = np.random.default_rng(seed)
    table = rng.uniform(size=(num + 1, num + 1))
    table = np.triu(table, 1)
    table = table + np.tril(1 - table.T, -1)
    found = []
    for concept in range(num + 1):
        others = [k for k in range(num + 1) if k != concept]
        null = [table[others[i], others[j]] for i, j in null_pairs(num)]
        found.append(round_robin_test(table[concept, others], null).p[0])
    assert sorted(found) == pytest.approx(np.arange(1, num + 2) / (num + 1))


def test_cells_are_independent_of_each_other():
    rng = np.random.default_rng(0)
    own, null = rng.uniform(size=(5, 8)), rng.uniform(size=(5, 28))
    together = round_robin_test(own, null)
    for c in range(5):
        assert round_robin_test(own[c], null[c]).p[0] == together.p[c]


def test_empirical_and_welch():
    own, null = [0.9, 0.8, 0.85, 0.95], [0.5, 0.1, 0.4, 0.9, 0.6, 0.45, 0.2, 0.7, 0.55]
    got = empirical_test(own, null)
    assert got.p[0] == pytest.approx((1 + 2) / 10)  # 0.1 and 0.9 are at least as far from 1/2 as 0.875
    expected = scipy.stats.ttest_ind(own, null, equal_var=False).pvalue
    assert welch_test(own, null).p[0] == pytest.approx(expected)
    assert paper_test(own)[0] == pytest.approx(scipy.stats.ttest_ind(own, 1 - np.array(own)).pvalue)


def test_constant_runs():
    assert welch_test([1.0, 1.0], [0.0, 0.0, 0.0]).p[0] == 0.0
    assert welch_test([1.0, 1.0], [1.0, 1.0]).p[0] == 1.0
    assert paper_test([1.0, 1.0])[0] == 0.0
    assert paper_test([0.5, 0.5])[0] == 1.0


def test_a_missing_score_gives_no_p():
    assert np.isnan(round_robin_test([0.4, np.nan, 0.6], [0.1, 0.2, 0.3]).p[0])
    assert np.isnan(empirical_test([0.4, 0.6], [np.nan, 0.2, 0.3]).p[0])


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: round_robin_test([0.4], []), "null_scores must be"),
        (lambda: round_robin_test([0.4], [0.5]), "R = 1"),
        (lambda: round_robin_test([0.4, 0.5, 0.6], [0.5, 0.6]), "each of the 3 pairs of 3 random sets"),
        (lambda: round_robin_test([0.4, 1.5, 0.6], [0.5, 0.6, 0.7]), r"concept_scores must be sign counts in \[0, 1\]"),
        (lambda: empirical_test(np.zeros((2, 3)), np.zeros((3, 3))), "2 cells, and null_scores has 3"),
        (lambda: welch_test([0.5], [0.1, 0.2]), "at least two runs"),
        (lambda: null_pairs(1), "at least 2"),
        (lambda: adjust([0.5, 1.2]), r"p must be in \[0, 1\]"),
        (lambda: adjust([0.5, 0.2], m=1), "m is 1, and there are 2"),
        (lambda: adjust([0.5], method="bonferroni"), "holm, bh or none"),
    ],
)
def test_bad_input(call, what):
    with pytest.raises(ValueError, match=what):
        call()


def test_holm_and_bh_by_hand():
    p = [0.01, 0.04, 0.03, 0.005]
    assert adjust(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust(p, "bh") == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert adjust(p, "none") == pytest.approx(p)
    assert adjust([0.01, np.nan], m=10) == pytest.approx([0.1, np.nan], nan_ok=True)
    assert adjust([[0.01], [0.02]]).shape == (2, 1)


@examples(100)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(0, 20))
def test_corrections_keep_the_order_and_never_help(p, extra):
    p = np.array(p)
    holm, bh = adjust(p, m=len(p) + extra), adjust(p, "bh", m=len(p) + extra)
    order = np.argsort(p, kind="stable")
    for q in (holm, bh):
        assert (q >= p - 1e-12).all()
        assert (q <= 1).all()
        assert (np.diff(q[order]) >= -1e-12).all()
    assert (bh <= holm + 1e-12).all()
    assert bh == pytest.approx(scipy.stats.false_discovery_control(p) if extra == 0 else bh)


def test_too_few_random_sets_are_warned_of():
    assert minimum_p(50) == pytest.approx(1 / 51)
    assert resolution_warning(19, 1) is None
    assert "1 more" in resolution_warning(18, 1)
    text = resolution_warning(50, 100)
    assert "1999 random sets" in text
    assert "1949 more" in text
