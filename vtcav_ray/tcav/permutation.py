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
from math import comb, prod
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

Tails = Literal["equal", "symmetric"]

# Maximum number of marks held at a time: 64 MB. Up to this many are cached for the next cell of the same sizes; more
# are drawn again for each cell.
BLOCK_NUMBERS = 1 << 24

# Draw this many arrangements within labels at a time. The draws depend on it, so it is fixed.
_DRAWN_ROWS = 4096
_KEPT_BYTES = 1 << 28  # a family of many cells needs its arrangements several times


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


def check_tails(tails: Any) -> None:
    if tails not in get_args(Tails):
        raise ValueError(f"tails must be equal or symmetric, and is {tails!r}")


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


@lru_cache(maxsize=2)  # of one concept: without labels, and with its own
def within_labels(counts: tuple[tuple[int, int], ...], permutations: int, seed: int) -> Arrangements:
    """Return the ways to choose the concept's videos within each label: all of them, or `permutations` random ones.

    One label is the plain test. Each video gets a random key, and the videos with the smallest keys are the concept's.
    Rows in which equal keys leave this open are drawn again; the keys treat all videos alike, so each choice remains
    equally likely.

    Args:
        counts: (n, m) of each label: its videos on the concept's side and on the random side, both at least 1.
        permutations: maximum number of arrangements.
        seed: of the draws.

    Returns:
        Arrangements with marks uint8 [B, U]. Videos are ordered label by label, in each the concept's first. If all
        arrangements are listed, the first is the observed one.
    """
    ways = prod(comb(n + m, n) for n, m in counts)
    width = sum(n + m for n, m in counts)
    exact = ways <= permutations
    total = ways if exact else permutations

    def draw() -> Iterator[torch.Tensor]:
        return _listed_within(counts, total, width) if exact else _drawn_within(counts, total, width, seed)

    if total * width > _KEPT_BYTES:
        return Arrangements(total, exact, draw)
    kept = list(draw())
    return Arrangements(total, exact, lambda: kept)


def _listed_within(counts: tuple[tuple[int, int], ...], total: int, width: int) -> Iterator[torch.Tensor]:
    places, start = [], 0
    for n, m in counts:
        places.append(list(itertools.combinations(range(start, start + n + m), n)))
        start += n + m
    every = itertools.product(*places)
    for first in range(0, total, _DRAWN_ROWS):
        marks = np.zeros((min(_DRAWN_ROWS, total - first), width), dtype=np.uint8)
        for row, chosen in enumerate(itertools.islice(every, len(marks))):
            marks[row, list(itertools.chain.from_iterable(chosen))] = 1
        yield torch.from_numpy(marks)


def _drawn_within(counts: tuple[tuple[int, int], ...], total: int, width: int, seed: int) -> Iterator[torch.Tensor]:
    generator = np.random.default_rng([seed, *itertools.chain.from_iterable(counts)])
    for first in range(0, total, _DRAWN_ROWS):
        marks = np.zeros((min(_DRAWN_ROWS, total - first), width), dtype=np.uint8)
        start = 0
        for n, m in counts:
            marks[:, start : start + n + m] = _subsets(len(marks), n, n + m, generator)
            start += n + m
        yield torch.from_numpy(marks)


def _subsets(rows: int, size: int, total: int, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Draw `rows` subsets of `size` out of `total`, all equally likely: marks [rows, total]."""
    # Short keys sort fastest; with many videos equal keys would be frequent.
    kind = np.uint16 if total <= 2048 else np.uint32
    marks = np.empty((rows, total), dtype=bool)
    open_rows = np.arange(rows)
    while len(open_rows):
        keys = generator.integers(0, np.iinfo(kind).max, size=(len(open_rows), total), dtype=kind, endpoint=True)
        last = np.partition(keys, size - 1, axis=1)[:, size - 1 : size]
        drawn = keys <= last
        marks[open_rows] = drawn
        open_rows = open_rows[drawn.sum(axis=1) != size]
    return marks


def _rows_of_blocks(total: int, width: int) -> Iterator[int]:
    step = max(1, BLOCK_NUMBERS // max(1, width))
    for start in range(0, total, step):
        yield min(step, total - start)


def _arrangements(total: int, exact: bool, width: int, draw: Callable[[], Iterator[torch.Tensor]]) -> Arrangements:
    if total * width > BLOCK_NUMBERS:
        return Arrangements(total, exact, draw)
    kept = list(draw())
    return Arrangements(total, exact, lambda: kept)
