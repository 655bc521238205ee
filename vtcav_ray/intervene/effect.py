"""Check of the concept effect by intervention: does the model change as the effect predicts?

The effect is a first-order prediction. The check adds the corresponding shift, t (mean of the concept - mean of its
random clips), to the layer's activation of the class's own clips, runs the rest of the model, and measures the change
of the logit.

The shift has to be mapped from P-space to the activation. P loses information, so many changes of the activation look
the same to it. The smallest of them is used, the lift P⁺Δz = Pᵀ(P Pᵀ)⁻¹Δz: it moves nothing that P cannot see.
For `mean`, it adds the difference of the means at every position of time and space, which moves the mean by exactly
that difference. Its predicted change is ∇h·P⁺Δz = (P∇h)·(P Pᵀ)⁻¹Δz.

The effect itself is (P∇h)·Δz = ∇h·PᵀΔz, the response to the shift PᵀΔz. For `mean` over m positions PᵀΔz adds Δz / m at
each of them, so moving the WHOLE activation by Δz changes the logit by m times the effect. This factor, the `gain`, is
the same for all cells of a layer (with `grid:n` approximately, if n does not divide a side). It changes no sign, no z
and no p, but sizes of effects at layers with different numbers of positions are comparable only with it.

With `moving` and `still`, P and therefore the lift differ from clip to clip: Δz goes to the places that move (or stay)
in this clip, and the gain is specific to these clips and this cell. With several views per clip, the prediction uses
their mean gain.

Legend: B clips, V source videos, d numbers of a projected activation, S step sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from vtcav_ray.activations.interventions import intervene
from vtcav_ray.activations.projections import Projection, layer_and_projection, make_projection
from vtcav_ray.activations.targets import Target, target_values
from vtcav_ray.models.base import Recogniser, Views
from vtcav_ray.models.layers import find_forms, resolve_layer
from vtcav_ray.tcav.arrays import check_gradients, check_width, video_means

_CLIPS_A_CALL = 8


@dataclass(frozen=True)
class Intervention:
    """Arrays [S]: `steps` t, `predicted` and `real` mean change of the target in logits, `real_sd` over the videos.

    Attributes:
        effect: the concept effect of these clips.
        gain: predicted change at t = 1 over `effect`; NaN if the effect is 0.
        num_videos: V.
    """

    steps: NDArray[np.float64]
    predicted: NDArray[np.float64]
    real: NDArray[np.float64]
    real_sd: NDArray[np.float64]
    effect: float
    gain: float
    num_videos: int


def layer_projection(
    recogniser: Recogniser, clip: np.ndarray, layer: str, projection: str, sketch_seed: int, views: Views = "center"
) -> Projection:
    """Return P of a layer, as used by the extraction for clips of this size.

    `layer` may name its own projection, as in `early@moving`.
    """
    name, spec = layer_and_projection(layer, projection)
    path = resolve_layer(recogniser, name)
    x = recogniser.preprocess([clip], views).flatten(0, 1)
    return make_projection(spec, find_forms(recogniser, [path], x[:1])[path].shape, sketch_seed)


class _Lift:
    """P⁺Δz for the activation that it will be added to.

    Attributes:
        solved: (P Pᵀ)⁻¹Δz, [1, d]. If P differs from clip to clip: one row per view, in the order of the calls.
    """

    def __init__(self, projection: Projection, delta_1D: torch.Tensor) -> None:
        self.projection, self.delta_1D = projection, delta_1D
        self.solved = projection.solve(delta_1D) if projection.fixed else delta_1D[:0]
        self._whole = projection.transpose(self.solved) if projection.fixed else None

    def __call__(self, a: torch.Tensor) -> torch.Tensor:
        if self._whole is not None:
            return self._whole.to(a).expand_as(a)
        here = self.projection.at(a)
        solved = here.solve(self.delta_1D.to(a.device))
        self.solved = torch.cat((self.solved, solved.cpu()))
        return here.transpose(solved).to(a)


def intervention(
    recogniser: Recogniser,
    clips: Sequence[np.ndarray],
    layer: str,
    projection: Projection,
    shift: ArrayLike,
    class_index: int,
    gradients: ArrayLike,
    steps: Sequence[float],
    *,
    groups: ArrayLike | None = None,
    target: Target = "logit",
    views: Views = "center",
) -> Intervention:
    """Compute the predicted and real change of a class's target for several sizes of one shift.

    Args:
        recogniser: the model.
        clips: the class's own, B of uint8 [T, H, W, 3].
        layer: alias or name, also with a projection (`early@moving`), which is ignored.
        projection: P, from `layer_projection`.
        shift: Δz in P-space, [d]: mean of the concept minus mean of its random clips.
        class_index: of the target.
        gradients: P∇h of the same clips, [B, d].
        steps: the values of t, not 0.
        groups: source video of each clip; None: each clip is its own video.
        target, views: as for the extraction.

    Raises:
        ValueError: shapes that do not fit, no steps, or a step of 0.
    """
    delta = np.asarray(shift, dtype=np.float64)
    rows_BD = check_gradients(gradients)
    if delta.shape != (projection.d,) or not np.isfinite(delta).all():
        raise ValueError(f"shift must be {projection.d} finite numbers, and has shape {delta.shape}")
    check_width(rows_BD, projection.d, "gradients", "the shift")
    if len(rows_BD) != len(clips):
        raise ValueError(f"gradients must have one row per clip: {len(rows_BD)} for {len(clips)} clips")
    if not len(steps) or 0 in steps or not np.isfinite(steps).all():
        raise ValueError(f"steps must be finite numbers other than 0: {list(steps)}")
    name, _ = layer_and_projection(layer, "")
    lift = _Lift(projection, torch.from_numpy(delta)[None])

    def value(t: float) -> NDArray[np.float64]:
        parts = []
        for start in range(0, len(clips), _CLIPS_A_CALL):
            some = clips[start : start + _CLIPS_A_CALL]
            logits = torch.from_numpy(intervene(recogniser, some, name, lambda a: t * lift(a), views=views))
            index = torch.full((len(logits),), class_index)
            parts.append(target_values(logits, index, target).double().numpy())
        return np.concatenate(parts)

    base = value(0.0)
    solved_BD = lift.solved if projection.fixed else lift.solved.reshape(len(clips), -1, projection.d).mean(1)
    slope = float(video_means(rows_BD * solved_BD.numpy(), groups).mean(axis=0).sum())
    effect = float(video_means(rows_BD, groups).mean(axis=0) @ delta)
    changes = [video_means((value(t) - base)[:, None], groups)[:, 0] for t in steps]
    sd = [float(one.std(ddof=1)) if len(one) > 1 else np.nan for one in changes]
    return Intervention(
        steps=np.array(steps, dtype=np.float64),
        predicted=slope * np.array(steps, dtype=np.float64),
        real=np.array([one.mean() for one in changes]),
        real_sd=np.array(sd),
        effect=effect,
        gain=slope / effect if effect else float("nan"),
        num_videos=len(changes[0]),
    )
