"""Arrangements come in blocks: the requested number, in little memory, and the same ones on every call."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from vtcav_ray.tcav import permutation
from vtcav_ray.tcav.permutation import Arrangements, choose, flip


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    choose.cache_clear()
    flip.cache_clear()
    yield
    choose.cache_clear()
    flip.cache_clear()


def rows(arrangements: Arrangements) -> np.ndarray:
    return np.concatenate([block.numpy() for block in arrangements.blocks(7)])


def test_draws_are_those_of_one_generator() -> None:
    marks = np.tile(np.array([1.0, 1.0, 1.0] + [0.0] * 30, np.float32), (500, 1))
    np.random.default_rng([5, 3, 30]).permuted(marks, axis=1, out=marks)
    assert np.array_equal(rows(choose(3, 30, 500, 5)), marks)
    signs = np.random.default_rng([5, 31]).integers(0, 2, size=(500, 31)) * 2 - 1
    assert np.array_equal(rows(flip(31, 500, 5)), signs)


@pytest.mark.parametrize(
    ("make", "arguments"),
    [(choose, (3, 30, 500, 5)), (choose, (3, 7, 500, 5)), (flip, (31, 500, 5)), (flip, (6, 500, 5))],
)
def test_blocks_change_nothing(make, arguments, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    whole = make(*arguments)
    make.cache_clear()
    monkeypatch.setattr(permutation, "BLOCK_NUMBERS", 100)
    parts = make(*arguments)
    assert (parts.total, parts.exact) == (whole.total, whole.exact)
    assert max(block.numel() for block in parts.draw()) <= 100
    assert np.array_equal(rows(whole), rows(parts))
    assert np.array_equal(rows(parts), rows(parts))  # the second pass gives the same


def test_many_arrangements_take_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permutation, "BLOCK_NUMBERS", 1 << 14)
    tracemalloc.start()
    try:
        total = sum(len(block) for block in choose(10, 90, 20_000, 0).blocks(1000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 20_000
    assert peak < 1 << 20  # all arrangements take 8 MB
