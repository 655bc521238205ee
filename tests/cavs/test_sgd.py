"""Stochastic gradient descent agrees with scikit-learn's as well as scikit-learn's seeds agree with each other."""

import numpy as np
import pytest

from tests.helpers.sklearn_reference import train_reference
from vtcav_ray.cavs import train_cavs


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.01, 0.1])
def test_as_near_to_scikit_learns_direction_as_its_seeds_are_to_each_other(alpha):
    rng = np.random.default_rng(0)
    n, d = 40, 60
    pool = (rng.normal(size=(2 * n, d)) / np.sqrt(d)).astype(np.float32)
    pool[:n, :5] += 0.5
    labels = np.where(np.arange(2 * n) < n, 1, -1)
    theirs = np.stack(
        [
            train_reference(pool, labels, pool[:0], labels[:0], solver="sgd", regularization=alpha, seed=seed).vector
            for seed in range(8)
        ]
    )
    # The CAVs of a batch take their examples in different orders, so equal sets act like different seeds.
    sets = np.tile(np.arange(n), (8, 1)), np.tile(np.arange(n, 2 * n), (8, 1))
    ours = train_cavs(pool, *sets, solver="sgd", regularization=alpha, held_out=0.0).vectors
    among_theirs = (theirs @ theirs.T)[np.triu_indices(8, 1)].mean()
    between = (ours @ theirs.T).mean()
    assert between == pytest.approx(among_theirs, abs=0.02)


@pytest.mark.slow
def test_the_seed_decides():
    rng = np.random.default_rng(1)
    pool = rng.normal(size=(30, 8))
    sets = [np.arange(15)], [np.arange(15, 30)]
    one, again, other = (train_cavs(pool, *sets, solver="sgd", held_out=0.0, seed=seed).vectors for seed in (0, 0, 1))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
