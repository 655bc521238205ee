"""Erase directions from a layer's activation, and run the rest of the network.

    a' = a - Q Qᵀ (a - base)        at every place, Q orthonormal, [C, k]

What the activation has along these directions becomes that of `base`, the mean of the random clips. So the network
keeps a typical amount of each direction instead of none, which it never saw (Ravfogel et al., Null it out, ACL 2020;
Haufe et al., NeuroImage 2014, on why the direction is the difference of means and not the classifier's weights).

Only projections with one direction for all places have such a Q (`vtcav_ray.tcav.directions.DEFINED`).

Legend: B clips, S 1 or T' (a direction for each step), C channels, k directions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from vtcav_ray.activations.projections import Projection
from vtcav_ray.models.base import Recogniser, Views
from vtcav_ray.models.layers import find_forms
from vtcav_ray.models.rest import RestOfNetwork

Grid = NDArray[np.float32]


def orthonormal(directions_kSC: Grid) -> Grid:
    """Return an orthonormal basis of the span of directions, step by step: `[S, C, k']`.

    Directions that the earlier ones contain are dropped, so k' can be smaller than k. With several steps, the smallest
    rank counts.
    """
    bases = []
    for step in directions_kSC.transpose(1, 2, 0):
        kept: list[NDArray[np.float64]] = []
        for column in step.astype(np.float64).T:
            left = column.copy()
            for one in (*kept, *kept):  # twice: a single pass of Gram and Schmidt loses digits
                left -= (one @ left) * one
            if np.linalg.norm(left) > 1e-5 * max(float(np.linalg.norm(column)), 1e-30):
                kept.append(left / np.linalg.norm(left))
        bases.append(kept)
    rank = min(len(kept) for kept in bases)
    channels = directions_kSC.shape[2]
    out = np.zeros((len(bases), channels, rank), np.float32)
    for step, kept in enumerate(bases):
        for column, one in enumerate(kept[:rank]):
            out[step, :, column] = one
    return out


class ErasedNetwork:
    """The network after a layer at some clips, with changes of the layer's activation.

    Args:
        recogniser: the model.
        path: of the layer.
        clips: B clips, uint8 `[T, H, W, 3]` of one size.
        views: see the extraction; logits are averaged over them.

    Attributes:
        plain: the logits without a change, float32 `[B, K]`.
        channels, shape: C, and T', H', W', C of the layer.
        whole: every pass runs the whole network (`RestOfNetwork.whole`).
    """

    def __init__(self, recogniser: Recogniser, path: str, clips: Sequence[np.ndarray], views: Views) -> None:
        x_BV = recogniser.preprocess(clips, views)
        self._clips, self._views = x_BV.shape[:2]
        x = x_BV.flatten(0, 1)
        self._form = find_forms(recogniser, [path], x[:1])[path]
        self._rest = RestOfNetwork(recogniser, path, x)
        self._shown = self._form.present(self._rest.raw)
        self.plain = self._mean(self._rest.plain)
        self.whole = self._rest.whole
        self.channels = self._form.channels
        self.shape = self._form.shape

    def erased(self, basis_SCk: Grid, base_SC: Grid) -> NDArray[np.float32]:
        """Return the logits without the directions of a basis, `[B, K]`."""
        a = self._shown.float()
        basis = torch.from_numpy(basis_SCk).to(a.device).expand(a.shape[1], -1, -1)
        base = torch.from_numpy(base_SC).to(a.device).expand(a.shape[1], -1)
        along = torch.einsum("bthwc,tck->bthwk", a - base[:, None, None], basis)
        return self._with(-torch.einsum("bthwk,tck->bthwc", along, basis))

    def shifted(self, projection: Projection, delta_d: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits after the lift P⁺Δz of a shift in P-space, `[B, K]` (see `vtcav_ray.intervene.effect`)."""
        here = projection.at(self._shown)
        delta = torch.from_numpy(delta_d)[None].to(self._shown.device)
        lifted = here.transpose(here.solve(delta))
        return self._with(lifted.expand_as(self._shown))

    def _with(self, change: torch.Tensor) -> NDArray[np.float32]:
        raw = self._rest.raw
        return self._mean(self._rest.logits(raw + self._form.restore(change.contiguous(), raw)))

    def _mean(self, logits: torch.Tensor) -> NDArray[np.float32]:
        mean = logits.float().reshape(self._clips, self._views, -1).mean(1)
        return np.asarray(mean.cpu().numpy(), np.float32)
