"""The batched solvers agree with scikit-learn on many random problems of all shapes."""

import numpy as np
import pytest
import torch

from tests.helpers.sklearn_reference import train_reference
from vtcav_ray.cavs import gram, train_cavs
from vtcav_ray.cavs.solvers import newton

SOLVERS = ("logistic", "ridge", "svm")


def problem(seed, d, n, m, *, kind="plain"):
    """Make a pool of n positives and m negatives, some of them ill-conditioned."""
    rng = np.random.default_rng([seed, d, n, m])
    pool = rng.normal(size=(n + m, d)) * rng.uniform(0.3, 3.0, size=d) + rng.normal(size=d) * 2
    pool[:n] += rng.normal(size=d) * 2 / np.sqrt(d)
    if kind == "duplicates":
        pool[1 : n // 2] = pool[0]
        pool[n + 1 : n + m // 2] = pool[n]
    elif kind == "constant":
        pool[:, : max(1, d // 2)] = 7.0
    return pool.astype(np.float32)


def compare(pool, n, solver, regularization=1.0, held_out=0.33):
    """Train both ways on the same split, compare them, and return the package's CAVs and the reference."""
    cavs = train_cavs(
        pool,
        [np.arange(n)],
        [np.arange(n, len(pool))],
        solver=solver,
        regularization=regularization,
        held_out=held_out,
    )
    assert cavs.reason == ("",)
    labels = np.where(np.arange(len(pool)) < n, 1, -1)
    train = np.sort(cavs.coefficients.indices)
    tested = np.setdiff1d(np.arange(len(pool)), train)
    reference = train_reference(
        pool[train], labels[train], pool[tested], labels[tested], solver=solver, regularization=regularization
    )
    assert cavs.vectors[0] @ reference.vector >= 0.999
    assert np.linalg.norm(cavs.vectors[0]) == pytest.approx(1.0, abs=1e-5)
    # Compare decisions, not biases: along a constant column L-BFGS trades weight for bias until it stops.
    ours, theirs = pool @ cavs.vectors[0] + cavs.bias[0], pool @ reference.vector + reference.bias
    assert ours == pytest.approx(theirs, abs=0.02 * np.ptp(theirs))
    # A row closer to the plane than the reference's convergence may fall on either side.
    clear = np.abs(theirs) > 0.005 * np.ptp(theirs)
    if clear[train].all():
        assert cavs.train_accuracy[0] == pytest.approx(reference.train_accuracy, abs=1e-6)
    if len(tested) and clear[tested].all():
        assert cavs.held_out_accuracy[0] == pytest.approx(reference.held_out_accuracy, abs=1e-6)
    return cavs, reference


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("d", "n", "m"), [(2, 40, 40), (5, 100, 30), (300, 4, 6), (768, 50, 50), (5000, 2, 2)])
@pytest.mark.parametrize("kind", ["plain", "duplicates", "constant"])
def test_agrees_with_scikit_learn(solver, d, n, m, kind):
    compare(problem(1, d, n, m, kind=kind), n, solver)


@pytest.mark.parametrize("solver", SOLVERS)
def test_agrees_with_scikit_learn_when_one_class_is_tiny(solver):
    compare(problem(2, 40, 3, 200), 3, solver)
    compare(problem(3, 400, 150, 2), 150, solver)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("regularization", [1e-3, 0.1, 10.0])
def test_regularization_is_in_scikit_learns_convention(solver, regularization):
    compare(problem(4, 20, 30, 30), 30, solver, regularization)


@pytest.mark.parametrize("solver", SOLVERS)
def test_nothing_held_out_trains_on_all(solver):
    cavs, _ = compare(problem(5, 10, 20, 20), 20, solver, held_out=0.0)
    assert cavs.coefficients.nnz <= 40
    assert np.isnan(cavs.held_out_accuracy[0])


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("seed", range(12))
def test_agrees_with_scikit_learn_on_many_problems(solver, seed):
    rng = np.random.default_rng(seed)
    d = int(10 ** rng.uniform(0.31, 3.5))
    n, m = (int(10 ** rng.uniform(0.7, 2.3)) for _ in range(2))
    compare(problem(seed, d, n, m), n, solver, float(10 ** rng.uniform(-2, 0.5)))


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("d", "n"), [(200_000, 4), (200_000, 20), (64, 500), (3, 500)])
def test_agrees_with_scikit_learn_at_the_extremes(solver, d, n):
    compare(problem(6, d, n, n), n, solver, 0.1)


def test_a_large_common_offset_costs_no_accuracy():
    pool = problem(7, 50, 30, 30)
    plain = train_cavs(pool, [np.arange(30)], [np.arange(30, 60)])
    moved = train_cavs(pool + np.float32(300.0), [np.arange(30)], [np.arange(30, 60)])
    assert plain.vectors[0] @ moved.vectors[0] > 0.9999
    decision = (pool + np.float32(300.0)) @ moved.vectors[0] + moved.bias[0]
    assert np.allclose(decision, pool @ plain.vectors[0] + plain.bias[0], atol=0.02)


def test_pattern_is_the_difference_of_the_means():
    pool = problem(8, 12, 15, 9)
    cavs = train_cavs(pool, [np.arange(15)], [np.arange(15, 24)], solver="pattern", held_out=0.0)
    difference = pool[:15].mean(0) - pool[15:].mean(0)
    assert cavs.vectors[0] == pytest.approx(difference / np.linalg.norm(difference), abs=1e-5)
    middle = (pool[:15].mean(0) + pool[15:].mean(0)) / 2
    assert middle @ cavs.vectors[0] + cavs.bias[0] == pytest.approx(0.0, abs=1e-4)


def test_batch_and_single_agree():
    pool = problem(9, 40, 60, 60)
    rng = np.random.default_rng(0)
    positives = np.stack([rng.choice(60, 20, replace=False) for _ in range(30)])
    negatives = np.stack([60 + rng.choice(60, 25, replace=False) for _ in range(30)])
    matrix = gram(pool)
    together = train_cavs(matrix, positives, negatives)
    for at in (0, 7, 29):
        alone = train_cavs(matrix, positives[at : at + 1], negatives[at : at + 1])
        assert alone.vectors[0] == pytest.approx(together.vectors[at], abs=1e-6)
        assert alone.held_out_accuracy[0] == together.held_out_accuracy[at]


def test_ragged_sets_and_padding_are_the_same():
    pool = problem(10, 20, 30, 30)
    left, right = [np.arange(10), np.arange(25)], [np.arange(30, 60), np.arange(30, 37)]
    padded_left = np.full((2, 25), -1)
    padded_right = np.full((2, 30), -1)
    for at in range(2):
        padded_left[at, : len(left[at])] = left[at]
        padded_right[at, : len(right[at])] = right[at]
    ragged, padded = train_cavs(pool, left, right), train_cavs(pool, padded_left, padded_right)
    assert np.array_equal(ragged.vectors, padded.vectors)
    assert ragged.n_positives.tolist() == [10, 25]
    assert ragged.n_negatives.tolist() == [30, 7]


def test_swapping_the_sides_turns_the_cav_round():
    pool = problem(11, 30, 25, 25)
    for solver in ("logistic", "ridge", "svm", "pattern"):
        one = train_cavs(pool, [np.arange(25)], [np.arange(25, 50)], solver=solver)
        other = train_cavs(pool, [np.arange(25, 50)], [np.arange(25)], solver=solver)
        assert one.vectors[0] == pytest.approx(-other.vectors[0], abs=1e-4)
        assert one.held_out_accuracy[0] == other.held_out_accuracy[0]


def test_newton_converges_where_examples_are_separable_and_hardly_regularised():
    pool = problem(12, 500, 30, 30).astype(np.float64)
    centred = pool - pool.mean(0)
    kernel = torch.from_numpy(centred @ centred.T)[None]
    labels = torch.where(torch.arange(60) < 30, 1.0, -1.0).double()[None]
    solution = newton(kernel, labels, "logistic", 1e6)
    assert solution.converged_M.all()
    assert solution.steps_M.max() < 30
    a = solution.coefficients_MT
    f = (kernel[0] @ a[0]) + solution.bias_M[0]
    # The equation that holds at the optimum, a_i = C y_i sigmoid(-y_i f_i), compared as lengths of w.
    off = a[0] - 1e6 * labels[0] * torch.sigmoid(-labels[0] * f)
    assert off @ kernel[0] @ off < 1e-6 * (a[0] @ kernel[0] @ a[0])


def test_sensitivities_through_the_pool_are_those_of_the_vectors():
    pool = problem(13, 3000, 6, 6)
    rng = np.random.default_rng(0)
    positives = np.stack([rng.choice(6, 4, replace=False) for _ in range(40)])
    negatives = 6 + np.stack([rng.choice(6, 4, replace=False) for _ in range(40)])
    gradients = rng.normal(size=(3, 3000)).astype(np.float32)
    for solver in ("logistic", "svm"):
        cavs = train_cavs(pool, positives, negatives, solver=solver)
        through_pool = cavs.sensitivities(gradients)
        assert "vectors" not in cavs.__dict__, "d is large: no vectors should have been formed"
        assert through_pool == pytest.approx(gradients @ cavs.vectors.T, abs=1e-3)


def test_float32_matrix_gives_the_same_cavs():
    pool = problem(14, 100, 40, 40)
    sets = [np.arange(40)], [np.arange(40, 80)]
    exact = train_cavs(gram(pool, dtype=torch.float64), *sets)
    single = train_cavs(gram(pool, dtype=torch.float32), *sets)
    assert exact.vectors[0] @ single.vectors[0] > 0.999999
