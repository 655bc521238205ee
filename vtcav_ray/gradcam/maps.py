"""Grad-CAM maps of a clip at several layers, from one forward and one backward pass, for transformers and CNNs.

    map = ReLU( sum over channels c of alpha_c * a_c ),   alpha_c = mean over T', H', W' of d logit / d a_c

(Selvaraju et al., Grad-CAM, ICCV 2017, with the mean also over time.) `vtcav_ray.models.layers` gives every layer as
`[T', H', W', C]`, for a Swin's channels-last stages and a ResNet's channels-first stages alike.

Three modes put a video model's map on the frames. They differ in what the model sees. `frame`: each frame alone,
repeated to a clip. `window`: a few frames at a time, looped to a clip. `clip`: the unchanged clip. A *play* is one
model input: T indices of the clip's frames. Equal plays run once.

Legend: B plays, P plays of a mode, T frames of a clip, K classes of the model; T' H' W' C of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch.nn import functional as F

from vtcav_ray.heatmaps.resample import in_time
from vtcav_ray.models.base import Recogniser
from vtcav_ray.models.layers import find_forms, resolve_layer, watched

Mode = Literal["frame", "window", "clip"]
MODES: tuple[Mode, ...] = ("frame", "window", "clip")
Play = tuple[int, ...]


def plays_of(mode: Mode, frames: int, length: int, stride: int, *, reverse: bool = False) -> list[Play]:
    """Return the plays of a mode.

    Args:
        mode: see the module's docstring.
        frames: T.
        length, stride: of the windows of the mode `window`. The last window ends with the clip, so every frame is in
            at least one.
        reverse: reverse the frames of each play. Plays of a single frame are their own reverse.

    Returns:
        P plays. A window is looped until it has T frames, as MMAction2's samplers loop a video that is too short.
        Looping keeps the speed of the motion; repeating single frames would not.
    """
    if mode == "frame":
        length, stride = 1, 1
    elif mode == "clip":
        length = frames
    length = min(length, frames)
    starts = [*range(0, frames - length, stride), frames - length]
    plays = [tuple(start + k % length for k in range(frames)) for start in starts]
    return [play[::-1] for play in plays] if reverse else plays


@dataclass(frozen=True)
class Maps:
    """Maps and logits of B plays.

    Attributes:
        maps: layer -> float32 `[B, T', H', W']`, not negative, in logits times activations.
        logits: float32 `[B, K]`.
    """

    maps: dict[str, torch.Tensor]
    logits: np.ndarray


class GradCam:
    """The computation of Grad-CAM maps. Created once per actor, called with the plays of one clip.

    Args:
        recogniser: the model, on its device.
        layers: aliases or names; the maps have these as keys.
        batch_size: plays per model call.

    Raises:
        ConfigError: a layer that the model does not have.
    """

    def __init__(self, recogniser: Recogniser, layers: Sequence[str], *, batch_size: int = 8) -> None:
        self.recogniser = recogniser
        self.paths = {layer: resolve_layer(recogniser, layer, "gradcam.layers") for layer in layers}
        self.batch_size = batch_size

    def prepare(self, clip_THW3: np.ndarray) -> torch.Tensor:
        """Return a clip `uint8 [T, H, W, 3]` as the model's input `[C, T, h, w]`, centre crop."""
        return self.recogniser.preprocess([clip_THW3], "center")[0, 0]

    def __call__(self, x_CThw: torch.Tensor, plays: Sequence[Play], target: int) -> Maps:
        """Return the maps of class `target` for each play.

        Args:
            x_CThw: from `prepare`.
            plays: T frame indices each.
            target: index of the class whose logit is differentiated.
        """
        parts: list[Maps] = []
        for start in range(0, len(plays), self.batch_size):
            chosen = torch.tensor(plays[start : start + self.batch_size], device=x_CThw.device)
            parts.append(self._run(x_CThw[:, chosen].transpose(0, 1), target))
        maps = {layer: torch.cat([part.maps[layer] for part in parts]) for layer in self.paths}
        return Maps(maps, np.concatenate([part.logits for part in parts]))

    def _run(self, x_BCThw: torch.Tensor, target: int) -> Maps:
        forms = find_forms(self.recogniser, list(self.paths.values()), x_BCThw[:1])
        taken: dict[str, torch.Tensor] = {}

        def take(layer: str, raw: torch.Tensor) -> torch.Tensor:
            # The graph starts at the first layer; everything before it costs only a forward pass.
            taken[layer] = raw if raw.requires_grad else raw.detach().requires_grad_()
            return taken[layer].clone()  # a later module may work in place

        with ExitStack() as stack:
            stack.enter_context(torch.enable_grad())
            for layer, path in self.paths.items():
                stack.enter_context(watched(self.recogniser.module, path, partial(take, layer)))
            logits = self.recogniser.logits(x_BCThw)
        # Plays are independent, so the gradient of the sum over plays contains each play's own gradient.
        found = torch.autograd.grad(
            logits[:, target].sum(), [taken[layer] for layer in self.paths], materialize_grads=True
        )
        maps = {}
        with torch.no_grad():
            for (layer, path), raw_gradient in zip(self.paths.items(), found, strict=True):
                form = forms[path]
                activation, gradient = form.present(taken[layer]).float(), form.present(raw_gradient).float()
                alpha = gradient.mean((1, 2, 3), keepdim=True)
                maps[layer] = F.relu((alpha * activation).sum(-1)).cpu()
        return Maps(maps, logits.detach().float().cpu().numpy())


def assemble(maps_PTHW: torch.Tensor, plays: Sequence[Play]) -> torch.Tensor:
    """Combine one map per play into one map per frame of the clip: `[P, T', H', W']` -> `[T, H', W']`.

    Each play's T' steps are interpolated to its T frames, and each of these is added to the clip's frame that it shows.
    Frames that are shown more than once get the mean. So the map of a reversed play has the clip's frame order.
    """
    _, _, h, w = maps_PTHW.shape
    frames = len(plays[0])
    total, times = torch.zeros(frames, h, w), torch.zeros(frames, 1, 1)
    for one, play in zip(maps_PTHW, plays, strict=True):
        place = torch.tensor(play)
        total.index_add_(0, place, in_time(one, frames))
        times.index_add_(0, place, torch.ones(frames, 1, 1))
    return total / times


def seen_masks(mask_Thw: torch.Tensor, plays: Sequence[Play], grid: tuple[int, int, int]) -> torch.Tensor:
    """Return the map that shows exactly the mask in every play, at a layer's resolution: `[T, H', W']`.

    Args:
        mask_Thw: float `[T, h, w]` in [0, 1], on the model's input.
        plays: plays of the mode.
        grid: T', H', W' of the layer.
    """
    small = F.adaptive_avg_pool2d(mask_Thw[:, None], grid[1:])[:, 0]  # T H' W'
    return assemble(torch.stack([in_time(small[list(play)], grid[0]) for play in plays]), plays)
