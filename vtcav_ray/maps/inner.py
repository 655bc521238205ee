"""Maps of the inner product of a layer's activation with directions: where and when a clip has a concept.

    map(t, h, w) = (a(t, h, w) - base) · direction

Its mean over places and times is the clip's own inner product with the direction, so the map says how much each place
contributes. That holds for the projections `mean` and `time`; `moving` and `still` weigh places, and the map does not.

Legend: D directions; T' H' W' C of a layer; T frames and h w pixels of the model's input.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from vtcav_ray.errors import InputError
from vtcav_ray.heatmaps.resample import in_time, upsample
from vtcav_ray.models.base import Recogniser
from vtcav_ray.models.layers import find_forms, resolve_layer, watched

DELETED = 0.1  # share of the input's pixels and times that a deletion removes
OTHERS = 12  # deletions of other places that one deletion is compared with
Grid = NDArray[np.float32]


class LayerActivations:
    """Reads the activations of some layers. Created once per actor.

    Args:
        recogniser: the model, on its device.
        layers: aliases or names, without their projection; the activations have these as keys.
        batch_size: clips per model call.

    Raises:
        ConfigError: a layer that the model does not have.
    """

    def __init__(self, recogniser: Recogniser, layers: Sequence[str], *, batch_size: int = 8) -> None:
        self.recogniser, self.batch_size = recogniser, batch_size
        self.paths = {layer: resolve_layer(recogniser, layer) for layer in layers}

    def __call__(self, x_BCThw: torch.Tensor, layers: Sequence[str] | None = None) -> dict[str, torch.Tensor]:
        """Return layer -> float32 `[B, T', H', W', C]`, on the model's device.

        Raises:
            InputError: `non_finite`: NaN or infinity in an activation.
        """
        paths = {layer: self.paths[layer] for layer in layers or self.paths}
        forms = find_forms(self.recogniser, list(paths.values()), x_BCThw[:1])
        parts: dict[str, list[torch.Tensor]] = {layer: [] for layer in paths}

        def take(layer: str, raw: torch.Tensor) -> None:
            # A copy: a later module may work in place.
            parts[layer].append(forms[paths[layer]].present(raw).float().clone())

        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            for layer, path in paths.items():
                stack.enter_context(watched(self.recogniser.module, path, partial(take, layer)))
            for batch in x_BCThw.split(self.batch_size):
                self.recogniser.logits(batch)
        found = {layer: torch.cat(taken) for layer, taken in parts.items()}
        if bad := [layer for layer, a in found.items() if not torch.isfinite(a).all()]:
            raise InputError("non_finite", f"NaN or infinity in the activation at layer `{bad[0]}`")
        return found


def inner_products(
    a_BTHWC: torch.Tensor, directions_DSC: NDArray[np.float32], base_SC: NDArray[np.float32]
) -> torch.Tensor:
    """Return the maps `[B, D, T', H', W']` of B clips and D directions, on the CPU.

    Args:
        a_BTHWC: activations.
        directions_DSC: from `directions.on_channels`; S is 1 or T'.
        base_SC: the activation at which a map is 0.
    """
    along = torch.from_numpy(directions_DSC).to(a_BTHWC.device).expand(-1, a_BTHWC.shape[1], -1)
    base = torch.from_numpy(base_SC).to(a_BTHWC.device)
    centred = a_BTHWC - base[:, None, None]
    return torch.einsum("bthwc,dtc->bdthw", centred, along).cpu()


def on_frames(map_THW: torch.Tensor, frames: int, height: int, width: int) -> Grid:
    """Resample a map `[T', H', W']` to the model's input: float32 `[T, h, w]`."""
    return upsample(in_time(map_THW, frames), height, width)


def timeline(map_THW: torch.Tensor, frames: int) -> Grid:
    """Return the map's mean over places for each frame, float32 `[T]`."""
    return in_time(map_THW.mean((1, 2), keepdim=True), frames)[:, 0, 0].numpy()


def places_of(map_Thw: Grid, share: float = DELETED) -> NDArray[np.bool_]:
    """Return the places and times where the map is largest: bool `[T, h, w]`, `share` of all; ties by position."""
    count = max(1, round(share * map_Thw.size))
    order = np.argsort(-map_Thw, axis=None, kind="stable")[:count]
    chosen = np.zeros(map_Thw.size, bool)
    chosen[order] = True
    return chosen.reshape(map_Thw.shape)


def deletions(x_CThw: torch.Tensor, map_Thw: Grid, seed: int) -> torch.Tensor:
    """Return the input without the places that a map points to, and without others of the same shape.

    The places are filled with the mean colour of the model's normalisation. The others are the same places, shifted by
    random distances in time, height and width around the edges: so their size, their shape and the edges that the
    filling makes are the same, and only what is removed differs.

    Args:
        x_CThw: the model's input.
        map_Thw: on the input's frames and pixels.
        seed: of the shifts.

    Returns:
        `[1 + OTHERS, C, T, h, w]`; the first lacks what the map points to.
    """
    pointed = places_of(map_Thw)
    stream = np.random.RandomState(seed % 2**32)
    masks = [pointed]
    for _ in range(OTHERS):
        shift = [int(stream.randint(n)) for n in pointed.shape]
        masks.append(np.roll(pointed, shift, (0, 1, 2)))
    gone = torch.from_numpy(np.stack(masks)).to(x_CThw.device)[:, None]
    return torch.where(gone, torch.zeros((), dtype=x_CThw.dtype, device=x_CThw.device), x_CThw[None])
