"""Resample a map in time and to the model's input, and convert this input back to an image."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from vtcav_ray.models.preprocess import Preprocessor


def in_time(map_THW: torch.Tensor, length: int) -> torch.Tensor:
    """Resample a map in time: `[T', H', W']` -> `[length, H', W']`."""
    steps, h, w = map_THW.shape
    if steps == length:
        return map_THW
    flat = map_THW.reshape(steps, h * w).T[None]
    mode = "area" if length < steps else "linear"
    options = {} if mode == "area" else {"align_corners": False}
    return F.interpolate(flat, size=length, mode=mode, **options)[0].T.reshape(length, h, w)  # type: ignore[arg-type]


def upsample(map_THW: torch.Tensor, height: int, width: int) -> np.ndarray:
    """Resize a map `[T, H', W']` to the model's input: float32 `[T, height, width]`, bilinear, as overlays show it."""
    larger = F.interpolate(map_THW[:, None], size=(height, width), mode="bilinear", align_corners=False)
    return larger[:, 0].numpy()


def as_image(given: Preprocessor, x_CThw: torch.Tensor) -> np.ndarray:
    """Convert the model's input back to an image: `uint8 [T, h, w, 3]`, RGB."""
    mean, std = (torch.tensor(v, device=x_CThw.device).view(3, 1, 1, 1) for v in (given.mean, given.std))
    shown = x_CThw.float() * std + mean
    if given.swap_channels:
        shown = shown.flip(0)
    return shown.permute(1, 2, 3, 0).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
