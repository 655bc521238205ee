"""Grad-CAM on videos: the baseline that Video-TCAV is compared with, and what is wrong with it, in figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtcav_ray.lazy import lazy_names

if TYPE_CHECKING:
    from vtcav_ray.gradcam.maps import GradCam, Mode, assemble, plays_of
    from vtcav_ray.gradcam.measures import drift, flicker, jump, similarity

__all__ = [
    "GradCam",
    "Mode",
    "assemble",
    "drift",
    "flicker",
    "jump",
    "plays_of",
    "similarity",
]

__getattr__ = lazy_names(
    __name__,
    {
        "maps": ["GradCam", "Mode", "assemble", "plays_of"],
        "measures": ["drift", "flicker", "jump", "similarity"],
    },
)
