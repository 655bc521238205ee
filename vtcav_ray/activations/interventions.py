"""Check of a sensitivity: shift a layer's activation, and measure the change of the logit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from vtcav_ray.errors import ConfigError
from vtcav_ray.models.base import Recogniser, Views
from vtcav_ray.models.layers import find_forms, resolve_layer, watched


def intervene(
    recogniser: Recogniser,
    clips: Sequence[np.ndarray],
    layer: str,
    shift: np.ndarray | Callable[[torch.Tensor], torch.Tensor],
    *,
    views: Views = "center",
) -> np.ndarray:
    """Add a shift to a layer's activation, run the rest of the model, and return the logits.

    Args:
        recogniser: the model.
        clips: B clips `uint8 [T, H, W, 3]`.
        layer: alias or name.
        shift: `[T', H', W', C]` or `[B, T', H', W', C]`, in units of the activation; for a direction w in P-space,
            `projection.transpose(w)`. Zeros give the plain logits. Or a function from the activation of all views of
            all clips, `[B·V, T', H', W', C]`, to the shift.
        views: `center`, or the config's own `test` crops.

    Returns:
        `[B, K]` in the type of the model's weights, the mean over the views.

    Raises:
        ConfigError: no such layer, or a shift of the wrong shape.
    """
    path = resolve_layer(recogniser, layer)
    x_views = recogniser.preprocess(clips, views)
    b, v = x_views.shape[:2]
    x = x_views.flatten(0, 1)
    form = find_forms(recogniser, [path], x[:1])[path]
    if callable(shift):
        of = shift
    else:
        moved = torch.as_tensor(shift, device=x.device)
        if tuple(moved.shape) not in (form.shape, (b, *form.shape)):
            raise ConfigError(f"The shift has shape {list(moved.shape)}; layer `{layer}` needs {list(form.shape)}.")
        moved = moved.expand(b, *form.shape).repeat_interleave(v, 0)

        def of(a: torch.Tensor) -> torch.Tensor:
            return moved

    def add(raw: torch.Tensor) -> torch.Tensor:
        return raw + form.restore(of(form.present(raw)), raw)

    with torch.no_grad(), watched(recogniser.module, path, add):
        logits = recogniser.logits(x)
    return logits.reshape(b, v, -1).mean(1).cpu().numpy()
