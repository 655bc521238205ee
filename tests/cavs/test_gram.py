import numpy as np
import pytest
import torch

import vtcav_ray.cavs.gram_matrix as module
from vtcav_ray.cavs import gram


@pytest.mark.parametrize(("block_rows", "block_numbers"), [(2048, 1 << 25), (7, 60), (1, 1)])
def test_blocks_make_no_difference(monkeypatch, block_rows, block_numbers):
    monkeypatch.setattr(module, "_BLOCK_ROWS", block_rows)
    monkeypatch.setattr(module, "_BLOCK_NUMBERS", block_numbers)
    pool = np.random.default_rng(0).normal(size=(20, 33)).astype(np.float32) + 5
    centred = pool.astype(np.float64) - pool.astype(np.float64).mean(0)
    matrix = gram(pool)
    assert matrix.inner_NN.numpy() == pytest.approx(centred @ centred.T, abs=1e-9)
    assert matrix.offset_N.numpy() == pytest.approx(centred @ matrix.mean_D, abs=1e-9)
    assert matrix.scale == pytest.approx(np.sqrt(np.square(pool).sum(1).mean()), rel=1e-6)


def test_dtype_follows_the_size(monkeypatch):
    monkeypatch.setattr(module, "_DOUBLE_UP_TO_ROWS", 10)
    pool = np.zeros((11, 3), dtype=np.float32)
    assert gram(pool).inner_NN.dtype == torch.float32
    assert gram(pool[:10]).inner_NN.dtype == torch.float64
    assert gram(pool, dtype=torch.float64).inner_NN.dtype == torch.float64


@pytest.mark.parametrize(
    ("pool", "what"),
    [
        (np.zeros(5), "two-dimensional"),
        (np.zeros((0, 5)), "empty"),
        (np.zeros((5, 0)), "empty"),
        (np.array([["a", "b"]]), "real numbers"),
        (np.array([[1.0, 2.0], [np.nan, 1.0]]), "row 1"),
        (np.array([[np.inf, -np.inf]]), "row 0"),
    ],
)
def test_says_what_is_wrong_with_a_pool(pool, what):
    with pytest.raises(ValueError, match=what):
        gram(pool)


def test_a_row_whose_sum_overflows_is_not_taken_for_infinite():
    pool = np.full((2, 3), 2e38, dtype=np.float32)
    pool[1] *= -1
    assert gram(pool, dtype=torch.float64).num_rows == 2
