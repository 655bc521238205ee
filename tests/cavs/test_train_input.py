"""Bad input gives a clear error or a marked CAV, never a silent number."""

import numpy as np
import pytest
import torch

from tests.helpers.sklearn_reference import train_reference
from vtcav_ray.cavs import gram, train_cavs
from vtcav_ray.cavs.train import NO_DIFFERENCE, ONE_VIDEO

RNG = np.random.default_rng(0)
POOL = RNG.normal(size=(20, 6)).astype(np.float32)
LEFT, RIGHT = np.arange(10)[None], np.arange(10, 20)[None]


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"pool": np.where(np.arange(20)[:, None] == 3, np.nan, POOL)}, "pool has NaN.*row 3"),
        ({"pool": POOL[0]}, "pool must be two-dimensional"),
        ({"positives": np.array([[0, 20]])}, r"positives\[0\] holds row 20.*0 to 19"),
        ({"negatives": np.array([[-2, 12]])}, r"negatives\[0\] holds row -2"),
        ({"positives": np.array([[0.5, 1.0]])}, "positives must be integer"),
        ({"positives": np.arange(10)}, "positives must be integers"),
        ({"positives": [[0, 1], []], "negatives": [[11, 12]] * 2}, r"positives\[1\] is empty"),
        ({"negatives": np.full((1, 3), -1)}, r"negatives\[0\] is empty"),
        ({"positives": np.zeros((0, 3), dtype=int)}, "positives holds no sets"),
        ({"positives": np.tile(LEFT, (2, 1))}, "each hold one set per CAV: 2 against 1"),
        ({"positives": [[[0, 1], [2, 3]]]}, r"positives\[0\] must be one-dimensional"),
        ({"positives": [[0, 1, 12]]}, r"row 12 is in both positives\[0\] and negatives\[0\]"),
        ({"groups": np.arange(19)}, "groups must give one source video per row"),
        ({"groups": np.where(np.arange(20) == 5, np.nan, 1.0)}, "groups has no source video for row 5"),
        ({"groups": np.array(["a"] * 19 + [None], dtype=object)}, "groups has no source video for row 19"),
        ({"solver": "lda"}, "No solver `lda`.*logistic"),
        ({"held_out": 1.0}, "held_out must be a share"),
        ({"held_out": -0.1}, "held_out must be a share"),
        ({"regularization": 0.0}, "regularization must be positive"),
        ({"regularization": np.nan}, "regularization must be positive"),
        ({"solver": "pattern", "regularization": 1.0}, "solver `pattern` has none"),
    ],
)
def test_malformed_arguments_are_named(changed, what):
    arguments = {"pool": POOL, "positives": LEFT, "negatives": RIGHT} | changed
    pool = arguments.pop("pool")
    positives = arguments.pop("positives")
    negatives = arguments.pop("negatives")
    with pytest.raises(ValueError, match=what):
        train_cavs(pool, positives, negatives, **arguments)


@pytest.mark.parametrize("solver", ["logistic", "ridge", "svm", "pattern", "sgd"])
def test_equal_activations_are_marked(solver):
    pool = np.full((20, 6), 3.7, dtype=np.float32)
    cavs = train_cavs(pool, LEFT, RIGHT, solver=solver)
    assert cavs.reason == (NO_DIFFERENCE,)
    assert np.isnan(cavs.vectors).all()
    assert np.isnan(cavs.bias).all()
    assert np.isnan(cavs.held_out_accuracy).all()


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
@pytest.mark.parametrize("solver", ["logistic", "ridge", "svm", "pattern"])
def test_equal_activations_are_marked_at_any_scale(solver, scale):
    others = RNG.normal(size=(20, 6))
    pool = np.concatenate((np.full((20, 6), 3.7), others)) * scale
    assert train_cavs(pool.astype(np.float32), LEFT, RIGHT, solver=solver).reason == (NO_DIFFERENCE,)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("solver", "scale"),
    [(s, scale) for s in ("logistic", "ridge", "pattern") for scale in (1e-3, 1, 30, 300)]
    + [("svm", scale) for scale in (1e-3, 1, 30, 100)],
)
def test_a_clear_signal_is_found_at_any_scale(solver, scale, dtype):
    """With more clips than numbers, and sides that no plane separates, the sum that gives w nearly cancels."""
    rng = np.random.default_rng(0)
    pool = 1 + rng.normal(size=(200, 16))
    pool[:100] += 0.5
    pool = (pool * scale).astype(np.float32)
    cavs = train_cavs(gram(pool, dtype=dtype), [np.arange(100)], [np.arange(100, 200)], solver=solver, held_out=0.0)
    assert cavs.reason == ("",)
    if solver == "pattern":
        expected = pool[:100].mean(0) - pool[100:].mean(0)
    else:  # in units of the pool's own scale, the penalty is weaker (not for svm, which also penalises the bias)
        unit = 1.0 if solver == "svm" else scale
        strength = unit**-2 if solver == "ridge" else unit**2
        labels = np.repeat([1, -1], 100)
        found = train_reference(pool / unit, labels, pool[:0], labels[:0], solver=solver, regularization=strength)
        expected = found.vector
        assert cavs.train_accuracy[0] == pytest.approx(found.train_accuracy, abs=0.011)
    assert cavs.vectors[0] @ expected / np.linalg.norm(expected) > 0.999


@pytest.mark.parametrize("solver", ["logistic", "ridge", "svm", "pattern"])
def test_the_same_activations_on_both_sides_are_marked(solver):
    pool = np.concatenate((POOL[:10], POOL[:10]))
    assert train_cavs(pool, LEFT, RIGHT, solver=solver, held_out=0.0).reason == (NO_DIFFERENCE,)


def test_one_clip_is_marked_and_leaves_the_others_alone():
    cavs = train_cavs(POOL, [[0], np.arange(10)], [np.arange(10, 20)] * 2)
    assert cavs.reason == (ONE_VIDEO, "")
    assert np.isnan(cavs.vectors[0]).all()
    assert np.isfinite(cavs.vectors[1]).all()
    assert np.isnan(cavs.held_out_accuracy[0])
    alone = train_cavs(POOL, [np.arange(10)], [np.arange(10, 20)])
    assert np.allclose(cavs.vectors[1], alone.vectors[0], atol=1e-5)  # float32 steps on differently padded rows
    assert np.isnan(cavs.sensitivities(POOL)[:, 0]).all()


def test_one_video_with_many_clips_is_one_video():
    groups = np.where(np.arange(20) < 10, 0, np.arange(20))
    assert train_cavs(POOL, LEFT, RIGHT, groups=groups).reason == (ONE_VIDEO,)
    assert train_cavs(POOL, LEFT, RIGHT, groups=groups, held_out=0.0).reason == ("",)


def test_gradients_of_another_layer_are_refused():
    cavs = train_cavs(POOL, LEFT, RIGHT)
    with pytest.raises(ValueError, match="gradients has d = 5, and the pool has d = 6"):
        cavs.sensitivities(np.zeros((2, 5)))


def test_half_precision_and_integers_are_read():
    half = train_cavs(POOL.astype(np.float16), LEFT, RIGHT)
    assert half.vectors.dtype == np.float32
    whole = train_cavs((POOL * 100).astype(int), LEFT, RIGHT)
    assert np.isfinite(whole.vectors).all()
