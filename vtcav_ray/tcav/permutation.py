"""Weights that turn projections into permuted differences of means, as one matrix product.

A permutation of n + m videos into a "concept" of n and a "random set" of m is a row of 0s and 1s that marks the n. The
sums over the marked videos, for many permutations, classes and layers, are then one product. If there are at most B
permutations, all are listed and the test is exact. Otherwise B are drawn, and p = (1 + #extreme) / (B + 1) is valid at
any B (Phipson & Smyth, Permutation p-values should never be zero, 2010).

Legend: B permutations, U = n + m videos.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import comb

import numpy as np
import torch
from numpy.typing import NDArray

# A statistic counts as extreme if it is as large as the observed one up to rounding: the last bit must not exclude the
# observed arrangement, or arrangements equal to it by symmetry.
TIE = 1e-7


# Maximum number of marks held at a time: 64 MB. Up to this many are cached for the next cell of the same sizes; more
# are drawn again for each cell.
BLOCK_NUMBERS = 1 << 24


@dataclass(frozen=True)
class Arrangements:
    """Rows of marks: 1 for a video on the concept's side, else 0; for pairs, 1 if a pair keeps its sign, else -1.

    Attributes:
        total: B.
        exact: all arrangements are included, also the observed one, so that p is the plain share.
        draw: returns the rows [B, U] in blocks of at most BLOCK_NUMBERS marks; the same ones at each call.
    """

    total: int
    exact: bool
    draw: Callable[[], Iterable[torch.Tensor]]

    def blocks(self, rows: int) -> Iterator[torch.Tensor]:
        """Yield the marks in blocks of at most `rows` rows: [rows, U]."""
        for block in self.draw():
            yield from block.split(rows)

    def p_value(self, num_extreme: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return p from the number of arrangements at least as extreme as the observed one."""
        count = num_extreme.astype(np.float64)
        return count / self.total if self.exact else (count + 1.0) / (self.total + 1.0)


@lru_cache(maxsize=16)
def choose(num_concept: int, num_random: int, permutations: int, seed: int) -> Arrangements:
    """Return the ways to choose `num_concept` videos as the concept's: all of them, or `permutations` random ones."""
    total = num_concept + num_random
    ways = comb(total, num_concept)

    def listed() -> Iterator[torch.Tensor]:
        places = itertools.combinations(range(total), num_concept)
        for rows in _rows_of_blocks(ways, total):
            marks = np.zeros((rows, total), dtype=np.float32)
            for row, chosen in enumerate(itertools.islice(places, rows)):
                marks[row, list(chosen)] = 1.0
            yield torch.from_numpy(marks)

    def drawn() -> Iterator[torch.Tensor]:
        generator = np.random.default_rng([seed, num_concept, num_random])
        for rows in _rows_of_blocks(permutations, total):
            marks = np.zeros((rows, total), dtype=np.float32)
            marks[:, :num_concept] = 1.0
            generator.permuted(marks, axis=1, out=marks)
            yield torch.from_numpy(marks)

    if ways <= permutations:
        return _arrangements(ways, True, total, listed)
    return _arrangements(permutations, False, total, drawn)


@lru_cache(maxsize=16)
def flip(num_pairs: int, permutations: int, seed: int) -> Arrangements:
    """Return the ways to swap the members of pairs: +1 keeps, -1 swaps. All 2^n, or `permutations` random ones."""

    def listed() -> Iterator[torch.Tensor]:
        signs = itertools.product((1.0, -1.0), repeat=num_pairs)
        for rows in _rows_of_blocks(2**num_pairs, num_pairs):
            block = np.array(list(itertools.islice(signs, rows)), dtype=np.float32)
            yield torch.from_numpy(block.reshape(rows, num_pairs))

    def drawn() -> Iterator[torch.Tensor]:
        generator = np.random.default_rng([seed, num_pairs])
        for rows in _rows_of_blocks(permutations, num_pairs):
            signs = generator.integers(0, 2, size=(rows, num_pairs)).astype(np.float32) * 2 - 1
            yield torch.from_numpy(signs)

    if num_pairs < 31 and 2**num_pairs <= permutations:
        return _arrangements(2**num_pairs, True, num_pairs, listed)
    return _arrangements(permutations, False, num_pairs, drawn)


def _rows_of_blocks(total: int, width: int) -> Iterator[int]:
    step = max(1, BLOCK_NUMBERS // max(1, width))
    for start in range(0, total, step):
        yield min(step, total - start)


def _arrangements(total: int, exact: bool, width: int, draw: Callable[[], Iterator[torch.Tensor]]) -> Arrangements:
    if total * width > BLOCK_NUMBERS:
        return Arrangements(total, exact, draw)
    kept = list(draw())
    return Arrangements(total, exact, lambda: kept)
