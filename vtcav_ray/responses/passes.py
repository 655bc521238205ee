"""Responses of a model to a clip's projected activation, put into reference clips.

Layer l has the activation a, and the run stores z = P a. To put z_u of a pool clip u into a reference clip v, change
a_v by the smallest change that gives it this projection (the lift P⁺ of `projections.Projection.solve`), and run f, the
rest of the network from the layer on to the target of class k:

    r_u = mean over v of f_k(a_v + P⁺(z_u - P a_v))

This is an interchange intervention on the part of the layer that P sees (Geiger, Lu, Icard & Potts, Causal abstractions
of neural networks, NeurIPS 2021). All classes come from one pass. r_u depends on u alone, so comparing concept clips
with random ones needs no assumption about the network.

With `moving` and `still`, P differs from clip to clip: z_u is the mean over the places of u. It is put at the places of
the reference clip, whose own P gives both P a_v and the lift, so that P of the changed activation is z_u exactly.

With several views of a clip, z_u is their mean; it is put into each view of v, and the targets are averaged.

Legend: U pool clips, V reference clips, B clips or views of one batch, K classes, d numbers of a projected activation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from vtcav_ray.activations.extract import Precision
from vtcav_ray.activations.projections import Projection, layer_and_projection, make_projection
from vtcav_ray.activations.targets import Target, target_values
from vtcav_ray.models.base import Recogniser, Views
from vtcav_ray.models.layers import Form, find_forms, resolve_layer
from vtcav_ray.models.rest import RestOfNetwork


@dataclass(frozen=True)
class Reference:
    """The reference clips of a layer.

    Attributes:
        clips: V of uint8 `[T, H, W, 3]`.
        weights_V: of the mean over the clips; they add up to 1.
        gradients_VKd: P∇f_k at each clip.
    """

    clips: Sequence[np.ndarray]
    weights_V: NDArray[np.float64]
    gradients_VKd: NDArray[np.float32]


@dataclass(frozen=True)
class PatchSettings:
    """Settings of the passes, as for the extraction. `batch_size`: views per model call."""

    projection: str = "mean"
    sketch_seed: int = 0
    target: Target = "logit"
    views: Views = "center"
    precision: Precision = "float32"
    batch_size: int = 8


@dataclass(frozen=True)
class Responses:
    """Responses [U, K] in units of the target.

    Attributes:
        response: r_u of each class.
        at_each: the response at each reference clip v, [U, V, K]; `response` is its mean.
        first_order: mean over v of (P∇f_k at v)·(P Pᵀ)⁻¹z_u: to first order, r_u apart from a number that is the same
            for all u.
        passes: passes of the rest of the network, each with one view of one clip.
        whole: the rest could not be run alone, so every pass ran the whole network.
    """

    response: NDArray[np.float64]
    at_each: NDArray[np.float64]
    first_order: NDArray[np.float64]
    passes: int
    whole: bool


def equal_weights(videos: Sequence[str]) -> NDArray[np.float64]:
    """Return weights of clips [V] that add up to 1, with the same sum for each source video."""
    _, index, counts = np.unique(np.asarray(videos), return_inverse=True, return_counts=True)
    return np.asarray(1.0 / (len(counts) * counts[index]))


def responses(
    recogniser: Recogniser,
    layer: str,
    vectors_Ud: ArrayLike,
    reference: Reference,
    classes: Sequence[int],
    settings: PatchSettings,
) -> Responses:
    """Compute the responses to U projected activations.

    Each batch of reference clips runs through the whole network once, and the rest of the network once more as a check
    and then once for each u.

    Args:
        recogniser: the model.
        layer: alias or name, also with its own projection (`early@moving`).
        vectors_Ud: z of each pool clip.
        reference: the clips to change.
        classes: indices of the K classes.
        settings: of the passes.

    Raises:
        ValueError: shapes that do not fit.
        ConfigError: no such layer.
    """
    z_Ud = torch.as_tensor(np.asarray(vectors_Ud, dtype=np.float64))
    _check(z_Ud, reference, len(classes))
    name, spec = layer_and_projection(layer, settings.projection)
    path = resolve_layer(recogniser, name)
    response = torch.zeros((len(z_Ud), len(classes)), dtype=torch.float64)
    at_each = torch.zeros((len(z_Ud), len(reference.clips), len(classes)), dtype=torch.float64)
    first_order = torch.zeros_like(response)
    passes, whole, start = 0, False, 0
    lift: _Lift | None = None
    while start < len(reference.clips):
        x_views, some = _batch(recogniser, reference.clips, start, settings)
        b, v = x_views.shape[:2]
        x = x_views.flatten(0, 1)
        form = find_forms(recogniser, [path], x[:1])[path]
        if lift is None:
            projection = make_projection(spec, form.shape, settings.sketch_seed)
            if projection.d != z_Ud.shape[1]:
                raise ValueError(f"vectors have d = {z_Ud.shape[1]}, and P of layer {layer!r} has d = {projection.d}")
            lift = _Lift(projection, z_Ud)
        weights_B = torch.from_numpy(reference.weights_V[some])
        gradients_BKd = torch.from_numpy(reference.gradients_VKd[some]).double()
        half = settings.precision != "float32"
        with torch.no_grad(), torch.autocast(x.device.type, getattr(torch, settings.precision), enabled=half):
            rest = RestOfNetwork(recogniser, path, x)
            put = _Put(rest.raw, form, lift)
            for u in range(len(z_Ud)):
                raw, solved = put(u)
                values = _targets(rest.logits(raw).float(), classes, settings.target)
                at_each[u, some] = values.double().cpu().reshape(b, v, -1).mean(1)
                response[u] += weights_B @ at_each[u, some]
                solved_Bd = solved.double().cpu().expand(b * v, -1).reshape(b, v, -1).mean(1)
                first_order[u] += torch.einsum("b,bkd,bd->k", weights_B, gradients_BKd, solved_Bd)
        passes += len(z_Ud) * b * v
        whole |= rest.whole
        start += b
    return Responses(response.numpy(), at_each.numpy(), first_order.numpy(), passes, whole)


class _Lift:
    """P⁺z_u for the activations that it is added to. If P is the same for all clips, (P Pᵀ)⁻¹z is solved only once."""

    def __init__(self, projection: Projection, z_Ud: torch.Tensor) -> None:
        self.projection, self.z_Ud = projection, z_Ud
        self.solved_Ud = projection.solve(z_Ud) if projection.fixed else None

    def __call__(self, u: int, here: Projection, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (P⁺z_u, (P Pᵀ)⁻¹z_u), of one row if P is the same for all clips.

        Args:
            u: number of the pool clip.
            here: P at the activations `like`, [B, T', H', W', C].
        """
        z_1d = self.z_Ud[u : u + 1] if self.solved_Ud is None else self.solved_Ud[u : u + 1]
        z_1d = z_1d.to(like.device, torch.float32)
        solved = here.solve(z_1d) if self.solved_Ud is None else z_1d
        return here.transpose(solved), solved


class _Put:
    """The layer's own tensor with P a_v replaced by z_u. What P does not see stays that of the reference clip."""

    def __init__(self, raw: torch.Tensor, form: Form, lift: _Lift) -> None:
        a = form.present(raw)
        self.form, self.lift, self.like = form, lift, a
        self.here = lift.projection.at(a)
        own = self.here.transpose(self.here.solve(self.here.apply(a)))
        self.left = raw - form.restore(own, raw)  # extra tokens, such as a class token, stay unchanged

    def __call__(self, u: int) -> tuple[torch.Tensor, torch.Tensor]:
        lifted, solved = self.lift(u, self.here, self.like)
        return self.left + self.form.restore(lifted.expand_as(self.like), self.left), solved


def _batch(
    recogniser: Recogniser, clips: Sequence[np.ndarray], start: int, settings: PatchSettings
) -> tuple[torch.Tensor, slice]:
    """Return the input of the next reference clips, [B, V, C, T, H, W], and which clips they are."""
    first = recogniser.preprocess([clips[start]], settings.views)
    size = max(1, settings.batch_size // first.shape[1])
    some = slice(start, min(start + size, len(clips)))
    return (first if size == 1 else recogniser.preprocess(clips[some], settings.views)), some


def _targets(logits: torch.Tensor, classes: Sequence[int], target: Target) -> torch.Tensor:
    """Return the target of each class: `[B, K_all]` -> `[B, K]`."""
    if target == "logit":
        return logits[:, list(classes)]
    return torch.stack(
        [target_values(logits, torch.full((len(logits),), k, device=logits.device), target) for k in classes], 1
    )


def _check(z_Ud: torch.Tensor, reference: Reference, num_classes: int) -> None:
    if z_Ud.ndim != 2 or not len(z_Ud) or not torch.isfinite(z_Ud).all():
        raise ValueError(
            f"vectors must be finite [clips, d] with at least one clip, and have shape {tuple(z_Ud.shape)}"
        )
    if not len(reference.clips) or not num_classes:
        raise ValueError("there must be at least one reference clip and one class")
    if reference.weights_V.shape != (len(reference.clips),):
        raise ValueError(f"weights must be one per reference clip: {len(reference.weights_V)}, {len(reference.clips)}")
    shape = (len(reference.clips), num_classes, z_Ud.shape[1])
    if reference.gradients_VKd.shape != shape:
        raise ValueError(f"gradients must be [clips, classes, d] = {shape}, and have {reference.gradients_VKd.shape}")
