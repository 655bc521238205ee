import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.examples import examples
from vtcav_ray.cavs import train_cavs
from vtcav_ray.cavs.indices import PAD
from vtcav_ray.cavs.splits import split


@st.composite
def problems(draw):
    """Make padded sets over a pool in which a video has several rows and may be on both sides."""
    rows = draw(st.integers(4, 40))
    videos = draw(st.integers(2, rows))
    groups = np.array(draw(st.lists(st.integers(0, videos - 1), min_size=rows, max_size=rows)))
    cut = draw(st.integers(1, rows - 1))
    left = np.full((2, cut + 2), PAD)
    right = np.full((2, rows - cut), PAD)
    left[0, :cut] = np.arange(cut)
    left[1, : max(1, cut // 2)] = np.arange(max(1, cut // 2))
    right[:] = np.arange(cut, rows)
    return left, right, groups, draw(st.floats(0.05, 0.9)), draw(st.integers(0, 2**31))


@pytest.mark.slow
@examples(200)
@given(problems())
def test_a_video_is_never_on_both_sides_of_a_split(problem):
    left, right, groups, held_out, seed = problem
    held_left, held_right, possible = split(left, right, groups, held_out=held_out, seed=seed)
    assert not held_left[left == PAD].any()
    for cav in range(len(left)):
        rows = np.concatenate((left[cav], right[cav]))
        held = np.concatenate((held_left[cav], held_right[cav]))
        used = rows != PAD
        train = set(groups[rows[used & ~held]])
        assert not train & set(groups[rows[used & held]])
        if possible[cav]:
            for side, marks in ((left[cav], held_left[cav]), (right[cav], held_right[cav])):
                assert (side[marks] != PAD).any(), "each side has a held-out row"
                assert (side[~marks] != PAD).any(), "each side has a train row"
        else:
            assert not held.any()


@pytest.mark.slow
def test_it_is_possible_whenever_both_sides_have_two_videos_of_their_own():
    rng = np.random.default_rng(0)
    for seed in range(200):
        n, m = rng.integers(2, 12, size=2)
        left, right = np.arange(n)[None], np.arange(n, n + m)[None]
        groups = np.concatenate((np.arange(n) % max(2, n // 2), 100 + np.arange(m) % max(2, m // 3)))
        assert split(left, right, groups, held_out=float(rng.uniform(0.01, 0.99)), seed=seed)[2].all()


@pytest.mark.slow
@examples(200)
@given(problems())
def test_only_a_side_of_a_single_video_makes_it_impossible(problem):
    left, right, groups, held_out, seed = problem
    possible = split(left, right, groups, held_out=held_out, seed=seed)[2]
    for cav in range(len(left)):
        assert possible[cav] == all(len(set(groups[side[cav][side[cav] != PAD]])) > 1 for side in (left, right))


def test_negatives_of_a_few_of_the_same_videos_are_split_in_every_run():
    left, right = np.arange(10)[None], np.arange(10, 13)[None]
    groups = np.concatenate((np.arange(10), np.arange(3)))
    for seed in range(50):
        held_left, held_right, possible = split(left, right, groups, held_out=0.33, seed=seed)
        assert possible.all()
        assert (held_left.sum(), held_right.sum()) == (3, 1)


def test_single_rows_are_held_out_in_the_share_asked_for():
    left, right = np.arange(50)[None], np.arange(50, 150)[None]
    held_left, held_right, _ = split(left, right, np.arange(150), held_out=0.33, seed=1)
    assert held_left.sum() == 17  # 16.5, rounded
    assert held_right.sum() == 33


def test_splits_differ_by_seed_and_by_cav_and_not_by_place_in_the_batch():
    left = np.stack([np.arange(20), np.arange(20), np.arange(1, 21)])
    right = np.stack([np.arange(30, 50)] * 3)
    held, _, _ = split(left, right, np.arange(50), held_out=0.3, seed=0)
    other, _, _ = split(left, right, np.arange(50), held_out=0.3, seed=1)
    assert np.array_equal(held[0], held[1])
    assert not np.array_equal(held[0], other[0])
    alone, _, _ = split(left[2:], right[2:], np.arange(50), held_out=0.3, seed=0)
    assert np.array_equal(alone[0], held[2])


@pytest.mark.slow
def test_every_row_is_held_out_about_equally_often():
    left, right = np.arange(12)[None], np.arange(12, 24)[None]
    share = np.mean([split(left, right, np.arange(24), held_out=0.33, seed=seed)[0][0] for seed in range(2000)], axis=0)
    assert share == pytest.approx(4 / 12, abs=0.05)


def test_trained_coefficients_touch_no_held_out_video():
    rng = np.random.default_rng(0)
    pool = rng.normal(size=(60, 10))
    groups = np.array([f"video {k // 3}" for k in range(60)])
    cavs = train_cavs(pool, [np.arange(30)], [np.arange(30, 60)], groups=groups, solver="pattern")
    train = set(groups[cavs.coefficients.indices])
    assert 10 < len(train) < 17
    for video in set(groups) - train:
        assert not set(np.flatnonzero(groups == video)) & set(cavs.coefficients.indices)
    assert all(set(np.flatnonzero(groups == video)) <= set(cavs.coefficients.indices) for video in train)
