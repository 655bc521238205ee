"""Sizes of effects in logits: gradients with the gain of their clips.

E = ḡ·Δz is the response to the shift PᵀΔz. Moving the whole activation by Δz, as the lift P⁺Δz does, changes the logit
by the gain times that (`vtcav_ray.activations.projections.Projection.gains`). The gain is the same for all clips of a
layer, except with projections that depend on the clip (`moving`, `still`). There, the change of the mean logit is

    mean over clips v of gain_v (g_v·Δz) = gain * (mean of (gain_v / gain) g_v)·Δz,    gain = mean of gain_v,

so each gradient is weighed by its clip's gain over the mean, and the effect is multiplied by the mean.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vtcav_ray.tcav.effect_results import ConceptEffect

_EQUAL = 1e-9  # relative: gains of one layer that differ less are the same


def with_gains(gradients_ND: NDArray[np.float32], gains_N: NDArray[np.float64]) -> tuple[NDArray[np.float32], float]:
    """Return the gradients weighed by their gains over the mean gain, and the mean gain.

    If all gains are equal, the gradients are returned unchanged, so that z and p keep their last digits.
    """
    mean = float(gains_N.mean())
    if np.allclose(gains_N, mean, rtol=_EQUAL, atol=0.0):
        return gradients_ND, mean
    return (gradients_ND * (gains_N / mean)[:, None]).astype(np.float32), mean


def at_gain(effect: ConceptEffect, gain: float) -> ConceptEffect:
    """Return an effect with every figure in logits multiplied by the gain. z, p and shares do not depend on it."""
    names = ("effect", "null_sd", "ci_low", "ci_high", "null_unit", "effect_within")
    return dataclasses.replace(effect, **{name: getattr(effect, name) * gain for name in names})


def margin(margins: ArrayLike) -> float:
    """Return the median of the logit distances to the runner-up; NaN if it is not above 0 or there are none."""
    known = np.asarray(margins, np.float64)
    known = known[np.isfinite(known)]
    middle = float(np.median(known)) if len(known) else float("nan")
    return middle if middle > 0 else float("nan")
