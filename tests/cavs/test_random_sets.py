import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.examples import examples
from vtcav_ray.cavs import against_each, against_pairs, against_rest, random_against_random, random_sets
from vtcav_ray.tcav import null_pairs


@examples(60)
@given(st.integers(1, 8), st.integers(1, 6), st.integers(0, 20), st.integers(0, 1000))
def test_sets_are_disjoint_in_source_videos(count, size, spare, seed):
    videos = np.arange(count * size + spare)
    groups = np.repeat(videos, 3)
    drawn = random_sets(groups, count, size, seed=seed)
    assert drawn.disjoint
    assert drawn.warning == ""
    used = np.concatenate([groups[rows] for rows in drawn.rows])
    assert len(used) == count * size
    assert len(np.unique(used)) == count * size


def test_rows_and_exclude_are_kept_to():
    groups = np.repeat([f"v{k}" for k in range(30)], 2)
    allowed = np.arange(0, 60, 2)
    drawn = random_sets(groups, 4, 5, rows=allowed, exclude=["v0", "v3"])
    rows = np.concatenate(drawn.rows)
    assert set(rows) <= set(allowed)
    assert not {"v0", "v3"} & set(groups[rows])


def test_a_profile_is_matched():
    groups = np.repeat(np.arange(40), 4)
    for rows in random_sets(groups, 3, 4, profile=[1, 3, 1, 2]).rows:
        assert sorted(np.unique(groups[rows], return_counts=True)[1].tolist()) == [1, 1, 2, 3]


def test_too_small_a_pool_says_by_how_much():
    groups = np.arange(25)
    with pytest.raises(ValueError, match=r"5 disjoint random sets of 6 need 30 .* 25: 5 are missing.* 4 sets"):
        random_sets(groups, 5, 6)
    drawn = random_sets(groups, 5, 6, overlap=True)
    assert not drawn.disjoint
    assert drawn.missing_videos == 5
    assert "overlap" in drawn.warning
    assert all(len(np.unique(rows)) == 6 for rows in drawn.rows)
    with pytest.raises(ValueError, match="not even one set"):
        random_sets(groups, 2, 26, overlap=True)


def test_draws_follow_the_seed():
    groups = np.arange(100)
    one, again, other = (np.stack(random_sets(groups, 3, 5, seed=seed).rows) for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_null_pairs_are_each_once_and_in_one_order():
    sets = [np.arange(k, k + 2) for k in range(0, 12, 2)]
    positives, negatives = random_against_random(sets)
    order = null_pairs(6)
    assert len(order) == 15
    assert len({frozenset(pair) for pair in order.tolist()}) == 15
    for (i, j), left, right in zip(order, positives, negatives, strict=True):
        assert i < j
        assert np.array_equal(left, sets[i])
        assert np.array_equal(right, sets[j])


def test_one_against_the_rest_holds_no_row_twice():
    positives, negatives = against_rest([np.array([0, 1, 2]), np.array([2, 3]), np.array([4])])
    assert positives.tolist() == [[0, 1, 2], [2, 3, -1], [4, -1, -1]]
    assert [sorted(row[row >= 0].tolist()) for row in negatives] == [[3, 4], [0, 1, 4], [0, 1, 2, 3]]
    with pytest.raises(ValueError, match="at least two"):
        against_rest([np.arange(3)])


def test_pairs_and_runs():
    positives, negatives = against_pairs([np.array([0, 1]), np.array([2]), np.array([3, 4])], [(0, 1), (2, 0)])
    assert positives.tolist() == [[0, 1], [3, 4]]
    assert negatives.tolist() == [[2, -1], [0, 1]]
    with pytest.raises(ValueError, match="two different"):
        against_pairs([np.arange(2), np.arange(2, 4)], [(1, 1)])
    own, other = against_each(np.array([7, 8]), [np.array([0, 1]), np.array([2])])
    assert own.tolist() == [[7, 8], [7, 8]]
    assert other.tolist() == [[0, 1], [2, -1]]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"count": 0, "size": 2}, "at least 1"),
        ({"count": 2, "size": 2, "profile": [1]}, "profile must hold 2"),
        ({"count": 2, "size": 2, "rows": [0, 99]}, "rows holds an index"),
    ],
)
def test_bad_arguments(arguments, what):
    with pytest.raises(ValueError, match=what):
        random_sets(np.arange(10), **arguments)
