"""A layer's activations, and the Gram matrices of the rows that a batch of CAVs needs.

A small pool has one Gram matrix, which all CAVs of the layer share. For a large pool it would take more memory than the
activations (30,000 clips: 3.6 GB), and each worker would compute it again, mostly for pairs of clips that no CAV
combines. So CAVs, which are ordered by concept, are cut into pieces that need few rows, each with its own matrix. The
cuts depend only on the plan, never on the worker: results are bitwise equal.

Legend: N rows of the layer, d numbers each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vtcav_ray.cavs.gram_matrix import Gram, gram
from vtcav_ray.cavs.sets import Rows

MOST_ROWS = 4096  # of a Gram matrix: up to this size it is float64, and takes 134 MB


@dataclass(frozen=True)
class Piece:
    """Consecutive items, such as CAVs, and the rows that they need.

    Attributes:
        items: their slice of all items.
        gram: Gram matrix of the rows.
        groups: source video of each row.
        place_N: index in `gram` of each row of the layer; -1: not included.
    """

    items: slice
    gram: Gram
    groups: list[str]
    place_N: NDArray[np.int64]


class LayerPool:
    """One layer's activations.

    Args:
        vectors_ND: [N, d].
        videos_N: source video of each row.
        usable: rows that CAVs are trained on, those of concepts and random sets. Class examples may outnumber them.
        device: where Gram matrices are computed and stored, and CAVs trained.
    """

    def __init__(
        self, vectors_ND: np.ndarray, videos_N: Sequence[str], usable: Rows, device: str | torch.device = "cpu"
    ) -> None:
        self.vectors_ND = vectors_ND
        self.videos_N = list(videos_N)
        self._device = device
        self._usable = np.sort(usable)
        self._last: tuple[Rows, Gram] | None = None

    def pieces(self, needed: Sequence[Rows], most: int = MOST_ROWS) -> Iterator[Piece]:
        """Yield items in pieces that need at most `most` rows together; an item that needs more gets its own piece.

        Args:
            needed: the rows of each item, each row at most once.
            most: maximum rows of a Gram matrix.
        """
        if len(self._usable) <= most:
            yield self._piece(slice(0, len(needed)), self._usable)
            return
        there = np.zeros(len(self.videos_N), bool)
        begin = 0
        for number, rows in enumerate(needed):
            fresh = rows[~there[rows]]
            if number > begin and np.count_nonzero(there) + len(fresh) > most:
                yield self._piece(slice(begin, number), np.flatnonzero(there))
                there[:] = False
                begin, fresh = number, rows
            there[fresh] = True
        if len(needed):
            yield self._piece(slice(begin, len(needed)), np.flatnonzero(there))

    def _piece(self, items: slice, rows: Rows) -> Piece:
        if self._last is None or not np.array_equal(self._last[0], rows):
            self._last = None  # never hold two large ones
            self._last = rows, gram(self.vectors_ND[rows], device=self._device)
        place_N = np.full(len(self.videos_N), -1, dtype=np.int64)
        place_N[rows] = np.arange(len(rows))
        return Piece(items, self._last[1], [self.videos_N[row] for row in rows], place_N)
