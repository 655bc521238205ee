"""Weights that turn projections into permuted differences of means, as one matrix product.

A permutation of n + m videos into a "concept" of n and a "random set" of m is a row of 0s and 1s that marks the n. The
sums over the marked videos, for many permutations, classes and layers, are then one product. Where all of them are
few enough they are listed, and the test is exact; else B are drawn, and p = (1 + #extreme) / (B + 1) is valid at any B
(Phipson & Smyth, Permutation p-values should never be zero, 2010).

Legend: B permutations, U = n + m videos.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache
from math import comb

import numpy as np
import torch
from numpy.typing import NDArray

# A statistic counts as extreme when it is as large as the observed one up to rounding: the observed arrangement, and
# those that are equal to it by symmetry, must not be missed for the last bit.
TIE = 1e-7


@dataclass(frozen=True)
class Arrangements:
    """`marks_BU`: 1 where a video is in the concept's place (or where a pair keeps its sign, else -1).

    `exact`: all arrangements are there, the observed one among them, so that p is the plain share.
    """

    marks_BU: torch.Tensor
    exact: bool

    def p_value(self, num_extreme: NDArray[np.int64]) -> NDArray[np.float64]:
        """p from the count of arrangements at least as extreme as the observed one."""
        total = len(self.marks_BU)
        count = num_extreme.astype(np.float64)
        return count / total if self.exact else (count + 1.0) / (total + 1.0)

    @property
    def smallest_p(self) -> float:
        """The smallest p that this many arrangements can give."""
        return 1.0 / len(self.marks_BU) if self.exact else 1.0 / (len(self.marks_BU) + 1.0)


@lru_cache(maxsize=16)
def choose(num_concept: int, num_random: int, permutations: int, seed: int) -> Arrangements:
    """Ways to put `num_concept` of the videos in the concept's place: all of them, or `permutations` drawn ones."""
    total = num_concept + num_random
    if comb(total, num_concept) <= permutations:
        marks = np.zeros((comb(total, num_concept), total), dtype=np.float32)
        for row, chosen in enumerate(itertools.combinations(range(total), num_concept)):
            marks[row, list(chosen)] = 1.0
        return Arrangements(torch.from_numpy(marks), True)
    generator = np.random.default_rng([seed, num_concept, num_random])
    marks = np.zeros((permutations, total), dtype=np.float32)
    marks[:, :num_concept] = 1.0
    generator.permuted(marks, axis=1, out=marks)
    return Arrangements(torch.from_numpy(marks), False)


@lru_cache(maxsize=16)
def flip(num_pairs: int, permutations: int, seed: int) -> Arrangements:
    """Ways to swap the members of pairs: +1 keeps a pair, -1 swaps it. All 2^n, or `permutations` drawn ones."""
    if num_pairs < 31 and 2**num_pairs <= permutations:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=num_pairs)), dtype=np.float32)
        return Arrangements(torch.from_numpy(signs.reshape(2**num_pairs, num_pairs)), True)
    generator = np.random.default_rng([seed, num_pairs])
    signs = generator.integers(0, 2, size=(permutations, num_pairs)).astype(np.float32) * 2 - 1
    return Arrangements(torch.from_numpy(signs), False)
