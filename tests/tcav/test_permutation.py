"""Arrangements come in blocks: the requested number, in little memory, and the same ones on every call."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from math import comb, prod

import numpy as np
import pytest

from vtcav_ray.tcav import permutation
from vtcav_ray.tcav.permutation import Arrangements, flip, within_labels


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    flip.cache_clear()
    within_labels.cache_clear()
    yield
    flip.cache_clear()
    within_labels.cache_clear()


def rows(arrangements: Arrangements) -> np.ndarray:
    return np.concatenate([block.numpy() for block in arrangements.blocks(7)])


def test_draws_are_those_of_one_generator() -> None:
    signs = np.random.default_rng([5, 31]).integers(0, 2, size=(500, 31)) * 2 - 1
    assert np.array_equal(rows(flip(31, 500, 5)), signs)


@pytest.mark.parametrize(
    ("make", "arguments"),
    [(flip, (31, 500, 5)), (flip, (6, 500, 5))],
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


@pytest.mark.slow
def test_many_arrangements_take_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permutation, "_KEPT_BYTES", 0)
    tracemalloc.start()
    try:
        total = sum(len(block) for block in within_labels(((10, 90),), 200_000, 0).blocks(1000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 200_000
    assert peak < 4 << 20  # all arrangements take 20 MB


@pytest.mark.parametrize("counts", [((2, 3),), ((1, 2), (2, 2))])
def test_few_arrangements_within_labels_are_all_listed_the_observed_first(counts: tuple[tuple[int, int], ...]) -> None:
    arrangements = within_labels(counts, 100, 0)
    marks = rows(arrangements)
    assert arrangements.exact
    assert len(np.unique(marks, axis=0)) == len(marks) == arrangements.total == prod(comb(n + m, n) for n, m in counts)
    start = 0
    for n, m in counts:
        assert (marks[:, start : start + n + m].sum(axis=1) == n).all()
        assert marks[0, start : start + n + m].tolist() == [1] * n + [0] * m
        start += n + m


@pytest.mark.slow
def test_arrangements_within_labels_are_drawn_evenly() -> None:
    marks = rows(within_labels(((3, 4), (2, 2)), 209, 0))  # of 210
    assert (marks[:, :7].sum(axis=1) == 3).all()
    assert (marks[:, 7:].sum(axis=1) == 2).all()
    drawn = permutation._subsets(70_000, 3, 7, np.random.default_rng(0))
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(counts) == 35
    assert ((counts - 2000) ** 2 / 2000).sum() < 75  # chi-square with 34 degrees: 1 in 10,000


@pytest.mark.parametrize("total", [2048, 2049])
def test_equal_keys_are_drawn_again(total: int) -> None:
    drawn = permutation._subsets(2000, total // 2, total, np.random.default_rng(0))  # short keys: 3 % are equal
    assert (drawn.sum(axis=1) == total // 2).all()
    assert abs(drawn.mean(axis=0) - 0.5).max() < 0.06


def test_many_arrangements_within_labels_are_the_same_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = rows(within_labels(((5, 20), (4, 30)), 9000, 3))
    within_labels.cache_clear()
    monkeypatch.setattr(permutation, "_KEPT_BYTES", 0)
    drawn = within_labels(((5, 20), (4, 30)), 9000, 3)
    assert np.array_equal(rows(drawn), kept)
    assert np.array_equal(rows(drawn), kept)
