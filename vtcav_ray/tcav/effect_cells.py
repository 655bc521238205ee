"""Where `effect_arithmetic` puts the figures of its cells, and which of them have no meaning.

Legend: K classes, V class videos (the maximum over a block's classes; padded), J concepts, N rows of the pool.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vtcav_ray.tcav.null_histograms import EFFECT_BINS
from vtcav_ray.tcav.scores import ZERO_GRADIENTS

NO_SPREAD = "the activations are all equal along the gradient: there is nothing to test"
ONE_CLASS_VIDEO = "the class has a single source video: no interval"
ONE_SIDE_VIDEO = "the concept or its other side has a single source video: no interval"

_MISSING_IF_FLAT = ("null_sd", "p", "p_symmetric", "ci_low", "ci_high", "null_unit", "p_within", "between_share")
FLAT = 1e-6  # a spread below this share of the numbers behind it is rounding


@dataclass(frozen=True)
class VideoGradients:
    """A class's gradients, averaged by video."""

    gradients_VD: NDArray[np.float64]


@dataclass(frozen=True)
class Block:
    """Some classes: their indices among the K, each one's number of videos, and weights [K, V]: 1/V_k, 0 on padding."""

    part: NDArray[np.int64]
    counts_K: NDArray[np.int64]
    mean_KV: torch.Tensor


@dataclass(frozen=True)
class Null:
    """The results of one concept's permutations.

    Attributes:
        p_K: with the tails asked for.
        p_symmetric_K: by the statistic's magnitude.
        counts_KB: number of permutations in each bin of `null_histograms`.
        unit_K: one unit of the bins, in logits.
    """

    p_K: NDArray[np.float64]
    p_symmetric_K: NDArray[np.float64]
    counts_KB: NDArray[np.int64]
    unit_K: NDArray[np.float64]


class EffectCells:
    """The arrays [K, J] (the null's counts: [K, J, bins]), filled concept by concept."""

    def __init__(self, columns: dict[str, NDArray[np.float64]], null_counts: NDArray[np.int64]) -> None:
        self.columns = columns
        self.null_counts = null_counts

    @classmethod
    def empty(cls, num_classes: int, num_concepts: int) -> EffectCells:
        names = (*_MISSING_IF_FLAT, "effect", "spread", "spread_ratio", "effect_within")
        columns = {name: np.full((num_classes, num_concepts), np.nan) for name in names}
        return cls(columns, np.zeros((num_classes, num_concepts, EFFECT_BINS), np.int64))

    def put_null(self, block: Block, j: int, null: Null) -> None:
        self.put(block, j, p=null.p_K, p_symmetric=null.p_symmetric_K, null_unit=null.unit_K)
        self.null_counts[block.part, j] = null.counts_KB

    def put(self, block: Block, j: int, **values: NDArray[np.float64]) -> None:
        for name, value in values.items():
            self.columns[name][block.part, j] = value

    def finished(
        self,
        classes: list[VideoGradients],
        pool_ND: NDArray[np.floating],
        n_concept: NDArray[np.int64],
        n_random: NDArray[np.int64],
    ) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.object_]]:
        """Return the columns, with NaN where a figure has no meaning, and the reasons [K, J]."""
        columns = dict(self.columns)
        reason = np.full(columns["effect"].shape, "", dtype=object)
        reason[:, np.minimum(n_concept, n_random) < 2] = ONE_SIDE_VIDEO
        reason[np.array([len(one.gradients_VD) < 2 for one in classes])] = ONE_CLASS_VIDEO
        for name in ("ci_low", "ci_high"):
            columns[name][reason != ""] = np.nan
        length_K = np.array([np.linalg.norm(one.gradients_VD.mean(axis=0)) for one in classes])
        width = float(np.sqrt(np.einsum("nd,nd->n", pool_ND, pool_ND, dtype=np.float64).mean()))
        flat = columns.pop("spread") <= FLAT * length_K[:, None] * width
        reason[flat] = NO_SPREAD
        reason[length_K == 0] = ZERO_GRADIENTS
        for name in (*_MISSING_IF_FLAT, "spread_ratio"):
            columns[name][flat] = np.nan
        self.null_counts[flat] = 0
        with np.errstate(divide="ignore", invalid="ignore"):
            columns["z"] = np.where(columns["null_sd"] > 0, columns["effect"] / columns["null_sd"], np.nan)
        return columns, reason
