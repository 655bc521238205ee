"""A layer's activations, and the Gram matrices of those rows that a batch of CAVs needs.

A small pool has one Gram matrix, which all CAVs of the layer share. That of a large one would take more memory than the
activations (30,000 clips: 3.6 GB) and be made anew by each worker, mostly for pairs of clips that no CAV brings
together. So CAVs, which come ordered by concept, are cut into pieces that need few rows, each with its own matrix.
What is cut where depends on the plan alone, never on which worker came by: results are equal to the bit.

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

MOST_ROWS = 4096  # of a Gram matrix: it is kept in float64 up to here, and takes 134 MB


@dataclass(frozen=True)
class Piece:
    """Consecutive items, such as CAVs, and the rows that they need.

    Attributes:
        items: which.
        gram: of the rows.
        groups: source video of each row.
        place_N: where a row of the layer lies in `gram`; -1: not there.
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
        usable: rows that CAVs are trained on, those of concepts and random sets. Class examples may be the larger part.
        device: where Gram matrices are made and kept, and CAVs trained.
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
        """Cuts items into pieces whose rows, all together, are `most` or fewer; an item that needs more stands alone.

        Args:
            needed: the rows of each item, each at most once.
            most: rows of a Gram matrix.
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
            self._last = None  # two large ones need not be there at once
            self._last = rows, gram(self.vectors_ND[rows], device=self._device)
        place_N = np.full(len(self.videos_N), -1, dtype=np.int64)
        place_N[rows] = np.arange(len(rows))
        return Piece(items, self._last[1], [self.videos_N[row] for row in rows], place_N)
